"""Noise models against their variances, and estimates of noise against noise that was added."""

import numpy as np
import pytest
import torch

from tests.restoration.priors import make_prior
from unnoise.diffusion.gaussian import GaussianDenoiser
from unnoise.diffusion.schedules import Karras
from unnoise.restoration.noise import NOISES, CorrelatedNoise, GaussianNoise, estimate_sigma, refine_sigma, salt_and_pepper_mask
from unnoise.restoration.operators import Blur
from unnoise.restoration.posteriors import denoise
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng


@pytest.mark.parametrize("name", NOISES)
def test_noises_have_their_variance(name: str) -> None:
    """4,000 samples of noise on known grey levels: their mean is the clean value, their variance the one stated."""
    x = torch.linspace(-0.8, 0.8, 5).reshape(1, 1, 1, 5).expand(4000, 1, 1, 5)
    noise = NOISES[name]()
    y = noise.add(x, BatchRng(0, range(4000)))
    torch.testing.assert_close(y.mean(0), x[0], rtol=0, atol=0.03)
    torch.testing.assert_close(y.var(0), noise.variance(x[:1])[0], rtol=0.1, atol=1e-4)
    with pytest.raises(UserError, match="greater than 0"):
        type(noise)(0.0) if name != "correlated" else CorrelatedNoise(0.0, white=0.0)  # type: ignore[call-arg]


def test_estimated_sigma() -> None:
    """On a ramp, whose own wavelet coefficients are none, to 2 %."""
    ramp = torch.linspace(-0.5, 0.5, 256).expand(3, 256, 256)
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (3, 256, 256)))
    assert estimate_sigma(ramp + noise) == pytest.approx(0.1, rel=0.02)
    assert estimate_sigma(ramp) < 1e-3


@pytest.mark.parametrize("sigma", [25.0, 50.0])
def test_a_clipped_images_noise(sigma: float) -> None:
    """Estimated from where nothing was clipped, to 5 %."""
    ramp = torch.linspace(-1, 1, 128).expand(3, 128, 128)
    y = ramp + sigma / 127.5 * BatchRng(0, range(3)).normal_like(ramp)
    assert 127.5 * estimate_sigma(y) == pytest.approx(sigma, rel=0.05)
    assert 127.5 * estimate_sigma(y.clamp(-1, 1)) == pytest.approx(sigma, rel=0.05)
    with pytest.raises(UserError, match="too small"):
        estimate_sigma(y[:, :5])


def test_a_first_guess_is_refined() -> None:
    """The denoiser's own residual finds the level, from a guess that is a half too high or too low."""
    moments, _, _ = make_prior(size=16, rank=4)
    denoiser = GaussianDenoiser(Karras(20.0), moments)
    clean = moments.sample(BatchRng(0, range(4)), torch.empty(4, 1, 16, 16))
    y = clean + 0.3 * BatchRng(1, range(4)).normal_like(clean)
    for guess in (0.2, 0.45):
        found = refine_sigma(y, guess, lambda y, sigma: denoise(denoiser, y, sigma), 20.0, 12)
        assert found == pytest.approx(0.3, rel=0.05)
    assert GaussianNoise(25.0).variance(y).unique().numel() == 1 and estimate_sigma(y[0]) > 0


def test_salt_and_pepper_is_found() -> None:
    """Every value that was hit on a smooth image, and no other."""
    torch.manual_seed(0)
    clean = Blur.gaussian(2.0)(torch.randn(1, 3, 32, 32)).mul(2).clamp(-0.9, 0.9)
    hit = torch.rand(clean.shape) < 0.1
    y = torch.where(hit, torch.where(torch.rand(clean.shape) < 0.5, -1.0, 1.0), clean)
    assert torch.equal(salt_and_pepper_mask(y) == 0, hit)
