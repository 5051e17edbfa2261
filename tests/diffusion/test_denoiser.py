"""Preconditioning against each target written out from x and eps, as its paper defines it."""

import pytest
import torch

from tests.diffusion.oracles import FixedNetwork, each_schedule
from unnoise.diffusion.denoiser import EDM, TARGETS, Epsilon, NetworkDenoiser
from unnoise.diffusion.schedules import Linear, Schedule, add_noise, per_image
from unnoise.recipe import Recipe, override
from unnoise.utils.errors import UserError

G = torch.Generator().manual_seed(0)
X, EPS = torch.randn(2, 5, 2, 4, 4, dtype=torch.float64, generator=G)
T = torch.tensor([0.01, 0.2, 0.5, 0.8, 0.99], dtype=torch.float64)


@each_schedule
@pytest.mark.parametrize("name", TARGETS)
def test_the_true_output_gives_the_true_image(name: str, schedule: Schedule) -> None:
    """Each target written out from x and eps, as its paper defines it, must come back as x."""
    alpha, sigma = per_image(schedule.alpha(T), X), per_image(schedule.sigma(T), X)
    x_t = add_noise(schedule, X, T, EPS)
    s = 0.5
    skip = alpha * s**2 / (alpha**2 * s**2 + sigma**2)
    truth = {
        "epsilon": EPS,
        "x0": X,
        "velocity": (alpha * EPS - sigma * X) / (alpha**2 + sigma**2).sqrt(),
        "flow": EPS - X,
        "edm": (X - skip * x_t) * (alpha**2 * s**2 + sigma**2).sqrt() / (sigma * s),
    }[name]
    denoiser = NetworkDenoiser(FixedNetwork(truth), schedule, TARGETS[name]())
    torch.testing.assert_close(denoiser(x_t, T), X, rtol=1e-8, atol=1e-8)
    # An error of the network's output is that of the estimate, divided by the output scale.
    denoiser = NetworkDenoiser(FixedNetwork(truth + 0.1), schedule, TARGETS[name]())
    error = (denoiser(x_t, T) - X).abs() / per_image(denoiser.output_scale(T), X)
    torch.testing.assert_close(error, torch.full_like(X, 0.1), rtol=1e-6, atol=1e-6)


def test_edm_coefficients_are_those_of_the_paper() -> None:
    """Karras et al. 2022, table 1, at alpha = 1."""
    sigma = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    c = EDM(0.5).coefficients(torch.ones_like(sigma), sigma)
    torch.testing.assert_close(c.c_skip, 0.25 / (sigma**2 + 0.25))
    torch.testing.assert_close(c.c_out, sigma * 0.5 / (sigma**2 + 0.25).sqrt())
    torch.testing.assert_close(c.c_in, 1 / (sigma**2 + 0.25).sqrt())


def test_the_networks_time_input() -> None:
    """log(sigma / alpha) / 4 or, for a network that counts steps, the integer step, also from float32 times."""
    network = FixedNetwork(EPS)
    denoiser = NetworkDenoiser(network, Linear(300), Epsilon())
    torch.testing.assert_close(denoiser.c_noise(T), Linear(300).ratio(T).log() / 4)
    network.counts_steps = True  # as the notebook's network says of itself
    steps = torch.tensor([0.0, 1, 149, 298, 299])
    denoiser(X.float(), (steps + 1) / 300)
    torch.testing.assert_close(denoiser.network.c_noise, steps, rtol=0, atol=1e-4)


def test_epsilon_is_refused_at_zero_snr() -> None:
    """Where alpha is 0 the noise says nothing of the image."""
    with pytest.raises(UserError, match="choose target velocity"):
        override(Recipe(), {"schedule": "linear", "schedule.zero_terminal_snr": True, "target": "epsilon"})
    override(Recipe(), {"schedule": "linear", "schedule.zero_terminal_snr": True, "target": "velocity"})
