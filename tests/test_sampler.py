import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.oracle import GaussianDenoiser
from unnoise.denoiser import Denoiser
from unnoise.draws import PictureNoise
from unnoise.noise import (
    SCHEDULES,
    CosineSchedule,
    FlowSchedule,
    KarrasSchedule,
    KarrasSteps,
    LinearSchedule,
    Schedule,
    TrailingSteps,
)
from unnoise.sampler import DDIM, DDPM, SAMPLERS, ClampedEstimate, DPMSolver2M, Heun, Sampler, Sampling, sample, trajectory


class Given(PictureNoise):
    """Noise that a test hands out, the same for all."""

    def __init__(self, draws: list[Tensor]) -> None:
        self.draws = iter(draws)

    def normal_like(self, x: Tensor) -> Tensor:
        return next(self.draws)


def test_ddpm_step_is_the_notebooks() -> None:
    """The closed formula, in float64, at every kind of step."""
    torch.manual_seed(0)
    schedule = LinearSchedule(300)
    beta = torch.linspace(1e-4, 0.02, 300, dtype=torch.float64)
    bar = (1 - beta).cumprod(0)
    x, guess, z = (torch.randn(2, 3, 4, 4, dtype=torch.float64) for _ in range(3))
    denoiser = _Fixed(schedule, guess)
    for k in (299, 150, 1, 0):
        mean = (x - beta[k] * guess / (1 - bar[k]).sqrt()) / (1 - beta[k]).sqrt()
        before = bar[k - 1] if k else torch.ones((), dtype=torch.float64)
        expected = (mean + (beta[k] * (1 - before) / (1 - bar[k])).sqrt() * z * (k > 0)).clamp(-1, 1)
        t, s = (torch.tensor(v / 300, dtype=torch.float64) for v in (k + 1, k))
        got, _, _ = DDPM(clamp=True).step(denoiser, x, t, s, None, Given([z]))
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


class _Fixed(Denoiser):
    """Predicts one fixed noise."""

    def __init__(self, schedule: Schedule, guess: Tensor) -> None:
        super().__init__()
        self.schedule, self.guess = schedule, guess

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return (x_t - self.schedule.sigma(t) * self.guess) / self.schedule.alpha(t)


