"""The training loss against the notebook's, in float64 and float32; rho against its definition."""

import pytest
import torch

from tests.diffusion.oracles import FixedNetwork
from unnoise.diffusion.denoiser import Epsilon, NetworkDenoiser
from unnoise.diffusion.loss import L1, LOSSES, Huber, diffusion_loss
from unnoise.diffusion.schedules import Linear

G = torch.Generator().manual_seed(0)
X, EPS, GUESS = torch.randn(3, 5, 2, 4, 4, dtype=torch.float64, generator=G)
T = torch.tensor([0.01, 0.2, 0.5, 0.8, 0.99], dtype=torch.float64)


def test_epsilon_with_l1_is_the_notebooks_loss() -> None:
    """The mean absolute error of the predicted noise, of each image; weights multiply it."""
    denoiser = NetworkDenoiser(FixedNetwork(GUESS), Linear(300), Epsilon())
    loss = diffusion_loss(denoiser, X, T, EPS, loss=L1())
    torch.testing.assert_close(loss, (GUESS - EPS).abs().flatten(1).mean(1), rtol=1e-12, atol=1e-12)
    weighted = diffusion_loss(denoiser, X, T, EPS, loss=L1(), weight=torch.arange(5.0))
    torch.testing.assert_close(weighted, loss * torch.arange(5.0))


def test_the_notebooks_loss_in_single_precision() -> None:
    """At its size, at the first step too, where sigma is 0.01 and the image's error is divided by it."""
    torch.manual_seed(0)
    x, eps, guess = torch.rand(5, 3, 64, 64) * 2 - 1, torch.randn(5, 3, 64, 64), torch.randn(5, 3, 64, 64)
    t = torch.tensor([1, 2, 10, 150, 300]) / 300
    loss = diffusion_loss(NetworkDenoiser(FixedNetwork(guess), Linear(300), Epsilon()), x, t, eps, loss=L1())
    torch.testing.assert_close(loss, (guess - eps).abs().flatten(1).mean(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_rho(name: str) -> None:
    """|e|, e^2, Huber's at values on both sides of delta, pseudo-Huber's of c = 0.03."""
    e = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0])
    truth = {"l1": [3, 0.5, 0, 0.5, 3], "l2": [9, 0.25, 0, 0.25, 9], "huber": [2.5, 0.125, 0, 0.125, 2.5],
             "pseudo-huber": [2.97015, 0.4709, 0, 0.4709, 2.97015]}[name]  # fmt: skip
    torch.testing.assert_close(LOSSES[name]()(e), torch.tensor(truth))
    assert float(Huber(2.0)(torch.tensor(3.0))) == pytest.approx(4)
