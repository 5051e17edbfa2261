"""A run that is evaluated and has a report card."""

import shutil
from pathlib import Path

import pytest

import unnoise as un
from tests.cli.conftest import command, refused  # noqa: F401  (fixtures)
from unnoise.runs.trainer import Trainer


@pytest.fixture(scope="session")
def reported(small_run: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run on digits, evaluated with 110 samples, with its report card; not to be changed."""
    folder = Path(shutil.copytree(small_run.folder.path, tmp_path_factory.mktemp("reported") / "digits"))
    un.evaluate(folder, n=110, features="pixels")
    un.report(folder)
    return folder


@pytest.fixture
def run(reported: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(reported, tmp_path / "digits"))
