"""`unnoise demo`."""

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from unnoise.data.arrays import Digits
from unnoise.recipe import Recipe


def test_demo_is_the_digits_preset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: Command) -> None:
    seen: list[tuple[Path, Recipe]] = []

    def train_nothing(folder: Path, recipe: Recipe) -> int:
        seen.append((folder, recipe))
        return 1

    monkeypatch.setattr(sys.modules["unnoise.cli.demo"], "begin_run", train_nothing)
    assert command("demo", "--run", tmp_path / "d") == 1
    assert seen[0][1].training.minutes == 1 and seen[0][1].data.source == Digits()
    (tmp_path / "d").mkdir()
    assert command("demo", "--run", tmp_path / "d") == 1
    assert [folder for folder, _ in seen] == [tmp_path / "d", tmp_path / "d-2"]  # never into what is there
