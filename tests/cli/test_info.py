"""`unnoise info` and `unnoise runs`."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from unnoise.presets import PRESETS
from unnoise.recipe import Recipe, RunInfo
from unnoise.registry import from_json
from unnoise.run_folder import RunFolder


def test_the_whole_recipe_is_printed(trained: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for name, recipe in PRESETS.items():
        assert command("info", name) == 0
        assert from_json(Recipe, json.loads(capsys.readouterr().out)) == recipe
    assert command("info", trained) == 0
    assert from_json(RunInfo, json.loads(capsys.readouterr().out)) == RunFolder(trained).read_info()


def test_runs_are_listed(trained: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("runs", trained.parent) == 0
    assert f"{trained}: done, step 12 of 12, loss " in capsys.readouterr().out
