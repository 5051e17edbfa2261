"""What tests of diffusion share: denoisers that are exactly right, noise of a test's own, PSNR.

The denoisers are posterior means of images whose pixels are independent, of a known density.
"""

import math
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.samplers import BoundDenoiser, Sampler, State, Step
from unnoise.diffusion.schedules import SCHEDULES, Schedule, per_image
from unnoise.utils.rng import BatchRng

each_schedule = pytest.mark.parametrize("schedule", [make() for make in SCHEDULES.values()], ids=list(SCHEDULES))


class GaussianPixels(Denoiser):
    """Pixels of N(mean, std^2)."""

    def __init__(self, schedule: Schedule, mean: float = 0.3, std: float = 0.5) -> None:
        super().__init__()
        self.schedule, self.mean, self.std = schedule, mean, std

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        alpha, sigma = (per_image(s, x_t) for s in (self.schedule.alpha(t), self.schedule.sigma(t)))
        gain = alpha * self.std**2 / ((alpha * self.std) ** 2 + sigma**2)
        return self.mean + gain * (x_t - alpha * self.mean)

    def flow(self, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Where the probability-flow ODE takes x_t: a Gaussian is scaled and shifted."""
        alpha_t, sigma_t, alpha_s, sigma_s = (f(v) for v in (t, s) for f in (self.schedule.alpha, self.schedule.sigma))
        scale = torch.sqrt(((alpha_s * self.std) ** 2 + sigma_s**2) / ((alpha_t * self.std) ** 2 + sigma_t**2))
        return alpha_s * self.mean + scale * (x_t - alpha_t * self.mean)


class EndOfFlow(Denoiser):
    """Where the flow of Gaussian pixels ends: an exact student."""

    def __init__(self, pixels: GaussianPixels) -> None:
        super().__init__()
        self.pixels, self.schedule = pixels, pixels.schedule

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        return self.pixels.flow(x_t, t, torch.zeros_like(t))


class MixturePixels(Denoiser):
    """Pixels of two Gaussians: `weight` of N(-centre, std^2), else N(centre, std^2)."""

    def __init__(self, schedule: Schedule, centre: float = 0.6, std: float = 0.2, weight: float = 0.3) -> None:
        super().__init__()
        self.schedule, self.centre, self.std, self.weight = schedule, centre, std, weight

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        alpha, sigma = (per_image(s, x_t).to(x_t) for s in (self.schedule.alpha(t), self.schedule.sigma(t)))
        variance = (alpha * self.std) ** 2 + sigma**2
        gain = alpha * self.std**2 / variance
        low, high = (m + gain * (x_t - alpha * m) for m in (-self.centre, self.centre))
        # log odds of the lower mode, given x_t
        odds = math.log(self.weight / (1 - self.weight)) - 2 * alpha * self.centre * x_t / variance
        return torch.lerp(high, low, torch.sigmoid(odds))


class FixedNetwork(nn.Module):
    """A network that always gives the same output and keeps its last time input."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output, self.counts_steps, self.c_noise = output, False, torch.empty(0)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        self.c_noise = c_noise
        return self.output


class Given(BatchRng):
    """Noise that a test hands out, one tensor a call."""

    def __init__(self, noises: Iterable[Tensor] = ()) -> None:
        self.noises = iter(noises)

    def normal_like(self, x: Tensor) -> Tensor:
        return next(self.noises)


class OneStream(BatchRng):
    """Noise of one generator for all images: much faster than a stream for each, where a test needs many images."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal_like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)


def take_step(
    sampler: Sampler, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State = None, noise: Iterable[Tensor] = ()
) -> Step:
    """One step of a sampler from t to s, both () float64, with this noise."""
    schedule = denoiser.schedule
    return sampler.step(BoundDenoiser(denoiser), x_t, schedule.at(t), schedule.at(s), state, Given(noise))


def psnr(x: Tensor, y: Tensor) -> float:
    """Decibels, for images on [-1, 1]; x is clamped to it."""
    return float(10 * torch.log10(4 / (x.clamp(-1, 1) - y).square().mean()))
