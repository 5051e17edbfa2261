"""Denoisers that are exactly right: posterior means of images whose pixels are independent, of a known density."""

import math

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.schedules import Schedule, per_image


class GaussianDenoiser(Denoiser):
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
        spread = torch.sqrt(((alpha_s * self.std) ** 2 + sigma_s**2) / ((alpha_t * self.std) ** 2 + sigma_t**2))
        return alpha_s * self.mean + spread * (x_t - alpha_t * self.mean)


class MixtureDenoiser(Denoiser):
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
