"""The Gaussian model of images against images of known moments, and its denoiser against linear algebra."""

import pytest
import torch

from tests.diffusion.oracles import OneStream
from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.diffusion.schedules import Flow, Karras, Linear, Schedule, add_noise
from unnoise.utils.errors import UserError


def test_moments_of_known_images() -> None:
    """Two directions of known standard deviation, over a known residual."""
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


def test_sampled_images_have_the_moments() -> None:
    """Mean and covariance of 20,000 samples are B B^T + residual_std^2 I."""
    moments = Moments(torch.full((1, 2, 2), 0.5), torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]]), torch.tensor(0.2))
    x = moments.sample(OneStream(), torch.empty(20_000, 1, 2, 2)).flatten(1).double()
    b = moments.basis.flatten(1).double()
    torch.testing.assert_close(torch.cov(x.T), b.T @ b + 0.04 * torch.eye(4, dtype=torch.float64), rtol=0.05, atol=0.02)
    torch.testing.assert_close(x.mean(0), torch.full((4,), 0.5, dtype=torch.float64), rtol=0, atol=0.03)


@pytest.mark.parametrize("schedule", [Linear(300), Flow(), Karras(10.0)], ids=lambda s: type(s).__name__)
def test_gaussian_denoiser_is_the_posterior_mean(schedule: Schedule) -> None:
    """Against x_hat = mean + alpha S (alpha^2 S + sigma^2 I)^-1 (x_t - alpha mean) with the whole matrix S, in float64."""
    torch.manual_seed(0)
    mean, residual = torch.randn(2, 2, 2, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    q = torch.linalg.qr(torch.randn(8, 3, dtype=torch.float64))[0].T * torch.tensor([[2.0], [1.0], [0.5]], dtype=torch.float64)
    moments = Moments(mean, q.reshape(3, 2, 2, 2), residual)
    covariance = q.T @ q + residual**2 * torch.eye(8, dtype=torch.float64)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    x_t = add_noise(schedule, torch.randn(3, 2, 2, 2, dtype=torch.float64), t, torch.randn(3, 2, 2, 2, dtype=torch.float64))
    got = GaussianDenoiser(schedule, moments)(x_t, t)
    for b in range(3):
        alpha, sigma = schedule.alpha(t[b]), schedule.sigma(t[b])
        matrix = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(8, dtype=torch.float64))
        expected = mean.flatten() + matrix @ (x_t[b] - alpha * mean).flatten()
        torch.testing.assert_close(got[b].flatten(), expected, rtol=1e-10, atol=1e-10)
