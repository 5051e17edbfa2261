import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from tests.diffusion.oracles import GaussianDenoiser, MixtureDenoiser
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.samplers import DDIM, DDPM, SAMPLERS, Euler, EulerAncestral, Heun, Sampler
from unnoise.diffusion.sampling import ClampedDenoiser, SamplingConfig, sample, trajectory
from unnoise.diffusion.schedules import SCHEDULES, Cosine, Flow, Karras, Linear, Schedule
from unnoise.diffusion.timesteps import KarrasSteps, TrailingSteps
from unnoise.utils.rng import BatchRng


class Given(BatchRng):
    """Noise that a test hands out, the same for all."""

    def __init__(self, draws: list[Tensor]) -> None:
        self.draws = iter(draws)

    def normal_like(self, x: Tensor) -> Tensor:
        return next(self.draws)


def test_ddpm_step_is_the_notebooks() -> None:
    """The closed formula, in float64, at every kind of step."""
    torch.manual_seed(0)
    schedule = Linear(300)
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

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        return (x_t - self.schedule.sigma(t) * self.guess) / self.schedule.alpha(t)


def _end(denoiser: Denoiser, sampler: Sampler, count: int, stop: float = 0.05) -> Tensor:
    """Integrate from t = 0.9 to `stop`, in float64."""
    x, state = START, None
    for t, s in itertools.pairwise(torch.linspace(0.9, stop, count + 1, dtype=torch.float64)):
        x, _, state = sampler.step(denoiser, x, t, s, state, Given([]))
    return x


def _exact_mixture(denoiser: MixtureDenoiser, stop: float = 0.05) -> Tensor:
    """The probability flow in y = x / alpha and r = sigma / alpha, by a method of eighth order."""
    first, last = (torch.tensor(t, dtype=torch.float64) for t in (0.9, stop))
    schedule = denoiser.schedule

    def slope(r: float, y: np.ndarray) -> np.ndarray:
        t = schedule.time_at(torch.tensor(r, dtype=torch.float64))
        x = torch.from_numpy(y).reshape(START.shape)
        found: np.ndarray = ((x - denoiser(schedule.alpha(t) * x, t)) / r).numpy().ravel()
        return found

    y = (START / schedule.alpha(first)).numpy().ravel()
    ends = float(schedule.ratio(first)), float(schedule.ratio(last))
    end = solve_ivp(slope, ends, y, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    return torch.from_numpy(end).reshape(START.shape) * schedule.alpha(last)


START = torch.linspace(-2, 2, 8, dtype=torch.float64).reshape(1, 1, 2, 4)
ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "dpm++2s": 2, "dpm++2m": 2, "unipc": 2}
STOCHASTIC = ["ddpm", "euler-ancestral", "dpm++2m-sde"]
CONTINUOUS = [Cosine(), Flow(), Karras(10.0)]


def test_every_sampler_is_held_against_truth() -> None:
    assert {*ORDERS, *STOCHASTIC} == set(SAMPLERS)


