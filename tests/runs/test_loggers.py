"""What a run writes down: lines of JSON, and the same in TensorBoard."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import quiet, small
from unnoise.run_folder import RunFolder
from unnoise.runs.loggers import LOGGERS, JsonlLogger
from unnoise.runs.start import begin
from unnoise.training.records import Measured, TrainingRecord


def test_tensorboard_has_what_the_metrics_have(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = begin(tmp_path, small(training__steps=5), quiet)
    losses = [r.loss for r in run.train()]
    run.finish()
    # Two files of one second are read in the order of their numbers as text, 10 before 9, and earlier steps purge later ones.
    board = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=False)
    board.Reload()
    assert [e.value for e in board.Scalars("loss")] == pytest.approx(losses)
    assert {"gradient_norm", "learning_rate", "held-out loss"} <= set(board.Tags()["scalars"])
    assert {e.step for e in board.Scalars("held-out loss")} == {0, 5}  # the last after training, by finish
    assert board.Tags()["images"] and (tmp_path / "samples" / "000000.png").is_file()
    curve = run.folder.read_losses()
    assert curve is not None and curve[1] == losses


def test_lines_of_steps_to_be_done_again_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    logger = JsonlLogger(folder, 0)
    for step in range(1, 5):
        logger.log_step(TrainingRecord(step, 9, Measured(1.0 / step, 0.0), 0.0, 0.0))
        logger.log_held_out(step, 2.0 / step, [])
    with folder.metrics.open("a") as file:
        file.write('{"step": 5, "lo')  # as a crash leaves it
    JsonlLogger(folder, 2)
    assert folder.read_losses() == ([1, 2], [1.0, 0.5]) and folder.read_held_out_losses() == ([1, 2], [2.0, 1.0])


@pytest.mark.parametrize("logger", LOGGERS)
def test_every_logger_can_be_used_after_it_was_closed(logger: type, tmp_path: Path) -> None:
    log = logger(RunFolder(tmp_path), 0)
    for step in (1, 2):
        log.log_step(TrainingRecord(step, 2, Measured(1.0, 0.0), 0.0, 0.0))
        log.log_held_out(step, 1.0, [1.0, 1.0])
        log.log_grid(step, np.zeros((2, 8, 8, 1), np.uint8))
        log.close()
    assert any(p.stat().st_size > 0 for p in tmp_path.rglob("*") if p.is_file())


def test_tensorboard_is_imported_when_it_is_written() -> None:
    code = "import sys, unnoise.runs.trainer; assert not any(m.startswith('tensorboard') for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
