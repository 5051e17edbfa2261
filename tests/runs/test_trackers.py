"""Figures in trackers of experiments, by stand-ins for their libraries."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import quiet, small
from unnoise.run_folder import RunFolder
from unnoise.runs.resume import resume
from unnoise.runs.start import begin
from unnoise.training.config import TRACKERS
from unnoise.utils.errors import UserError


class Calls(ModuleType):
    """A module that notes down which of its functions were called with what."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = None
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            return []

        return call

    def of(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(args, kwargs) for found, args, kwargs in self.calls if found == name]


@pytest.fixture
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Calls:
    module = Calls(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: object())
    return module


@pytest.mark.parametrize("library", TRACKERS, indirect=True)
def test_numbers_and_grids_go_there(library: Calls, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small(training__steps=3, training__tracker=library.__name__), quiet)
    losses = [record.loss for record in run.train()]
    run.finish()
    log, start, end = ("log_metrics", "start_run", "end_run") if library.__name__ == "mlflow" else ("log", "init", "finish")
    found = [(args[0], kwargs["step"]) for args, kwargs in library.of(log)]
    assert [(values["loss"], step) for values, step in found if "loss" in values] == list(zip(losses, (1, 2, 3), strict=True))
    assert [step for values, step in found if "held-out loss" in values] == [0, 3]
    images = [a for n, a, _ in library.calls if n in ("Image", "log_image")]
    assert len(images) == 2
    assert len(library.of(start)) == len(library.of(end)) >= 1
    assert all("run" in str(kwargs) for _, kwargs in library.of(start))


@pytest.mark.parametrize("library", ["wandb"], indirect=True)
def test_a_run_that_goes_on_is_the_same_there(library: Calls, tmp_path: Path) -> None:
    list(begin(tmp_path / "run", small(training__steps=2, training__tracker="wandb"), quiet).train())
    list(resume(tmp_path / "run", quiet, steps=3).train())
    ids = {kwargs["id"] for _, kwargs in library.of("init")}
    assert len(library.of("init")) == 2 and len(ids) == 1


@pytest.mark.parametrize("library", ["wandb"], indirect=True)
def test_training_goes_on_without(library: Calls, tmp_path: Path) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no network\nand more")

    setattr(library, "init", refuse)  # noqa: B010
    said: list[str] = []
    run = begin(tmp_path / "run", small(training__steps=2, training__tracker="wandb"), said.append)
    assert len(list(run.train())) == 2
    assert sum("wandb: no network" in line for line in said) == len({line for line in said if "wandb" in line})


def test_what_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown tracker 'wanbd': did you mean 'wandb'"):
        small(training__tracker="wanbd")
    for name in TRACKERS:
        if name not in sys.modules:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("importlib.util.find_spec", lambda name, package=None: None)
                with pytest.raises(UserError, match=f"pip install {name}"):
                    begin(tmp_path / "run", small(training__steps=1, training__tracker=name), quiet)
    assert not RunFolder(tmp_path / "run").recipe.exists()
