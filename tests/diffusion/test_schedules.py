"""Schedules against running products, their papers' formulas, diffusers, and the contract that all of them keep."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.diffusion.oracles import each_schedule
from unnoise.diffusion.schedules import SCHEDULES, Cosine, Flow, Karras, Linear, Schedule, add_noise


class Bare(Schedule):
    """The alpha and sigma of another schedule, and nothing else: its `time_at` is the bisection of `Schedule`."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def alpha(self, t: Tensor) -> Tensor:
        return self.schedule.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.schedule.sigma(t)


@dataclass(frozen=True)
class Quadratic(Schedule):
    """A schedule of one's own, as in the documentation."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t**2

    def sigma(self, t: Tensor) -> Tensor:
        return t


OWN: dict[str, Schedule] = {
    "own": Quadratic(),
    "bare cosine": Bare(Cosine()),
    "bare karras": Bare(Karras()),
    "bare flow": Bare(Flow()),
}
ALL = {name: make() for name, make in SCHEDULES.items()} | OWN


def test_notebook_numbers() -> None:
    """T = 300: alpha_bar as a plain running product, at every step; and the figures that the notebook is known by."""
    schedule = Linear(timesteps=300)
    alpha_bar, products = 1.0, []
    for k in range(300):
        alpha_bar *= 1 - (1e-4 + (0.02 - 1e-4) * k / 299)
        products.append(alpha_bar)
    expected = torch.tensor(products, dtype=torch.float64)
    t = torch.arange(1, 301, dtype=torch.float64) / 300
    torch.testing.assert_close(schedule.alpha(t), expected.sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(schedule.sigma(t), (1 - expected).sqrt(), rtol=1e-10, atol=0)
    torch.testing.assert_close(schedule.alpha(t.float()), expected.sqrt().float(), rtol=1e-6, atol=0)
    assert float(schedule.alpha(t[0])) == pytest.approx((1 - 1e-4) ** 0.5, abs=1e-12)
    assert float(schedule.alpha(t[299])) == pytest.approx(0.2192, abs=5e-5)
    assert float(schedule.ratio(t[299])) ** -2 == pytest.approx(0.0505, abs=5e-5)


@pytest.mark.parametrize("schedule", ALL.values(), ids=list(ALL))
def test_schedule_contract(schedule: Schedule) -> None:
    """From the image at t = 0, through noise levels that rise strictly, whose inverse is `time_at`."""
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert float(schedule.alpha(t[0])) == pytest.approx(1)
    assert float(schedule.sigma(t[0])) == pytest.approx(0, abs=1e-9)
    ratio = schedule.ratio(t)
    assert (ratio.diff() > 0).all()
    inside = slice(1, 1000)
    torch.testing.assert_close(schedule.time_at(ratio)[inside], t[inside], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(schedule.log_snr(t)[inside], 2 * (schedule.alpha(t) / schedule.sigma(t)).log()[inside])
    assert schedule.alpha(t.float()).dtype == torch.float32
    assert float(schedule.time_at(torch.tensor(float("inf")))) == 1
    at = schedule.at(t[500])
    assert (at.t, at.alpha, at.sigma) == (t[500], schedule.alpha(t[500]), schedule.sigma(t[500]))
    assert at.ratio == ratio[500] and 2 * float(at.lam) == pytest.approx(float(schedule.log_snr(t[500])))


@each_schedule
def test_bisection_finds_the_closed_forms_times(schedule: Schedule) -> None:
    """To 1e-9, from alpha and sigma alone, in any shape; beyond the schedule's end it is 1."""
    t = (torch.arange(1000, dtype=torch.float64) + 0.37) / 1000  # between the steps of a schedule that has steps
    ratio = schedule.ratio(t).reshape(10, 100)
    found = Bare(schedule).time_at(ratio)
    torch.testing.assert_close(found, schedule.time_at(ratio), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.flatten(), t, rtol=0, atol=1e-9)
    end = schedule.ratio(torch.ones((), dtype=torch.float64))
    for beyond in (2 * end, torch.tensor(math.inf, dtype=torch.float64), torch.tensor(math.inf)):
        assert float(Bare(schedule).time_at(beyond)) == float(schedule.time_at(beyond)) == 1
    assert Bare(schedule).time_at(ratio.float()).dtype == torch.float32


def test_bisection_finds_whole_steps() -> None:
    """A schedule with steps keeps its level within 1e-4 of each: the time found is there, and its level the very one."""
    schedule = Linear(300)
    t = torch.arange(1, 301, dtype=torch.float64) / 300
    found = Bare(schedule).time_at(schedule.ratio(t))
    assert torch.equal(schedule.ratio(found), schedule.ratio(t))
    torch.testing.assert_close(found, t, rtol=0, atol=1.01e-4 / 300)


def test_add_noise_is_per_image() -> None:
    """Each image of a batch is noised at its own time, as if it were alone."""
    schedule = Linear(300)
    x, z, t = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.tensor([1 / 300, 0.5, 1.0])
    got = add_noise(schedule, x, t, z)
    for b in range(3):
        torch.testing.assert_close(got[b], schedule.alpha(t[b]) * x[b] + schedule.sigma(t[b]) * z[b])


def test_zero_terminal_snr_is_lins() -> None:
    """Lin et al. 2024, algorithm 1, as diffusers has it (which keeps 2^-24 where alpha_bar is 0)."""
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(300, 1e-4, 0.02, "linear", rescale_betas_zero_snr=True).alphas_cumprod
    schedule = Linear(300, zero_terminal_snr=True)
    t = torch.arange(1, 301, dtype=torch.float64) / 300
    ours = schedule.alpha(t).square()
    torch.testing.assert_close(ours[:-1].float(), theirs[:-1], rtol=2e-4, atol=1e-7)
    assert float(ours[-1]) == 0 and float(schedule.sigma(t[-1])) == 1
    assert float(schedule.alpha(t[0])) == pytest.approx(math.sqrt(1 - 1e-4), abs=1e-12)
