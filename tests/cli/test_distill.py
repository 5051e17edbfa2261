"""`unnoise distill`, and `unnoise train --fast`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import QUICK, Command
from unnoise.run_folder import RunFolder


@pytest.fixture(autouse=True)
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding the times takes seconds."""
    monkeypatch.setattr("unnoise.runs.trainer.choose_times", lambda *_: None)


def test_distil_and_sample(tmp_path: Path, trained: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "fast"
    assert command("distill", trained, "--steps", "2", "--run", out) == 0
    assert command("sample", out, "-n", "2") == 0 and command("sample", out, "-n", "2", "--steps", "1", "--out", out / "one") == 0
    assert "consistency, 1 steps" in capsys.readouterr().out
    assert command("train", "--resume", out, "--steps", "3") == 0
    assert RunFolder.open(out).read_info().total_steps == 3
    assert command("evaluate", out, "-n", "30", "--features", "pixels") == 0
    grid = out / "generated-grid.png"
    assert command("restore", out, grid, "--add-noise", "25", "--out", tmp_path / "restored") == 0
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "consistency" in report and f"the weights of the run {trained.name}" in report


def test_refusals(tmp_path: Path, trained: Path, refused: Callable[..., str]) -> None:
    assert "needs a budget: give --minutes or --steps" in refused("distill", trained, "--run", tmp_path / "r")
    assert "no run folder" in refused("distill", tmp_path / "nothing", "--steps", "2")
    assert "divides a number of minutes or steps: give --minutes or --steps" in refused(
        "train", "digits", "--fast", "--training.minutes", "null", "--run", tmp_path / "r"
    )
    assert "--resume goes on" in refused("train", "--resume", trained, "--fast")
    (tmp_path / "r-fast").mkdir()
    (tmp_path / "r-fast" / "recipe.json").write_text("{}")
    assert "holds a run already" in refused("train", "digits", "--fast", "--steps", "4", "--run", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_train_fast(tmp_path: Path, command: Command) -> None:
    """Half of the steps each."""
    assert command("train", "digits", "--fast", "--run", tmp_path / "r", *QUICK) == 0
    infos = [RunFolder.open(tmp_path / name).read_info() for name in ("r", "r-fast")]
    assert [info.total_steps for info in infos] == [1, 1] and infos[1].from_run == "r"
