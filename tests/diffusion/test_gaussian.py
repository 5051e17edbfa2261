import math

import pytest
import torch

from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.diffusion.samplers import DDIM, DDPM, Sampler
from unnoise.diffusion.sampling import SamplingConfig, sample, starting_point, trajectory
from unnoise.diffusion.schedules import Flow, Karras, Linear, Schedule, add_noise
from unnoise.diffusion.timesteps import UniformSteps
from unnoise.recipe import Recipe, override
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng


def test_moments_of_known_images() -> None:
    """Two directions of known spread over a known rest."""
    torch.manual_seed(0)
    directions = torch.linalg.qr(torch.randn(48, 2))[0].T  # (2, 48), orthonormal
    z = torch.randn(4000, 2)
    z = (z - z.mean(0)) / z.std(0)
    x = 0.25 + (z * torch.tensor([5.0, 2.0])) @ directions + 0.1 * torch.randn(4000, 48)
    moments = Moments.measure(x.reshape(-1, 3, 4, 4), components=2)
    torch.testing.assert_close(moments.mean.flatten(), x.mean(0))
    got = moments.basis.flatten(1)
    torch.testing.assert_close(got.norm(dim=1), torch.tensor([5.0, 2.0]), rtol=0.03, atol=0)
    assert (torch.nn.functional.normalize(got) * directions).sum(1).abs().min() > 0.99
    assert float(moments.residual_std) == pytest.approx(0.1, rel=0.02)
    again = Moments.measure(x.reshape(-1, 3, 4, 4), components=2)
    assert torch.equal(again.basis, moments.basis)  # measured twice, the same bits
    with pytest.raises(UserError, match="at least 2"):
        Moments.measure(x[:1].reshape(1, 3, 4, 4))


def test_drawn_images_have_the_moments() -> None:
    moments = Moments(torch.full((1, 2, 2), 0.5), torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]]), torch.tensor(0.2))
    drawn = moments.sample(BatchRng(0, range(20_000)), torch.empty(20_000, 1, 2, 2)).flatten(1).double()
    b = moments.basis.flatten(1).double()
    torch.testing.assert_close(torch.cov(drawn.T), b.T @ b + 0.04 * torch.eye(4, dtype=torch.float64), rtol=0.05, atol=0.02)
    torch.testing.assert_close(drawn.mean(0), torch.full((4,), 0.5, dtype=torch.float64), rtol=0, atol=0.03)


@pytest.mark.parametrize("schedule", [Linear(300), Flow(), Karras(10.0)], ids=lambda s: type(s).__name__)
def test_gaussian_denoiser_is_the_posterior_mean(schedule: Schedule) -> None:
    """Against x_hat = mean + alpha S (alpha^2 S + sigma^2 I)^-1 (x_t - alpha mean) with the whole matrix S, in float64."""
    torch.manual_seed(0)
    mean, rest = torch.randn(2, 2, 2, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    q = torch.linalg.qr(torch.randn(8, 3, dtype=torch.float64))[0].T * torch.tensor([[2.0], [1.0], [0.5]], dtype=torch.float64)
    moments = Moments(mean, q.reshape(3, 2, 2, 2), rest)
    covariance = q.T @ q + rest**2 * torch.eye(8, dtype=torch.float64)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    x_t = add_noise(schedule, torch.randn(3, 2, 2, 2, dtype=torch.float64), t, torch.randn(3, 2, 2, 2, dtype=torch.float64))
    got = GaussianDenoiser(schedule, moments)(x_t, t)
    for b in range(3):
        alpha, sigma = schedule.alpha(t[b]), schedule.sigma(t[b])
        matrix = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(8, dtype=torch.float64))
        expected = mean.flatten() + matrix @ (x_t[b] - alpha * mean).flatten()
        torch.testing.assert_close(got[b].flatten(), expected, rtol=1e-10, atol=1e-10)


# The mean brightness of 64x64 colour images has spread .202; along the unit vector that is .202 sqrt(12288).
BRIGHTNESS = Moments(torch.zeros(1, 1, 1), torch.full((1, 1, 1, 1), 0.202 * math.sqrt(12288)), torch.tensor(0.0))


def _spread_kept(schedule: Schedule, sampler: Sampler, start: str) -> float:
    """The share of the brightness's spread that the exact denoiser's samples have."""
    sampling = SamplingConfig(sampler, UniformSteps(), 300, clamp_estimate=False, start=start)
    denoiser, noise = GaussianDenoiser(schedule, BRIGHTNESS), BatchRng(0, range(4000))
    x = starting_point(denoiser, noise, torch.empty(4000, 1, 1, 1), start, BRIGHTNESS)
    for record in trajectory(denoiser, x, sampling, noise):
        x = record.x
    return float(x.std() / BRIGHTNESS.basis.norm())


@pytest.mark.parametrize(("sampler", "least", "most"), [(DDIM(), 0.18, 0.22), (DDPM(), 0.25, 0.31)], ids=["ddim", "ddpm"])
def test_the_terminal_snr_fault(sampler: Sampler, least: float, most: float) -> None:
    """Training ends at alpha = .2192, sampling starts from N(0, I): 70 to 80 % of the spread is lost; closed form 1/5."""
    schedule = Linear(300)
    kept = _spread_kept(schedule, sampler, "noise")
    assert least < kept < most
    if sampler == DDIM():
        one = torch.ones((), dtype=torch.float64)
        total = torch.hypot(schedule.alpha(one) * BRIGHTNESS.basis.norm(), schedule.sigma(one))
        assert kept == pytest.approx(1 / float(total), rel=0.05)


@pytest.mark.parametrize("sampler", [DDIM(), DDPM()], ids=["ddim", "ddpm"])
@pytest.mark.parametrize(
    ("schedule", "start"),
    [(Linear(300, zero_terminal_snr=True), "noise"), (Linear(300), "data")],
    ids=["zero terminal SNR", "start from data"],
)
def test_the_terminal_snr_fault_mended(sampler: Sampler, schedule: Schedule, start: str) -> None:
    assert _spread_kept(schedule, sampler, start) == pytest.approx(1, abs=0.06)


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


def test_noise_target_is_refused_at_zero_snr() -> None:
    with pytest.raises(UserError, match="--target velocity"):
        override(Recipe(), {"schedule": "linear", "schedule.zero_terminal_snr": True, "target": "noise"})
    override(Recipe(), {"schedule": "linear", "schedule.zero_terminal_snr": True, "target": "velocity"})


def test_a_start_from_data_needs_moments() -> None:
    denoiser = GaussianDenoiser(Linear(10), BRIGHTNESS)
    with pytest.raises(UserError, match=r"choose sampling\.start noise"):
        sample(denoiser, (1, 1, 1), [0], SamplingConfig(steps=5, start="data"))
