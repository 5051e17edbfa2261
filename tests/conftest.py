"""What tests share: a cache of their own, small recipes, and runs that are trained once a session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # tests run in a process for each core, where more threads than one would only wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.chromium import chromium  # noqa: F401  (a fixture)
from unnoise.diffusion.denoiser import EDM
from unnoise.presets import PRESETS
from unnoise.recipe import Recipe, override
from unnoise.runs.start import begin
from unnoise.runs.trainer import Trainer

SMALL = {"target": EDM(0.75), "network": "unet", "network.widths": [16, 32], "network.blocks": 1, "network.embedding": 32,
         "training.optimizer": "adamw", "training.learning_rate": 1e-3, "training.batch": 32, "training.precision": "fp32",
         "training.minutes": None, "training.sample_count": 4, "sampling.steps": 4,
         "sampling.guidance": "none"}  # fmt: skip


def small(**changes: object) -> Recipe:
    """The digits preset with a small network, in float32; `training__steps=3` changes training.steps."""
    return override(PRESETS["digits"], SMALL | {k.replace("__", "."): v for k, v in changes.items()})


def quiet(_: str) -> None:
    """For those who have nothing to say."""


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Decoded images of the tests go to a folder of theirs."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A small network after 12 steps on digits, with labels; its folder is not to be changed."""
    run = begin(tmp_path_factory.mktemp("small") / "run", small(training__steps=12), quiet)
    list(run.train())
    run.finish()
    return run


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A network that has learned digits in 400 steps; its folder is not to be changed."""
    recipe = small(training__steps=400, network__widths=[32, 64], network__embedding=64, network__attention_tokens=16)
    run = begin(tmp_path_factory.mktemp("digits") / "run", recipe, quiet)
    list(run.train())
    run.finish()  # two grids at least, however soon it was done
    return run
