"""A denoiser that is exactly right: the posterior mean of pictures whose pixels are N(mean, std^2), independent."""

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.noise import Schedule, per_picture


class GaussianDenoiser(Denoiser):
    def __init__(self, schedule: Schedule, mean: float = 0.3, std: float = 0.5) -> None:
        super().__init__()
        self.schedule, self.mean, self.std = schedule, mean, std

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        alpha, sigma = (per_picture(s, x_t) for s in (self.schedule.alpha(t), self.schedule.sigma(t)))
        gain = alpha * self.std**2 / ((alpha * self.std) ** 2 + sigma**2)
        return self.mean + gain * (x_t - alpha * self.mean)

    def flow(self, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Where the probability-flow ODE takes x_t: a Gaussian is scaled and shifted."""
        alpha_t, sigma_t, alpha_s, sigma_s = (f(v) for v in (t, s) for f in (self.schedule.alpha, self.schedule.sigma))
        spread = torch.sqrt(((alpha_s * self.std) ** 2 + sigma_s**2) / ((alpha_t * self.std) ** 2 + sigma_t**2))
        return alpha_s * self.mean + spread * (x_t - alpha_t * self.mean)
