"""Runs with random weights, made without training."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL
from unnoise.export.place import make_run
from unnoise.presets import PRESETS
from unnoise.recipe import RunInfo, override
from unnoise.run_folder import RunFolder

MakeRun = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> MakeRun:
    """`make("a", classes=3, network="unet2d")` is the folder of a run of 8x8 grey images with that recipe.

    Changes are those of `small`; None takes one of its own away.
    """

    def run(name: str, classes: int = 0, **changes: object) -> Path:
        asked = SMALL | {"sampling.start": "noise"} | {k.replace("__", "."): v for k, v in changes.items()}
        recipe = override(PRESETS["digits"], {k: v for k, v in asked.items() if v is not None})
        info = RunInfo(recipe, (1, 8, 8), tuple("0123456789"[:classes]))
        denoiser = info.recipe.build_denoiser(info.shape, classes)
        torch.manual_seed(1)
        for p in denoiser.parameters():  # a branch that begins at zero would hide what is behind it
            torch.nn.init.normal_(p, std=0.1)
        make_run(RunFolder(tmp_path / name), info, denoiser.state_dict())
        return tmp_path / name

    return run


UNET2D = {"network": "unet2d", "network__widths": [16, 32], "network__groups": 8, "network__embedding": None}
OTHER = dict.fromkeys(("network__widths", "network__blocks", "network__embedding"))  # fields that a network of one's own lacks
