"""Posteriors against closed forms: a Gaussian prior whose pixels are correlated, and a mixture."""

import math

import pytest
import torch

from tests.diffusion.oracles import MixturePixels, OneStream, each_schedule
from tests.restoration.priors import OPERATORS, make_prior, matrix_of
from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.diffusion.samplers import DDPM, DPMpp2M
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Cosine, Karras, Linear, Schedule
from unnoise.diffusion.timesteps import KarrasSteps
from unnoise.restoration.operators import Identity, Mask
from unnoise.restoration.posteriors import (
    DDNM,
    DPS,
    MMPS,
    POSTERIORS,
    DiffPIR,
    Isotropic,
    Measurement,
    Posterior,
    Spectral,
    conjugate_gradients,
    denoise,
    denoise_by_sampling,
    matching_time,
)
from unnoise.restoration.restore import follow, restore
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

KARRAS = Karras(20.0)


@each_schedule
@pytest.mark.parametrize("sigma", [0.05, 0.3371, 2.0])
def test_one_step_is_the_posterior_mean_at_any_level(schedule: Schedule, sigma: float) -> None:
    """With images N(0.1, s^2) the answer is known: also between the steps of a discrete schedule."""
    denoiser = GaussianDenoiser(schedule, Moments(torch.full((1, 2, 2), 0.1), torch.zeros(0, 1, 2, 2), torch.tensor(0.5)))
    y = torch.randn(3, 1, 2, 2)
    expected = 0.1 + 0.25 / (0.25 + sigma**2) * (y - 0.1)
    torch.testing.assert_close(denoise(denoiser, y, sigma), expected, rtol=1e-4, atol=1e-5)


def test_sampling_from_its_own_time_samples_the_posterior() -> None:
    """Mean and standard deviation of p(x | y), from one y sampled 4,000 times."""
    sigma, y = 0.8, 0.7
    denoiser = GaussianDenoiser(Linear(300), Moments(torch.zeros(1, 1, 1), torch.zeros(0, 1, 1, 1), torch.tensor(0.5)))
    many = torch.full((4000, 1, 1, 1), y)
    sampling = SamplingConfig(DDPM(), steps=300, clamp_estimate=False)
    x = follow(denoise_by_sampling(denoiser, many, sigma, sampling, OneStream()))[0].double()
    gain = 0.25 / (0.25 + sigma**2)
    assert float(x.mean()) == pytest.approx(gain * y, abs=0.02)
    assert float(x.std()) == pytest.approx(sigma * gain**0.5, rel=0.05)


@each_schedule
def test_very_little_noise_is_no_trouble(schedule: Schedule) -> None:
    """Estimates and samples are y itself, to within the noise."""
    denoiser = GaussianDenoiser(schedule, Moments(torch.zeros(1, 2, 2), torch.zeros(0, 1, 2, 2), torch.tensor(0.5)))
    y = torch.randn(2, 1, 2, 2).clamp(-1, 1)
    for sigma in (1e-6, 1e-3):
        torch.testing.assert_close(denoise(denoiser, y, sigma), y, rtol=0, atol=3 * sigma + 1e-5)
        x, _ = follow(denoise_by_sampling(denoiser, y, sigma, SamplingConfig(steps=5), BatchRng(0, range(2))))
        torch.testing.assert_close(x, y, rtol=0, atol=5 * sigma + 1e-5)


def test_the_matching_time_lies_between_steps_and_is_refused_beyond_them() -> None:
    """The level there is the noise's; a level that the schedule never has is refused, with the highest that it has."""
    schedule = Linear(300)
    t = matching_time(schedule, 0.5)
    assert float(schedule.ratio(t)) == pytest.approx(0.5, rel=1e-9)
    assert abs(float(t) * 300 - round(float(t) * 300)) > 1e-3
    with pytest.raises(UserError, match=r"up to 4\.451"):
        matching_time(schedule, 5.0)
    with pytest.raises(UserError, match="above 0"):
        matching_time(schedule, 0.0)


