"""As many threads as compute fastest: chosen, said, looked at again, and left alone where that was not asked for."""

import time
from collections.abc import Iterator

import pytest
import torch

from unnoise.utils.threads import Threads, fastest_threads


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_fewer_are_taken_only_where_they_are_much_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution that takes as long as the table says, by a clock of the test's own."""
    clock = [0.0]
    for seconds, best in (({4: 1.0, 2: 1.1, 1: 1.3}, 4), ({4: 1.0, 2: 0.8, 1: 0.9}, 4), ({4: 9.0, 2: 3.0, 1: 1.0}, 1)):

        def convolve(self: torch.nn.Conv2d, x: torch.Tensor, seconds: dict[int, float] = seconds) -> None:
            clock[0] += seconds[torch.get_num_threads()]

        monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
        monkeypatch.setattr(torch.nn.Conv2d, "forward", convolve)
        torch.set_num_threads(2)
        count, gain = fastest_threads(4, seconds=50.0)
        assert count == best and gain == pytest.approx(seconds[4] / min(seconds.values()), rel=0.2)
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize("free", [True, False])
def test_what_is_measured_is_said_and_set_if_that_is_allowed(free: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """More are set only once no other program has been at work for a while."""
    clock, said = [0.0], list[str]()
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    found = [(1, 20.0), (2, 1.0), (1, 20.0), (2, 1.0), (2, 1.0)]
    torch.set_num_threads(2)
    chosen = Threads(2, free, said.append, lambda most: found.pop(0))
    for expected in (1, 1, 1, 1, 2):
        clock[0] += 6.0
        chosen.choose()
        assert torch.get_num_threads() == (expected if free else 2)
    assert len(said) == 2 and "20 times as fast" in said[0] and ("threads: 1 of 2" if free else "OMP_NUM_THREADS=1") in said[0]


@pytest.mark.parametrize("most", [0, 1])
def test_where_there_is_no_choice_nothing_is_measured(most: int) -> None:
    def measure(most: int) -> tuple[int, float]:
        raise AssertionError

    alone, before = Threads(most, True, print, measure), torch.get_num_threads()
    alone.choose()
    alone.after_step()
    alone.reset()
    assert torch.get_num_threads() == before


def test_a_step_that_takes_far_longer_than_usual_is_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looked = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def measure(most: int) -> tuple[int, float]:
        looked.append(clock[0])
        return torch.get_num_threads(), 1.0

    chosen = Threads(torch.get_num_threads() + 1, True, print, measure)
    for seconds in [0.5] * 20 + [2.5] + [0.5] * 40:
        clock[0] += seconds
        chosen.after_step()
    assert looked == [2.5, 7.0, 12.5, 29.0]  # ever more rarely, but for the slow step