class _Ratio(Denoiser):
    """The model of diffusers' own scheduler tests: noise = x k / (k + 1) at step k."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        k = t * (self.schedule.steps or 0) - 1
        return (x_t - self.schedule.sigma(t) * x_t * k / (k + 1)) / self.schedule.alpha(t)


def _against_diffusers(theirs: Any, ours: Sampler, steps: int, count: int) -> None:
    schedule = LinearSchedule(steps)
    denoiser = _Ratio(schedule)
    theirs.set_timesteps(count)
    x = torch.arange(768, dtype=torch.float64).reshape(3, 8, 8, 4).permute(3, 0, 1, 2) / 768
    y, state = x.clone(), None
    times = TrailingSteps()(schedule, count)
    for k in range(count):
        step = theirs.timesteps[k]
        assert round(float(times[k]) * steps) - 1 == int(step)
        y = theirs.step(y * step / (step + 1), step, y).prev_sample
        x, _, state = ours.step(denoiser, x, times[k], times[k + 1], state, Given([]))
        torch.testing.assert_close(x, y, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("steps", "count"), [(1000, 10), (1000, 50), (300, 10), (300, 25), (300, 50)])
def test_ddim_is_diffusers(steps: int, count: int) -> None:
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(steps, 1e-4, 0.02, "linear", clip_sample=False, timestep_spacing="trailing")
    _against_diffusers(theirs, DDIM(), steps, count)


@pytest.mark.parametrize(("steps", "count"), [(1000, 10), (1000, 50), (300, 10), (300, 25), (300, 50)])
def test_dpm_solver_is_diffusers(steps: int, count: int) -> None:
    from diffusers import DPMSolverMultistepScheduler

    theirs = DPMSolverMultistepScheduler(
        steps, 1e-4, 0.02, "linear", timestep_spacing="trailing", final_sigmas_type="zero", lower_order_final=True
    )
    _against_diffusers(theirs, DPMSolver2M(), steps, count)


@pytest.mark.parametrize("count", [10, 25, 50])
def test_ddim_reference_sum(count: int) -> None:
    """The sums that diffusers' harness gives for T = 300 (leading times, clipped)."""
    expected = {10: 189.0186, 25: 196.3546, 50: 199.2085}[count]
    schedule = LinearSchedule(300)
    denoiser = _Ratio(schedule)
    x = torch.arange(768, dtype=torch.float64).reshape(3, 8, 8, 4).permute(3, 0, 1, 2) / 768
    index = [k * (300 // count) for k in range(count)][::-1]
    times = torch.tensor([(k + 1) / 300 for k in index], dtype=torch.float64)
    # Their last step goes to alpha_bar of "step -1", which is the picture.
    ends = torch.cat([times[1:], torch.zeros(1, dtype=torch.float64)])
    for t, s in zip(times, ends, strict=True):
        # Theirs keeps the network's own noise after clipping the estimate; write that out.
        z = (x - schedule.alpha(t) * denoiser(x, t)) / schedule.sigma(t)
        x = schedule.alpha(s) * ClampedEstimate(denoiser)(x, t) + schedule.sigma(s) * z
    assert float(x.abs().sum()) == pytest.approx(expected, abs=0.01)


def _end(sampler: Sampler, schedule: Schedule, count: int, stop: float = 0.05) -> tuple[Tensor, Tensor]:
    """Integrate from t = 0.9 to `stop`, in float64; the result and the exact answer."""
    denoiser = GaussianDenoiser(schedule)
    x = torch.linspace(-2, 2, 8, dtype=torch.float64).reshape(1, 1, 2, 4)
    times = torch.linspace(0.9, stop, count + 1, dtype=torch.float64)
    exact, state = denoiser.flow(x, times[0], times[-1]), None
    for t, s in itertools.pairwise(times):
        x, _, state = sampler.step(denoiser, x, t, s, state, Given([]))
    return x, exact


ORDERS = {"ddim": (DDIM(), 1), "heun": (Heun(), 2), "dpm++2m": (DPMSolver2M(), 2)}


@pytest.mark.parametrize("schedule", [CosineSchedule(), FlowSchedule(), KarrasSchedule(10.0)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(name: str, schedule: Schedule) -> None:
    sampler, order = ORDERS[name]
    errors = []
    for count in (200, 400, 800):
        got, exact = _end(sampler, schedule, count)
        errors.append(float((got - exact).abs().max()))
    slope = math.log2(errors[1] / errors[2])
    assert order - 0.15 < slope < order + 0.35, (slope, errors)


@pytest.mark.parametrize("schedule", [make() for make in SCHEDULES.values()], ids=list(SCHEDULES))
@pytest.mark.parametrize("name", [*SAMPLERS, "ddim-eta-1"])
def test_distribution(name: str, schedule: Schedule) -> None:
    """With the exact denoiser every sampler must draw the prior: mean, variance, and independent pixels."""
    sampler = DDIM(eta=1.0) if name == "ddim-eta-1" else SAMPLERS[name]()
    times = TrailingSteps() if schedule.steps else KarrasSteps(sigma_min=0.01)
    sampling = Sampling(sampler, times, 200, clamp_estimate=False)
    denoiser = GaussianDenoiser(schedule)
    pixels = _unclamped(denoiser, sampling).flatten(1).double()
    assert float(pixels.mean()) == pytest.approx(0.3, abs=0.02)
    covariance = torch.cov(pixels.T)
    torch.testing.assert_close(covariance, 0.25 * torch.eye(4, dtype=torch.float64), rtol=0.1, atol=0.02)


def _unclamped(denoiser: Denoiser, sampling: Sampling) -> Tensor:
    noise = PictureNoise(1, range(4000))
    x = noise.normal_like(torch.empty(4000, 1, 2, 2)) * float(denoiser.schedule.sigma(torch.ones(())))
    for record in trajectory(denoiser, x, sampling, noise):
        x = record.x
    return x


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_picture_depends_on_its_number_alone(name: str) -> None:
    denoiser = GaussianDenoiser(LinearSchedule(50))
    sampling = Sampling(SAMPLERS[name](), TrailingSteps(), 10)
    together = sample(denoiser, (1, 4, 4), range(20), sampling, seed=3)
    alone = sample(denoiser, (1, 4, 4), [17], sampling, seed=3)
    torch.testing.assert_close(together[17:18], alone, rtol=0, atol=1e-6)
    assert not torch.equal(together[17:18], sample(denoiser, (1, 4, 4), [17], sampling, seed=4))