def compare_with_truth(name: str, method: Posterior, schedule: Schedule, sigma: float = 0.1) -> tuple[float, float]:
    """The bias of the samples' mean in posterior standard deviations (root mean square), and the ratio of variances."""
    moments, mean, covariance = make_prior()
    count = 2000
    operator, a = OPERATORS[name], matrix_of(OPERATORS[name])
    y = a @ (mean + 0.2) + sigma * torch.randn(len(a), generator=torch.Generator().manual_seed(5)).double()
    y = torch.where(a.abs().sum(1) > 0, y, 0)  # of a missing pixel nothing is measured
    gain = covariance @ a.T @ torch.linalg.inv(a @ covariance @ a.T + sigma**2 * torch.eye(len(a)).double())
    true_mean, true_variance = mean + gain @ (y - a @ mean), (covariance - gain @ a @ covariance).diagonal()
    shape = operator(torch.zeros(1, 1, 4, 4)).shape[1:]
    measurement = Measurement(y.float().reshape(1, *shape).expand(count, *shape), operator, torch.tensor(sigma**2), (1, 4, 4))
    sampling = SamplingConfig(DPMpp2M(), KarrasSteps(), 60, clamp_estimate=False)
    found = restore(GaussianDenoiser(schedule, moments), measurement, method, sampling, samples=1)
    x = found.samples[0].flatten(1).double()
    bias = float(((x.mean(0) - true_mean) / true_variance.sqrt()).square().mean().sqrt())
    return bias, float((x.var(0) / true_variance).mean())


