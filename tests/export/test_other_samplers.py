"""Denoisers of ours in the samplers of azula and k-diffusion, and theirs in ours, by the lines in docs/export.md."""

import importlib.util
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from unnoise.diffusion.samplers import DDIM, DPMpp2M
from unnoise.diffusion.sampling import SamplingConfig, trajectory
from unnoise.diffusion.schedules import Schedule
from unnoise.diffusion.timesteps import SamplingTimes, UniformSteps
from unnoise.model import Model
from unnoise.runs.trainer import Trainer
from unnoise.utils.rng import BatchRng

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
AZULA, K_DIFFUSION = (re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.S | re.M) for kind in ("python", "py"))


@pytest.fixture
def azula(small_run: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the page's lines about azula leave."""
    shutil.copytree(small_run.folder.path, tmp_path / "runs" / "digits")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    exec(AZULA[0], names)
    return names


def ours(model: Model, x: Tensor, sampling: SamplingConfig, label: Tensor) -> Tensor:
    *_, record = trajectory(model.denoiser, x, sampling, BatchRng(0, []), label)
    return record.x


def test_azula(azula: dict[str, Any]) -> None:
    """Their DDIM is ours, and a denoiser that went there and came back is the same."""
    model, start, label = azula["model"], azula["start"], azula["label"]
    expected = ours(model, start, SamplingConfig(DDIM(), UniformSteps(), 20, clamp_estimate=False), label)
    torch.testing.assert_close(azula["by_azula"], expected, rtol=1e-3, atol=1e-3)
    back, t = azula["FromAzula"](azula["ForAzula"](model.denoiser)), torch.tensor([0.1, 0.3, 0.6, 1.0])
    torch.testing.assert_close(back(start, t, label=None), model.denoiser(start, t))
    torch.testing.assert_close(back.schedule.sigma(t), model.denoiser.schedule.sigma(t))
    noise = BatchRng(0, range(4)).normal_like(torch.empty(4, 1, 8, 8))  # which the exact denoiser of N(0, 1) leaves as it is
    torch.testing.assert_close(azula["by_unnoise"], noise.clamp(-1, 1), rtol=0, atol=0.02)


@dataclass(frozen=True)
class Levels(SamplingTimes):
    """Through these noise levels."""

    ratios: Tensor

    def levels(self, schedule: Schedule, steps: int) -> Tensor:
        return schedule.time_at(self.ratios.double())


def test_k_diffusion(azula: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its DPM-Solver++(2M) is ours, and a denoiser that went there and came back is the same.

    The package imports all that its own trainings need, and wants an old NumPy; its samplers alone need neither.
    """
    found = importlib.util.find_spec("k_diffusion")
    for name in ("k_diffusion", "torchsde", "torchdiffeq"):
        if importlib.util.find_spec(name) is None:
            pytest.skip("pip install --no-deps k-diffusion torchsde torchdiffeq trampoline")
    package = ModuleType("k_diffusion")
    assert found is not None
    package.__path__ = list(found.submodule_search_locations or [])
    monkeypatch.setitem(sys.modules, "k_diffusion", package)
    exec(K_DIFFUSION[0], azula)
    model, sigmas, label = azula["model"], azula["sigmas"], azula["label"]
    sampling = SamplingConfig(DPMpp2M(), Levels(sigmas[:-1]), 20, clamp_estimate=False)
    expected = ours(model, azula["noise"] * sigmas[0], sampling, label)
    torch.testing.assert_close(azula["by_k_diffusion"], expected, rtol=1e-3, atol=1e-3)
    back, t = azula["there_and_back"], torch.tensor([0.1, 0.3, 0.6, 1.0])
    torch.testing.assert_close(back(azula["start"], t), model.denoiser(azula["start"], t), rtol=1e-4, atol=1e-4)