@pytest.mark.parametrize("oracle", [GaussianDenoiser, MixtureDenoiser], ids=lambda o: o.__name__)
@pytest.mark.parametrize("schedule", CONTINUOUS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(name: str, schedule: Schedule, oracle: type[GaussianDenoiser] | type[MixtureDenoiser]) -> None:
    denoiser = oracle(schedule)
    if isinstance(denoiser, GaussianDenoiser):
        first, last = (torch.tensor(t, dtype=torch.float64) for t in (0.9, 0.05))
        exact = denoiser.flow(START, first, last)
    else:
        exact = _exact_mixture(denoiser)
    errors = [float((_end(denoiser, SAMPLERS[name](), count) - exact).abs().max()) for count in (200, 400, 800)]
    slope, order = math.log2(errors[1] / errors[2]), ORDERS[name]
    # The corrector makes UniPC's error constant small, and often its order 3 (Zhao et al. 2023, theorem 3.1).
    assert order - 0.15 < slope < order + (1.5 if name == "unipc" else 0.4), (slope, errors)


@pytest.mark.parametrize("name", [*STOCHASTIC, "ddpm-forward", "heun-churn", "dpm++2m", "unipc"])
def test_modes_have_their_weights(name: str) -> None:
    """Drawn by each stochastic method, a mixture's modes have their weight, place and spread."""
    made = {"ddpm-forward": DDPM(variance="forward"), "heun-churn": Heun(churn=0.1)}
    sampling = SamplingConfig(made.get(name) or SAMPLERS[name](), KarrasSteps(sigma_min=0.01), 200, clamp_estimate=False)
    pixels = _unclamped(MixtureDenoiser(Karras(20.0)), sampling).flatten().double()
    low, high = pixels[pixels < 0], pixels[pixels > 0]
    assert len(low) / len(pixels) == pytest.approx(0.3, abs=0.015)
    assert [float(low.mean()), float(high.mean())] == pytest.approx([-0.6, 0.6], abs=0.015)
    assert [float(low.std()), float(high.std())] == pytest.approx([0.2, 0.2], abs=0.02)


@pytest.mark.parametrize("schedule", [make() for make in SCHEDULES.values()], ids=list(SCHEDULES))
@pytest.mark.parametrize("name", [*SAMPLERS, "ddim-eta-1", "ddpm-forward", "euler-churn"])
def test_distribution(name: str, schedule: Schedule) -> None:
    """With the exact denoiser every sampler must draw the prior: mean, variance, and independent pixels."""
    made = {"ddim-eta-1": DDIM(eta=1.0), "ddpm-forward": DDPM(variance="forward"), "euler-churn": Euler(churn=0.1)}
    sampler = made.get(name) or SAMPLERS[name]()
    times = TrailingSteps() if schedule.steps else KarrasSteps(sigma_min=0.01)
    sampling = SamplingConfig(sampler, times, 200, clamp_estimate=False)
    denoiser = GaussianDenoiser(schedule)
    pixels = _unclamped(denoiser, sampling).flatten(1).double()
    assert float(pixels.mean()) == pytest.approx(0.3, abs=0.02)
    covariance = torch.cov(pixels.T)
    torch.testing.assert_close(covariance, 0.25 * torch.eye(4, dtype=torch.float64), rtol=0.1, atol=0.02)


def _unclamped(denoiser: Denoiser, sampling: SamplingConfig) -> Tensor:
    noise = BatchRng(1, range(4000))
    x = noise.normal_like(torch.empty(4000, 1, 2, 2)) * float(denoiser.schedule.sigma(torch.ones(())))
    for record in trajectory(denoiser, x, sampling, noise):
        x = record.x
    return x


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_image_depends_on_its_number_alone(name: str) -> None:
    denoiser = GaussianDenoiser(Linear(50))
    sampling = SamplingConfig(SAMPLERS[name](), TrailingSteps(), 10)
    together = sample(denoiser, (1, 4, 4), range(20), sampling, seed=3)
    alone = sample(denoiser, (1, 4, 4), [17], sampling, seed=3)
    torch.testing.assert_close(together[17:18], alone, rtol=0, atol=1e-6)
    assert not torch.equal(together[17:18], sample(denoiser, (1, 4, 4), [17], sampling, seed=4))


def test_names_for_one_step() -> None:
    """Euler is DDIM's step, Euler ancestral DDIM's at eta = 1, DDPM's that too: on any schedule."""
    torch.manual_seed(0)
    x, z = torch.randn(2, 1, 2, 4, dtype=torch.float64), torch.randn(2, 1, 2, 4, dtype=torch.float64)
    t, s = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    for schedule in CONTINUOUS:
        denoiser = MixtureDenoiser(schedule)
        for one, other in ((Euler(), DDIM()), (EulerAncestral(), DDIM(eta=1.0)), (DDPM(), DDIM(eta=1.0))):
            found = [m.step(denoiser, x, t, s, None, Given([z]))[0] for m in (one, other)]
            torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


def test_dynamic_thresholding() -> None:
    """An estimate within [-1, 1] stays; one beyond is shrunk to it, not flattened."""
    x = torch.linspace(-0.9, 0.9, 16).reshape(1, 1, 4, 4)
    for scale, quantile in ((1.0, 0.9), (3.0, 1.0)):
        got = ClampedDenoiser(_Says(scale * x), quantile)(x, torch.ones(()))
        torch.testing.assert_close(got, x if scale == 1 else x / 0.9)
    assert float(ClampedDenoiser(_Says(3 * x), 0.5)(x, torch.ones(())).abs().max()) == 1


class _Says(Denoiser):
    """Always the same estimate."""

    def __init__(self, x_hat: Tensor) -> None:
        super().__init__()
        self.schedule, self.x_hat = Flow(), x_hat

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        return self.x_hat
