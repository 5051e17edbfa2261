"""Samplers as tables of sums: against the samplers themselves, and against formulas."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.samplers import DDIM, DDPM, SAMPLERS, BoundDenoiser, DPMpp2M, Euler, Heun, Sampler, State, Step
from unnoise.diffusion.sampling import SamplingConfig, trajectory
from unnoise.diffusion.schedules import Cosine, Flow, Karras, Linear, Schedule, Time
from unnoise.diffusion.timesteps import LogSnrSteps
from unnoise.export.table import follow, sampler_table
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

SCHEDULES = (Linear(50), Linear(50, zero_terminal_snr=True), Cosine(), Karras(), Flow())
ALL = [*(kind() for kind in SAMPLERS.values()), DDPM(clamp=True, variance="forward"), DDIM(0.5), Euler(0.3), Heun(0.3)]


class Wavy(Denoiser):
    """A denoiser that no sum could stand for."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def at(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        return torch.sin(3 * x_t / (alpha + sigma)) + 0.1 * x_t.flip(-1)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        return self.at(x_t, float(self.schedule.alpha(t)), float(self.schedule.sigma(t)))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("sampler", ALL, ids=repr)
@pytest.mark.parametrize("start", [1.0, 0.4])
def test_a_table_is_its_sampler(schedule: Schedule, sampler: Sampler, start: float) -> None:
    """The same image, from the same noise and fresh noise."""
    sampling, denoiser = SamplingConfig(sampler, steps=7, clamp_estimate=False), Wavy(schedule)
    x = BatchRng(0, [0, 1]).normal_like(torch.zeros(2, 1, 2, 3, dtype=torch.float64))
    *_, record = trajectory(denoiser, x, sampling, BatchRng(1, [0, 1]), None, start)
    found = follow(sampler_table(schedule, sampling, start), x, denoiser.at, BatchRng(1, [0, 1]))
    torch.testing.assert_close(found, record.x, rtol=1e-10, atol=1e-10)
    assert record.x.std() > 1e-3


def test_the_sums_of_ddim() -> None:
    """x_s = sigma_s / sigma_t x_t + (alpha_s - alpha_t sigma_s / sigma_t) x_hat, Song et al. 2021, equation 12."""
    schedule = Cosine()
    lines = sampler_table(schedule, SamplingConfig(DDIM(), LogSnrSteps(), steps=3))["lines"]
    assert [next(iter(line)) for line in lines] == ["call", "step"] * 3
    assert lines[0]["sum"] == {"x0": 1} and lines[2]["sum"] == {"x1": 1}
    t, s = (schedule.at(time) for time in LogSnrSteps()(schedule, 3)[:2])
    assert (lines[0]["alpha"], lines[0]["sigma"]) == (float(t.alpha), float(t.sigma))
    expected = {"x0": float(s.sigma / t.sigma), "e0": float(s.alpha - t.alpha * s.sigma / t.sigma)}
    assert lines[1]["sum"] == pytest.approx(expected)
    assert lines[5]["sum"] == pytest.approx({"e2": 1})


@dataclass(frozen=True)
class Squared(Sampler):
    """No sum of x and the estimate."""

    def step(self, denoise: BoundDenoiser, x_t: Tensor, t: Time, s: Time, state: State, rng: BatchRng) -> Step:
        x_hat = denoise(x_t, t)
        return s.mix(x_hat.square(), x_t), x_hat, None


@dataclass(frozen=True)
class Eager(DPMpp2M):
    """Nine calls where one would do."""

    def step(self, denoise: BoundDenoiser, x_t: Tensor, t: Time, s: Time, state: State, rng: BatchRng) -> Step:
        x_hat = torch.stack([denoise(x_t, t) for _ in range(9)]).mean(0)
        return s.mix(x_hat, x_t), x_hat, None


@pytest.mark.parametrize(("sampler", "words"), [(Squared(), "Squared can't be written as a table"), (Eager(), "too often")])
def test_samplers_that_are_no_tables(sampler: Sampler, words: str) -> None:
    with pytest.raises(UserError, match=words):
        sampler_table(Karras(), SamplingConfig(sampler, steps=4))
