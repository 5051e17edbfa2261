"""A budget of time under a clock of the test's own."""

from collections.abc import Callable

import pytest

from unnoise.training import budget
from unnoise.training.budget import Budget


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


def run(patch: pytest.MonkeyPatch, seconds: float, cost: Callable[[int], float], **options: int) -> tuple[list[int], float]:
    """Steps that take `cost(k)` seconds within a budget: the numbers of steps aimed at, and the seconds that it took."""
    clock = Clock()
    patch.setattr(budget, "time", clock)
    totals: list[int] = []
    found, total, step = Budget(100.0 + seconds, **options), None, options.get("first", 0)
    while total is None or step < total:
        clock.now += cost(step)
        step += 1
        if found.due(step, total):
            total = found.total_steps(step, total)
            totals += [total] if total is not None and totals[-1:] != [total] else []
    return totals, clock.now - 100.0


def test_even_steps_end_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    totals, took = run(monkeypatch, 60.0, lambda k: 1.5 if k == 0 else 0.1)
    assert len(totals) == 1 and 59 < took <= 60


def test_a_machine_that_becomes_slower_still_ends_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By half after a third, and again in the last tenth."""
    totals, took = run(monkeypatch, 60.0, lambda k: 0.1 if k < 200 else 0.2 if k < 350 else 0.4)
    assert totals[0] > 550 and totals[-1] < 400 and 57 < took < 61


def test_a_machine_that_becomes_faster_does_more(monkeypatch: pytest.MonkeyPatch) -> None:
    totals, took = run(monkeypatch, 60.0, lambda k: 0.4 if k < 30 else 0.1)
    assert totals[0] < 200 and totals[-1] > 400 and 59 < took <= 60.1


def test_work_between_steps_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid every fiftieth step, as long as ten steps."""
    _, took = run(monkeypatch, 60.0, lambda k: 1.1 if k % 50 == 49 else 0.1)
    assert 58 < took < 62


def test_steps_may_end_it_first_and_one_is_always_done(monkeypatch: pytest.MonkeyPatch) -> None:
    totals, took = run(monkeypatch, 60.0, lambda k: 0.1, max_steps=40)
    assert totals == [40] and took == pytest.approx(4.0)
    totals, _ = run(monkeypatch, 1.0, lambda k: 30.0)
    assert totals == [1]
    totals, took = run(monkeypatch, 60.0, lambda k: 0.1, max_steps=1)
    assert totals == [1] and took == pytest.approx(0.1)
