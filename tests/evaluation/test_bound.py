"""The variational bound against closed forms for Gaussians, and against the probability flow."""

import math

import pytest
import torch
from torch import Tensor

from tests.evaluation.test_likelihood import SHAPE, draw, gaussian
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.diffusion.schedules import Cosine, Flow, Karras, Schedule
from unnoise.evaluation.bound import density_bound, variational_bound
from unnoise.evaluation.likelihood import bits_per_dimension, log_density
from unnoise.utils.errors import UserError


@pytest.mark.parametrize("schedule", [Karras(), Flow(), Cosine()], ids=lambda s: type(s).__name__)
def test_terms_are_those_of_a_gaussian(schedule: Schedule) -> None:
    """Along each axis with variance v, c from the mean: prior and diffusion as integrated by hand; the sum is above the truth."""
    denoiser, moments, density = gaussian(schedule)
    x = draw(density, 1)
    many = density_bound(denoiser, x.expand(2000, *SHAPE), moments=moments)
    variances, axes = torch.linalg.eigh(density.covariance_matrix)
    c2 = ((x.flatten() - density.loc) @ axes).square()
    s_1 = min(1000.0, float(schedule.ratio(torch.tensor(1.0, dtype=torch.float64))))

    def part(s: float) -> Tensor:
        noisy = variances + s**2
        found: Tensor = math.log(s) - noisy.log() / 2 + (variances - c2) / noisy / 2
        return found

    assert many.s_0 == pytest.approx(1e-3)  # a perfect denoiser is always better than none
    diffusion = float((part(s_1) - part(many.s_0)).sum())
    noisy = variances + s_1**2
    prior = float((s_1**2 / noisy - 1 + c2 / noisy + (noisy / s_1**2).log()).sum()) / 2
    assert many.prior[0] == pytest.approx(prior, abs=1e-8)
    assert abs(many.diffusion.mean() - diffusion) < 4 * many.diffusion.std() / 2000**0.5
    assert many.reconstruction[0] == pytest.approx(4.5 * math.log(2 * math.pi * math.e * many.s_0**2))
    exact, expected = -float(density.log_prob(x.flatten())), prior + diffusion + float(many.reconstruction[0])
    assert torch.equal(many.total, many.prior + many.diffusion + many.reconstruction)
    assert 0 <= expected - exact < 1e-3 and float(many.total.mean()) == pytest.approx(exact, abs=0.2)


def test_it_lies_above_the_flow() -> None:
    """Of a perfect denoiser by nothing that is seen, of a bad one by far; noise more than the flow is no bound."""
    denoiser, moments, density = gaussian(Karras())
    x = draw(density, 400)
    flow = -log_density(denoiser, x, moments=moments, steps=60).mean()
    assert density_bound(denoiser, x, moments=moments).total.mean() == pytest.approx(float(flow), abs=0.15)

    class Blind(Denoiser):
        """Always says the mean."""

        def __init__(self) -> None:
            super().__init__()
            self.schedule = Karras()
            self.register_buffer("mean", moments.mean)

        def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
            return moments.mean.expand_as(x_t).to(x_t)

    blind = density_bound(Blind(), x, moments=moments)
    # Its decoder takes over where noise is as large as the images deviate: it then is a Gaussian of that standard deviation.
    assert blind.total.mean() > flow + 1 and blind.s_0 == pytest.approx(math.sqrt(float(density.variance.mean())), rel=0.5)


def test_bits_are_those_of_the_literature() -> None:
    """As for the flow: log2(20 sqrt(2 pi e)) for a standard deviation of 20 grey levels."""
    zeros = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    moments = Moments(zeros[0], zeros[:0], torch.tensor(20 / 127.5, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    pixels = (127.5 + 20 * torch.randn(200, 1, 4, 4, generator=generator)).round().clamp(0, 255).byte()
    denoiser = GaussianDenoiser(Karras(), moments)
    found = variational_bound(denoiser, pixels, moments=moments)
    flow = bits_per_dimension(denoiser, pixels, moments=moments, steps=60)
    assert found.total.mean() == pytest.approx(math.log2(20 * math.sqrt(2 * math.pi * math.e)), abs=0.04)
    assert abs(found.total.mean() - flow.mean()) < 0.02
    with pytest.raises(UserError, match="at least 2"):
        variational_bound(denoiser, pixels, levels=1)
