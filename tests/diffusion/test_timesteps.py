"""Training times against their distributions, sampling times against the contract that samplers rely on."""

import pytest
import torch

from tests.diffusion.oracles import each_schedule
from unnoise.diffusion.schedules import SCHEDULES, Linear, Schedule
from unnoise.diffusion.timesteps import (
    SAMPLING_TIMES,
    TRAINING_TIMES,
    GivenSteps,
    LogNormalTimes,
    LogSnrSteps,
    stratified_uniform,
)
from unnoise.utils.errors import UserError


@each_schedule
@pytest.mark.parametrize("name", TRAINING_TIMES)
def test_training_times_contract(name: str, schedule: Schedule) -> None:
    """In (0, 1], whatever the schedule; discrete ones reach every step, and need steps."""
    times = TRAINING_TIMES[name]()
    u = stratified_uniform(0.3, 10_000)
    if name == "discrete" and schedule.steps is None:
        with pytest.raises(UserError, match="linear"):
            times(u, schedule)
        return
    t = times(u, schedule)
    assert t.shape == (10_000,) and (t > 0).all() and (t <= 1).all()
    if name == "discrete":
        assert schedule.steps and len(torch.unique((t * schedule.steps).round())) == schedule.steps


def test_log_normal_times_have_their_distribution() -> None:
    """log sigma has the mean and the standard deviation asked for."""
    schedule = SCHEDULES["karras"]()
    logs = schedule.sigma(LogNormalTimes(-1.2, 1.2)(stratified_uniform(0.5, 20000), schedule)).log()
    assert float(logs.mean()) == pytest.approx(-1.2, abs=0.01)
    assert float(logs.std()) == pytest.approx(1.2, abs=0.01)


@each_schedule
@pytest.mark.parametrize("name", sorted(SAMPLING_TIMES.keys() - {"given"}))
def test_sampling_times_contract(name: str, schedule: Schedule) -> None:
    """Strictly falling from 1, or where image to image starts, to 0, in as many steps as were asked for."""
    times = SAMPLING_TIMES[name]()
    for n in [1, 2, 3, 7, 20, 50, 299, 300, schedule.steps or 1000]:
        t = times(schedule, n)
        assert t.shape == (n + 1,) and t[0] == 1 and t[-1] == 0
        assert (t.diff() < 0).all()
        assert torch.equal(times.below(1.0, schedule, n), t)
    for start in (0.003, 0.02, 0.37, 0.9991):
        t = times.below(start, schedule, 20)
        assert t[0] == start and t[-1] == 0 and (t.diff() < 0).all()
        assert len(t) == 21 if schedule.steps is None else 2 <= len(t) <= 21
    with pytest.raises(UserError):
        times(schedule, 0)


@each_schedule
def test_given_times(schedule: Schedule) -> None:
    """From 1 by way of the first so many levels, or those below where image to image starts, to 0."""
    times = GivenSteps((0.5, 0.1, 2.0))
    for n, ratios in ((1, []), (2, [0.5]), (3, [0.5, 0.1]), (4, [2.0, 0.5, 0.1])):
        t = times(schedule, n)
        assert t[0] == 1 and t[-1] == 0 and (t.diff() < 0).all()
        torch.testing.assert_close(schedule.ratio(t[1:-1]), torch.tensor(ratios, dtype=torch.float64), rtol=1e-4, atol=0)
    start = float(schedule.time_at(torch.tensor(0.3, dtype=torch.float64)))
    assert times.below(start, schedule, 4).tolist() == [start, float(times(schedule, 3)[2]), 0]
    assert times.part_way(0.5, schedule) == LogSnrSteps().part_way(0.5, schedule)
    with pytest.raises(UserError, match=r"for at most 4 steps, not 5: choose fewer, or sampling.times log-snr"):
        times(schedule, 5)
    for wrong in ((0.0,), (0.5, 0.5), (float("inf"),)):
        with pytest.raises(UserError, match="ratios above 0, each once"):
            GivenSteps(wrong)


@pytest.mark.parametrize("name", ["uniform", "trailing"])
def test_discrete_sampling_times_are_whole_steps(name: str) -> None:
    """On a schedule with steps each time is one of them, and none comes twice."""
    schedule = Linear(300)
    for n in range(1, 301):
        steps = SAMPLING_TIMES[name]()(schedule, n) * 300
        torch.testing.assert_close(steps, steps.round())
        assert len(torch.unique(steps)) == n + 1
    with pytest.raises(UserError, match="at most 300"):
        SAMPLING_TIMES[name]()(schedule, 301)