@pytest.mark.parametrize("schedule", [KARRAS, Cosine(), Linear(1000)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", OPERATORS)
def test_mmps_samples_the_posterior(name: str, schedule: Schedule) -> None:
    """Mean and variance of p(x | y) in closed form, for enough iterations to solve for it."""
    bias, ratio = compare_with_truth(name, MMPS(iterations=8), schedule)
    assert bias < 0.1 and 0.85 < ratio < 1.15, (bias, ratio)


@pytest.mark.parametrize("name", ["mask", "down"])
def test_two_iterations_are_near(name: str) -> None:
    """As many as a network's Jacobian is asked for by default."""
    bias, ratio = compare_with_truth(name, MMPS(iterations=2), KARRAS)
    assert bias < 0.25 and 0.9 < ratio < 1.1, (bias, ratio)


@pytest.mark.parametrize("method", sorted(set(POSTERIORS) - {"mmps"}))
def test_others_come_near_the_mean(method: str) -> None:
    """They are approximations: near the mean, their variance whatever it is (docs/restoring.md gives the figures)."""
    bias, _ = compare_with_truth("mask", POSTERIORS[method](), KARRAS)
    assert bias < 0.8, bias


def test_mixture_weights() -> None:
    """One pixel of each image is measured with noise: the modes have the weights that Bayes' rule gives them."""
    denoiser, sigma, y = MixturePixels(KARRAS), 0.8, 0.1
    variance = denoiser.std**2 + sigma**2
    low = denoiser.weight * math.exp(-((y + denoiser.centre) ** 2) / 2 / variance)
    high = (1 - denoiser.weight) * math.exp(-((y - denoiser.centre) ** 2) / 2 / variance)
    operator = Mask(torch.tensor([[1.0, 0.0]]))
    measurement = Measurement(operator(torch.full((4000, 1, 1, 2), y)), operator, torch.tensor(sigma**2), (1, 1, 2))
    sampling = SamplingConfig(DPMpp2M(), KarrasSteps(), 80, clamp_estimate=False)
    x = restore(denoiser, measurement, MMPS(iterations=2), sampling, samples=1).samples[0]
    found = (x[..., 0] < 0).float().mean(), (x[..., 1] < 0).float().mean()
    assert float(found[0]) == pytest.approx(low / (low + high), abs=0.05)  # MMPS takes p(x | x_t) for a Gaussian
    assert float(found[1]) == pytest.approx(0.3, abs=0.03)


def test_measuring_all_is_denoising_at_the_combined_level() -> None:
    """With A = I, E[x | x_t, y] is the one-step estimate at the level that both together have, for a Gaussian."""
    moments, _, _ = make_prior()
    denoiser = GaussianDenoiser(KARRAS, moments)
    x_t, y = torch.randn(5, 1, 4, 4), torch.randn(5, 1, 4, 4)
    sigma_t, sigma_y = 0.7, 0.4
    t = denoiser.schedule.time_at(torch.tensor(sigma_t, dtype=torch.float64))
    measurement = Measurement(y, Identity(), torch.tensor(sigma_y**2), (1, 4, 4))
    got = MMPS(iterations=8).wrap(denoiser, measurement)(x_t, t)
    precision = sigma_t**-2 + sigma_y**-2
    both = (x_t / sigma_t**2 + y / sigma_y**2) / precision
    torch.testing.assert_close(got, denoise(denoiser, both, precision**-0.5), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["mask", "down"])
@pytest.mark.parametrize("method", ["ddnm", "diffpir", "mmps"])
def test_without_noise_samples_agree_with_the_measurement(method: str, name: str) -> None:
    """A(x) is y to 0.02, for methods that are made for it."""
    moments, _, _ = make_prior()
    denoiser, operator = GaussianDenoiser(KARRAS, moments), OPERATORS[name]
    y = operator(moments.sample(BatchRng(0, range(6)), torch.empty(6, 1, 4, 4)).clamp(-0.9, 0.9))
    sampling = SamplingConfig(times=KarrasSteps(), steps=40, clamp_estimate=False)
    posterior = MMPS(iterations=8) if method == "mmps" else POSTERIORS[method]()
    measurement = Measurement(y, operator, torch.tensor(1e-6), (1, 4, 4))
    x = restore(denoiser, measurement, posterior, sampling, samples=1).samples[0]
    assert float((operator(x) - y).abs().max()) < 0.02


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("method", [Isotropic(0.4), DiffPIR(), DDNM()], ids=lambda m: type(m).__name__)
def test_isotropic_methods_solve_their_equation(method: Isotropic, name: str) -> None:
    """x_hat + v A^T (Sigma + v A A^T)^-1 (y - A x_hat) with the whole matrix A, for the v that each paper has."""
    moments, _, _ = make_prior()
    denoiser, operator, a = GaussianDenoiser(KARRAS, moments).double(), OPERATORS[name], matrix_of(OPERATORS[name])
    x_t, sigma = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double(), 0.7
    y = operator(torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(2)).double())
    t = KARRAS.time_at(torch.tensor(sigma, dtype=torch.float64))
    got = method.wrap(denoiser, Measurement(y, operator, torch.tensor(0.01).double(), (1, 4, 4)))(x_t, t)
    v = {Isotropic: 0.16 * sigma**2 / (0.16 + sigma**2), DiffPIR: sigma**2 / 7, DDNM: 1e4}[type(method)]
    x_hat = denoiser(x_t, t).flatten(1)
    u = torch.linalg.solve(0.01 * torch.eye(len(a)) + v * a @ a.T, (y.flatten(1) - x_hat @ a.T).T)
    torch.testing.assert_close(got.flatten(1), x_hat + v * (a.T @ u).T, rtol=1e-5, atol=1e-6)


def test_dps_takes_the_gradient_that_it_says() -> None:
    """For a Gaussian the Jacobian J of x_hat is known: x_hat + sigma^2 / alpha J A^T (y - A x_hat) / (variance + v)."""
    moments, _, covariance = make_prior()
    denoiser, operator, a = GaussianDenoiser(KARRAS, moments).double(), OPERATORS["down"], matrix_of(OPERATORS["down"])
    x_t, y = (torch.randn(2, 1, n, n, generator=torch.Generator().manual_seed(n)).double() for n in (4, 2))
    sigma = 0.7
    t = KARRAS.time_at(torch.tensor(sigma, dtype=torch.float64))
    got = DPS(scale=0.8, std=0.5).wrap(denoiser, Measurement(y, operator, torch.tensor(0.01).double(), (1, 4, 4)))(x_t, t)
    jacobian = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(16))
    x_hat, v = denoiser(x_t, t).flatten(1), 0.25 * sigma**2 / (0.25 + sigma**2)
    expected = x_hat + 0.8 * sigma**2 * (y.flatten(1) - x_hat @ a.T) @ a @ jacobian / (0.01 + v)
    torch.testing.assert_close(got.flatten(1), expected, rtol=1e-5, atol=1e-6)


