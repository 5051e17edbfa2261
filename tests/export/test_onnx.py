"""Runs as ONNX: onnxruntime's numbers are torch's, and the program beside the graph samples the command's images."""

import json
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.export.conftest import OTHER, UNET2D, MakeRun
from unnoise.diffusion.denoiser import TARGETS, Target
from unnoise.diffusion.guidance import AutoGuidance, ClassGuidance, NoGuidance
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import SCHEDULES
from unnoise.export import onnx
from unnoise.export.onnx import export_onnx
from unnoise.model import Model
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError

BARE = """
import runpy, sys
sys.modules |= dict.fromkeys(["torch", "unnoise"])
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def exported(small_run: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with classes, that starts from its images' moments; not to be changed."""
    out = tmp_path_factory.mktemp("onnx") / "digits"
    assert "agrees with torch to" in export_onnx(small_run.folder.path, out)
    return out


def test_the_example_samples_the_commands_images(exported: Path, small_run: Trainer, tmp_path: Path) -> None:
    """In a Python that has neither torch nor this program."""
    out = tmp_path / "images.npz"
    words = [str(exported / "sample.py"), "-n", "5", "--seed", "3", "--out", str(out)]
    subprocess.run([sys.executable, "-I", "-c", BARE, *words], check=True)
    found, expected = np.load(out)["images"], Model.load(small_run.folder.path, "cpu").sample(5, seed=3)
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= 2
    assert len(np.unique(expected)) > 20


def test_the_graph_knows_nothing_of_this_machine(exported: Path) -> None:
    """No path of a source file, as the exporter notes them."""
    content = (exported / "denoiser.onnx").read_bytes()
    assert b".py" not in content and str(Path.cwd()).encode() not in content


METHODS: list[dict[str, Any]] = [
    {"sampler": "dpm++2m"}, {"sampler": "ddim"}, {"sampler": "ddim", "eta": 0.5}, {"sampler": "ddpm"}, {"sampler": "euler"},
    {"sampler": "euler-ancestral"}, {"sampler": "dpm++2m", "guidance": 2.0},
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=lambda m: "-".join(map(str, m.values())))
def test_every_sampler_of_the_example(method: dict[str, Any], exported: Path, small_run: Trainer, tmp_path: Path) -> None:
    """On the same graph, whose schedule is not in it."""
    from unnoise.diffusion.samplers import Sampler
    from unnoise.registry import from_json

    model = Model.load(small_run.folder.path, "cpu")
    sampler = from_json(Sampler, {"name": method["sampler"], **{k: v for k, v in method.items() if k == "eta"}})
    guidance = ClassGuidance(method["guidance"]) if "guidance" in method else NoGuidance()
    sampling = SamplingConfig(sampler, steps=4, start="noise", clamp_estimate=False, guidance=guidance)
    folder = shutil.copytree(exported, tmp_path / "a")
    info = model.info
    changed = Model(model.denoiser, replace(info, recipe=replace(info.recipe, sampling=sampling)), moments=model.moments)
    assert onnx._write_sampling(changed, folder, True) == ""
    found = runpy.run_path(str(folder / "sample.py"))["sample"](3, 1, label="7")
    expected = model.sample(3, seed=1, label="7", sampling=sampling, output="tensor")
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-3)


def test_samplers_that_the_example_lacks_are_told(small_run: Trainer, exported: Path, tmp_path: Path) -> None:
    model = Model.load(small_run.folder.path, "cpu")
    sampling = replace(model.sampling("heun"), guidance=AutoGuidance(2.0))
    changed = Model(model.denoiser, replace(model.info, recipe=replace(model.info.recipe, sampling=sampling)))
    said = onnx._write_sampling(changed, tmp_path, True)
    assert "by dpm++2m, not Heun" in said and "no guidance by an early average" in said
    facts = json.loads((tmp_path / "sampler.json").read_text())
    assert facts["sampler"] == "dpm++2m" and facts["guidance"] == 1


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_scales_are_all_that_a_denoiser_needs(schedule: str, target: str) -> None:
    """Whatever the schedule and its scale: alpha may be another than the schedule's."""
    from unnoise.diffusion.denoiser import NetworkDenoiser
    from unnoise.networks.simple_unet import SimpleUnetConfig
    from unnoise.networks.unet import UNetConfig

    made: Target = TARGETS[target]()
    for config in (UNetConfig((16,), 1), SimpleUnetConfig((4, 8))):
        denoiser = NetworkDenoiser(config.build(1, (8, 8), 0), SCHEDULES[schedule](), made).double().eval()
        t, x = torch.tensor([0.05, 0.4, 0.95], dtype=torch.float64), torch.randn(3, 1, 8, 8, dtype=torch.float64)
        alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        with torch.no_grad():
            expected = denoiser(x, t)
            torch.testing.assert_close(denoiser.at_scales(x, alpha, sigma), expected, rtol=1e-5, atol=1e-5)
            scaled = denoiser.at_scales(x / alpha[:, None, None, None], torch.ones_like(t), sigma / alpha)
        torch.testing.assert_close(scaled, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_network_that_counts_steps(make: MakeRun) -> None:
    run = make("a", schedule="linear", target="velocity", network="simple-unet", **(OTHER | {"network__widths": [4, 8]}))
    export_onnx(run, run.parent / "out")


@pytest.mark.slow
def test_the_network_of_diffusers(make: MakeRun) -> None:
    run = make("a", schedule="linear", target="epsilon", sampling__steps=4, **UNET2D)
    export_onnx(run, run.parent / "out")


class OneByOne(nn.Module):
    """A network whose code asks how many images there are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.cat([self.layer(x[k : k + 1]) for k in range(len(x))])


@pytest.mark.slow
def test_a_batch_that_can_not_be_dynamic_is_one(make: MakeRun) -> None:
    run = make("a", network=OneByOne, **OTHER)
    assert "one image a call" in export_onnx(run, run.parent / "out")
    found = runpy.run_path(str(run.parent / "out" / "sample.py"))["sample"](2)
    np.testing.assert_allclose(found, Model.load(run, "cpu").sample(2, output="tensor").numpy(), atol=1e-3)


def test_what_differs_is_not_kept(make: MakeRun, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph of other weights."""
    run = make("a", classes=10)
    monkeypatch.setattr(onnx, "_export", lambda denoiser, model, path, dynamic: shutil.copy(exported / "denoiser.onnx", path))
    with pytest.raises(UserError, match="differ from torch's by"):
        export_onnx(run, run.parent / "out")
    assert not (run.parent / "out").exists()


def test_a_missing_library_is_named(small_run: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'unnoise\[export\]'"):
        export_onnx(small_run.folder.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
