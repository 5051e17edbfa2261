import pytest
import torch
from torch import Tensor, nn

from unnoise.diffusion.denoiser import EDM, TARGETS, Epsilon, NetworkDenoiser
from unnoise.diffusion.loss import L1, LOSSES, Huber, diffusion_loss
from unnoise.diffusion.schedules import SCHEDULES, Linear, add_noise, per_image

torch.manual_seed(0)
X, Z = torch.randn(5, 2, 4, 4, dtype=torch.float64), torch.randn(5, 2, 4, 4, dtype=torch.float64)
T = torch.tensor([0.01, 0.2, 0.5, 0.8, 0.99], dtype=torch.float64)


class Answer(nn.Module):
    """A network that gives one answer and remembers what it was asked."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer, self.counts_steps = answer, False

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        self.x, self.c_noise = x, c_noise
        return self.answer


@pytest.mark.parametrize("schedule", [make() for make in SCHEDULES.values()], ids=list(SCHEDULES))
@pytest.mark.parametrize("name", TARGETS)
def test_the_true_output_gives_the_true_image(name: str, schedule) -> None:  # type: ignore[no-untyped-def]
    """Each target written out from x and z, as its paper defines it, must come back as x."""
    alpha, sigma = per_image(schedule.alpha(T), X), per_image(schedule.sigma(T), X)
    x_t = add_noise(schedule, X, T, Z)
    s = 0.5
    skip = alpha * s**2 / (alpha**2 * s**2 + sigma**2)
    truth = {
        "noise": Z,
        "image": X,
        "velocity": alpha * Z - sigma * X,
        "flow": Z - X,
        "karras": (X - skip * x_t) * (alpha**2 * s**2 + sigma**2).sqrt() / (sigma * s),
    }[name]
    denoiser = NetworkDenoiser(Answer(truth), schedule, TARGETS[name]())
    torch.testing.assert_close(denoiser(x_t, T), X, rtol=1e-8, atol=1e-8)


def test_karras_coefficients_are_edms() -> None:
    """Karras et al. 2022, table 1, at alpha = 1."""
    sigma = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    c = EDM(0.5).coefficients(torch.ones_like(sigma), sigma)
    torch.testing.assert_close(c.c_skip, 0.25 / (sigma**2 + 0.25))
    torch.testing.assert_close(c.c_out, sigma * 0.5 / (sigma**2 + 0.25).sqrt())
    torch.testing.assert_close(c.c_in, 1 / (sigma**2 + 0.25).sqrt())


def test_network_is_told_the_integer_step() -> None:
    network = Answer(Z)
    denoiser = NetworkDenoiser(network, Linear(300), Epsilon())
    levels = denoiser.c_noise(T)
    torch.testing.assert_close(levels, Linear(300).ratio(T).log() / 4)
    network.counts_steps = True  # as the notebook's network says of itself
    steps = torch.tensor([0.0, 1, 149, 298, 299])
    denoiser(X.float(), (steps + 1) / 300)
    torch.testing.assert_close(denoiser.network.c_noise, steps, rtol=0, atol=1e-4)


def test_noise_target_with_l1_is_the_notebooks_loss() -> None:
    guess = torch.randn_like(Z)
    denoiser = NetworkDenoiser(Answer(guess), Linear(300), Epsilon())
    loss = diffusion_loss(denoiser, X, T, Z, loss=L1())
    torch.testing.assert_close(loss, (guess - Z).abs().flatten(1).mean(1), rtol=1e-12, atol=1e-12)
    weighted = diffusion_loss(denoiser, X, T, Z, loss=L1(), weight=torch.arange(5.0))
    torch.testing.assert_close(weighted, loss * torch.arange(5.0))


def test_the_notebooks_loss_in_single_precision() -> None:
    """At its size, at the first step too, where sigma is 0.01 and the image's error is divided by it."""
    torch.manual_seed(0)
    x, z, guess = torch.rand(5, 3, 64, 64) * 2 - 1, torch.randn(5, 3, 64, 64), torch.randn(5, 3, 64, 64)
    t = torch.tensor([1, 2, 10, 150, 300]) / 300
    loss = diffusion_loss(NetworkDenoiser(Answer(guess), Linear(300), Epsilon()), x, t, z, loss=L1())
    torch.testing.assert_close(loss, (guess - z).abs().flatten(1).mean(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_penalties(name: str) -> None:
    e = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0])
    truth = {"l1": [3, 0.5, 0, 0.5, 3], "l2": [9, 0.25, 0, 0.25, 9], "huber": [2.5, 0.125, 0, 0.125, 2.5]}[name]
    torch.testing.assert_close(LOSSES[name]()(e), torch.tensor(truth))
    assert float(Huber(2.0)(torch.tensor(3.0))) == pytest.approx(4)