def test_conjugate_gradients_solve() -> None:
    """Against a direct solver."""
    torch.manual_seed(0)
    root = torch.randn(3, 6, 6, dtype=torch.float64)
    matrix = root @ root.mT + torch.eye(6)
    b = torch.randn(3, 6, dtype=torch.float64)
    u = conjugate_gradients(lambda v: (matrix @ v[..., None])[..., 0], b, 12)
    torch.testing.assert_close(u, torch.linalg.solve(matrix, b), rtol=1e-6, atol=1e-8)


def test_noise_of_very_different_strength_is_weighed() -> None:
    """Values a thousand times less noisy than others do not hide those from a few conjugate gradients."""
    moments, mean, covariance = make_prior()
    denoiser = GaussianDenoiser(KARRAS, moments)
    variance = torch.logspace(-4, -1, 16).reshape(1, 1, 4, 4)
    sigma_t, y = 0.1, mean.float().reshape(1, 1, 4, 4) + 0.3
    x_t = y + 0.05
    t = denoiser.schedule.time_at(torch.tensor(sigma_t, dtype=torch.float64))
    measurement = Measurement(y, Identity(), variance, (1, 4, 4))
    got = MMPS(iterations=3).wrap(denoiser, measurement)(x_t, t).flatten().double()
    precision = torch.linalg.inv(covariance) + sigma_t**-2 * torch.eye(16) + variance.flatten().double().reciprocal().diag()
    after = torch.linalg.inv(precision)  # the posterior's covariance
    evidence = x_t.flatten().double() / sigma_t**2 + y.flatten().double() / variance.flatten()
    truth = after @ (torch.linalg.solve(covariance, mean) + evidence)
    assert float(((got - truth) / after.diagonal().sqrt()).square().mean().sqrt()) < 0.3


def test_spectral_is_exact_for_its_own_images() -> None:
    """For the Gaussian images that it assumes, the estimate is that of linear algebra, and its prior has their variance."""
    method, size = Spectral(std=0.4), (3, 5, 6)
    n, like = 3 * 5 * 6, torch.zeros(1, *size).double()
    one, huge = torch.ones((), dtype=torch.float64), torch.tensor(1e6, dtype=torch.float64)
    prior = method.covariance(one, huge, like)(torch.eye(n).double().reshape(n, *size)).flatten(1)
    assert float(prior.diagonal().mean()) == pytest.approx(0.4**2, rel=1e-3)
    torch.testing.assert_close(prior, prior.T)
    values, directions = torch.linalg.eigh(prior)
    moments = Moments(torch.zeros(size).double(), (directions * values.clamp(min=0).sqrt()).T.reshape(n, *size), torch.zeros(()))
    denoiser, operator = GaussianDenoiser(KARRAS, moments), Mask.random(size[1:], 0.4)
    x_t, y, sigma = torch.randn(1, *size).double(), operator(torch.randn(1, *size).double()), 0.7
    t = KARRAS.time_at(torch.tensor(sigma, dtype=torch.float64))
    got = method.wrap(denoiser, Measurement(y, operator, torch.tensor(0.01), size))(x_t, t)
    a = operator.mask.expand(size).flatten().double().diag()
    precision = torch.linalg.inv(prior) + torch.eye(n) / sigma**2 + a / 0.01
    truth = torch.linalg.solve(precision, x_t.flatten() / sigma**2 + y.flatten() / 0.01)
    torch.testing.assert_close(got.flatten(), truth, rtol=2e-3, atol=2e-3)
