"""Copying is seen while it begins, the best weights are kept, and a training ends where it was asked to."""

import math
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import call
from tests.conftest import quiet, small
from unnoise.data.dataset import ImageDataset
from unnoise.evaluation.copying import Space
from unnoise.model import Model
from unnoise.registry import source_of
from unnoise.runs.best import Candidate
from unnoise.runs.resume import resume
from unnoise.runs.start import begin
from unnoise.runs.trainer import Trainer
from unnoise.utils.atomic import read_records

OFTEN = {"training__sample_every": 1e-9}
COPIES, NONE = Space(1.0, 0.0, 0.1, 36, 100), Space(0.0, 0.0, 1.0, 36, 100)


def few(tmp_path: Path, count: int, say: Callable[[str], None], **changes: object) -> Trainer:
    """A run of a small network on so few digits, with 40 held out."""
    images = ImageDataset(small().data.load().pixels[: count + 40], test=np.arange(count + 40) >= count)
    fast = {
        "training__optimizer": "muon",
        "training__learning_rate": 5e-3,
        "training__batch": 16,
        "training__ema": 0.05,
        "data__augment": 0.0,
    }  # by itself it would be augmented, seen so often
    recipe = small(data__source=source_of(images), training__sample_count=16, **fast, **changes)
    run = begin(tmp_path, recipe, say)
    run.copies.watch.budget = math.inf
    return run


@pytest.mark.slow
def test_a_network_that_learns_few_images_by_heart_is_caught(tmp_path: Path, digits_run: Trainer) -> None:
    """And one that has learned from many is not."""
    said: list[str] = []
    run = few(tmp_path, 12, said.append, training__steps=200)
    list(run.train())
    run.finish()
    last = read_records(tmp_path / "held-out.jsonl")[-1]
    assert last["step"] == 200 and last["copy_rate"] > 0.2 and len(last["levels"]) == 8
    (warning,) = (line for line in said if "are copies of training images" in line)
    assert "fewer steps" in warning and "training.stop_when_copying" in warning
    digits_run.copies.watch.budget = math.inf
    found = digits_run.copies.watch.look(digits_run.model.sample(64, seed=3))
    assert found is not None and not found.copies


@pytest.mark.slow
def test_copying_is_caught_before_the_end(tmp_path: Path) -> None:
    """As it begins, with a best model from before it, and the training ends long before it was planned to."""
    run = few(tmp_path, 24, quiet, training__steps=3000, training__stop_when_copying=True, **OFTEN)
    list(run.train())
    best = Candidate.read(run.folder)
    assert run.state.step < 1500 and best is not None and not best.copies and best.step < run.state.step
    rates = [r["copy_rate"] for r in read_records(tmp_path / "held-out.jsonl")]
    assert rates[1] == 0 and rates[-1] > 0.1


def watched(run: Trainer, seen: Callable[[], Space], loss: Callable[[], float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the run see that in its samples and held-out images."""
    monkeypatch.setattr(run.copies.watch, "look", lambda _: seen())
    monkeypatch.setattr("unnoise.runs.trainer.held_out_loss", lambda *_: [loss()])


@pytest.mark.parametrize("asked", [True, False])
def test_stop_when_copying_ends_as_a_plateau_does(tmp_path: Path, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    run = begin(tmp_path, small(training__stop_when_copying=asked, training__sample_count=1, **OFTEN), said.append)
    watched(run, lambda: COPIES if run.state.step > 19 else NONE, lambda: 1 / (1 + run.state.step), monkeypatch)
    records = list(islice(run.train(), 300))  # from 20 on, so that the rate has two steps to fall
    assert sum("100% of 36 samples are copies" in line for line in said) == 1
    ends = [int(found[1]) for line in said if (found := re.search(r"copies of training images: .* over (\d+) more", line))]
    assert len(ends) == asked and (records[-1].total == records[-1].step) == asked
    if asked:
        assert len(records) < 300 and 0 < records[-1].learning_rate < 0.6e-3


def test_the_best_is_of_lowest_loss_before_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are worse than any loss; a resumed run goes on from what was kept; it becomes a run of its own."""
    run = begin(tmp_path / "run", small(training__steps=60, training__sample_count=1), quiet)
    facts = {0: (NONE, 9.0), 10: (NONE, 0.5), 20: (NONE, 0.4), 30: (NONE, 0.6), 40: (COPIES, 0.1)}
    watched(run, lambda: facts[run.state.step][0], lambda: facts[run.state.step][1], monkeypatch)
    kept = {}
    for record in (records := run.train()):
        if record.step in facts:
            run._evaluate()
            kept[record.step] = run.model.sample(2)
        if record.step == 40:
            break
    records.close()
    assert Candidate.read(run.folder) == Candidate(False, 0.4, 20) < Candidate(True, 0.1, 1)
    assert call("average", tmp_path / "run", "--best", "--out", tmp_path / "best") == 0
    assert np.array_equal(Model.load(tmp_path / "best").sample(2), kept[20])
    again = resume(tmp_path / "run", quiet)
    watched(again, lambda: NONE, lambda: 0.45, monkeypatch)
    again._evaluate()
    assert again._best == Candidate(False, 0.4, 20)
