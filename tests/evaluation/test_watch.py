"""Copies are seen on small images as on large ones, at a cost that is bounded."""

import math
import time

import numpy as np
import pytest

from tests.conftest import small
from unnoise.data.dataset import ImageDataset, Split, split
from unnoise.evaluation import watch as module
from unnoise.evaluation.copying import Nearest
from unnoise.evaluation.watch import CopyWatch


@pytest.fixture(scope="module")
def large() -> Split:
    """Digits of 40x40, in colour."""
    pixels = split(small().data.load(), 0.3)
    return Split(*(ImageDataset(x.pixels[:300].repeat(5, 1).repeat(5, 2).repeat(3, 3)) for x in (pixels.train, pixels.held_out)))


def test_copies_are_seen(large: Split) -> None:
    """Noised, and mirrored where training mirrors; held-out images are none."""
    watch = CopyWatch(large.train, large.held_out, flip=True, budget=math.inf)
    noise = np.random.default_rng(0).integers(-20, 21, (20, 40, 40, 3))
    copies = (large.train.pixels[5:25, :, ::-1].astype(int) + noise).clip(0, 255).astype(np.uint8)
    found, real = watch.look(copies), watch.look(large.held_out.pixels[:40])
    assert found is not None and found.rate > 0.9 and found.copies and found.held_out_rate < 0.02
    assert real is not None and real.rate < 0.06 and not real.copies
    half = watch.look(np.concatenate([copies, large.held_out.pixels[100:120]]))
    assert half is not None and 0.45 <= half.rate <= 0.55 and half.copies


def test_without_held_out_images(large: Split) -> None:
    watch = CopyWatch(large.train, large.held_out.subset(np.zeros(300, bool)), budget=math.inf)
    found, real = watch.look(large.train.pixels[:9]), watch.look(large.held_out.pixels[:9])
    assert found is not None and found.rate == 1 and found.copies and real is not None and not real.copies
    one = CopyWatch(large.train.subset(np.arange(300) < 1), large.held_out, budget=math.inf)
    assert one.look(large.train.pixels[:9]) is None


def test_it_keeps_to_its_budget(large: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a look costs, after each one at most the budget is spent, but for the error of what the first was expected to."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    watch = CopyWatch(large.train, large.held_out)
    watch._expected = 3.0
    plain = watch._nearest

    def slow(pixels: np.ndarray) -> Nearest:
        clock[0] += 1.0
        return plain(pixels)

    monkeypatch.setattr(watch, "_nearest", slow)
    looked = []
    for _ in range(100):
        clock[0] += 9.0
        looked.append(watch.look(large.train.pixels[:4]) is not None)
        assert watch._spent <= 0.02 * clock[0] + 1e-9
    assert 10 < sum(looked) < 20 and not any(looked[:15])


def test_of_too_many_images_a_part_is_compared_with(large: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CopyWatch(large.train, large.held_out).note == ""
    monkeypatch.setattr(module, "MAX_BYTES", 100 * 16 * 16 * 3)
    watch = CopyWatch(large.train, large.held_out, budget=math.inf)
    assert watch.note == "copies are looked for among 100 of 300 training images"
    found = watch.look(large.train.pixels)
    assert found is not None and 0.3 < found.rate < 0.4
