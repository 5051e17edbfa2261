"""Presets that no test trains elsewhere: they build at their size, and one step runs on little data."""

from pathlib import Path

import pytest
import torch

from tests.conftest import quiet
from tests.data.test_torchvision_sets import declare_cifar, write_cifar
from unnoise.presets import PRESETS
from unnoise.recipe import override
from unnoise.runs.start import begin


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = PRESETS["cifar10"]
    with torch.device("meta"):
        network = recipe.build_denoiser((3, 32, 32), 10)
    assert 2e7 < sum(p.numel() for p in network.parameters()) < 6e7  # EDM's has 56 million
    write_cifar(tmp_path)
    declare_cifar(tmp_path, monkeypatch)
    small = {"data.source.root": str(tmp_path), "network.widths": [16, 32, 32], "network.embedding": 32, "training.batch": 2,
             "training.minutes": None, "training.steps": 1, "training.sample_count": 2, "training.precision": "fp32",
             "sampling.steps": 2}  # fmt: skip
    run = begin(tmp_path / "run", override(recipe, small), quiet)
    assert [record.step for record in run.train()] == [1] and run.info.shape == (3, 32, 32) and len(run.info.classes) == 10
    assert run.info.recipe.data.augment == 0.12 and len(run.split.held_out) == 1
