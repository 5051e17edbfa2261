"""A denoiser that fails when it is asked to."""

import math

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.schedules import Flow


class Stumbling(Denoiser):
    """A linear denoiser that gives NaN at chosen calls, or runs out of memory on more than so many images."""

    def __init__(self, bad: set[int] = frozenset(), max_images: int = 10**9) -> None:  # type: ignore[assignment]
        super().__init__()
        self.schedule, self.bad, self.max_images, self.calls = Flow(), bad, max_images, 0
        self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(1)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        if len(x_t) > self.max_images:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. not enough memory")
        self.calls += 1
        x_hat: Tensor = self.norm(self.conv(x_t)) * (math.nan if self.calls in self.bad else 1)
        if self.calls in self.bad:
            self.norm(x_t * math.nan)  # and its statistics
        return x_hat
