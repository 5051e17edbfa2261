"""Bits per dimension against those of Gaussians, which are known."""

import math

import pytest
import torch
from torch import Tensor

from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.diffusion.schedules import Cosine, Flow, Karras, Schedule
from unnoise.evaluation.likelihood import bits_per_dimension, log_density
from unnoise.utils.errors import UserError

SHAPE = (1, 3, 3)


def gaussian(schedule: Schedule) -> tuple[GaussianDenoiser, Moments, torch.distributions.MultivariateNormal]:
    """Its denoiser, its moments and its density."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(9, 9, generator=generator, dtype=torch.float64))[0][:2]
    basis = directions * torch.tensor([[0.5], [0.3]])
    mean, residual = torch.randn(9, generator=generator, dtype=torch.float64) / 4, 0.2
    covariance = basis.T @ basis + residual**2 * torch.eye(9, dtype=torch.float64)
    moments = Moments(mean.reshape(SHAPE), basis.reshape(2, *SHAPE), torch.tensor(residual, dtype=torch.float64))
    return GaussianDenoiser(schedule, moments), moments, torch.distributions.MultivariateNormal(mean, covariance)


def draw(density: torch.distributions.MultivariateNormal, count: int) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return density.sample((count,)).reshape(count, *SHAPE)


@pytest.mark.parametrize("schedule", [Karras(), Flow(), Cosine()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("with_moments", [True, False])
def test_the_density_of_a_gaussian_is_exact(schedule: Schedule, with_moments: bool) -> None:
    """To a thousandth of a bit per dimension; nearly so without moments, where noise ends far above the images."""
    denoiser, moments, density = gaussian(schedule)
    x = draw(density, 8)
    found = log_density(denoiser, x, moments=moments if with_moments else None, steps=100, exact=True)
    bits = (found - density.log_prob(x.flatten(1))) / 9 / math.log(2)
    assert bits.abs().max() < (1e-3 if with_moments else 3e-3)


def test_random_signs_are_right_on_average() -> None:
    denoiser, moments, density = gaussian(Karras())
    x = draw(density, 1).expand(400, *SHAPE)
    found = log_density(denoiser, x, moments=moments, steps=60)
    exact = log_density(denoiser, x[:1], moments=moments, steps=60, exact=True)
    assert found.std() > 0 and abs(found.mean() - exact[0]) < 4 * found.std() / 20
    assert torch.equal(found[:3], log_density(denoiser, x[:3], moments=moments, steps=60))


def test_bits_are_those_of_the_literature() -> None:
    """The cross entropy of a Gaussian with a standard deviation of 20 grey levels: log2(20 sqrt(2 pi e)) bits."""
    std = 20 / 127.5
    zeros = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    moments = Moments(zeros[0], zeros[:0], torch.tensor(std, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    pixels = (127.5 + 20 * torch.randn(200, 1, 4, 4, generator=generator)).round().clamp(0, 255).byte()
    found = bits_per_dimension(GaussianDenoiser(Karras(), moments), pixels, moments=moments, steps=60)
    assert found.dtype == torch.float64 and found.mean() == pytest.approx(
        math.log2(20 * math.sqrt(2 * math.pi * math.e)), abs=0.04
    )
    with pytest.raises(UserError, match="at least 2"):
        bits_per_dimension(GaussianDenoiser(Karras(), moments), pixels, steps=1)
