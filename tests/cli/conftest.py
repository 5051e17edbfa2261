"""The command as a user types it, in this process."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unnoise import cli
from unnoise.runs.trainer import Trainer

Command = Callable[..., int]
SMALL_NETWORK = ["--network.widths", "16,32", "--sampling.steps", "2", "--training.precision", "fp32"]
QUICK = ["--steps", "2", *SMALL_NETWORK]


def call(*words: object) -> int:
    """`unnoise WORDS`; gives the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["unnoise", *map(str, words)])
        patch.setattr(sys, "path", list(sys.path))  # the command adds the current folder
        with pytest.raises(SystemExit) as e:
            cli.main()
    return int(e.value.code or 0)


@pytest.fixture
def command() -> Command:
    """`command("train", "digits")` is `unnoise train digits`; gives the exit code."""
    return call


@pytest.fixture
def refused(command: Command, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`refused("train", "digts")` gives the one sentence with which the command exits with 2."""

    def run(*words: object) -> str:
        capsys.readouterr()
        assert command(*words) == 2, words
        captured = capsys.readouterr()
        assert captured.err.startswith("unnoise: ") and captured.err.count("\n") == 1, captured.err
        return captured.err

    return run


@pytest.fixture(scope="session")
def trained(small_run: Trainer) -> Path:
    """The folder of a small run on digits with labels; not to be changed."""
    return small_run.folder.path
