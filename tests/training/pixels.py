"""What tests of students share: networks of single pixels, and images of known density."""

import torch
from torch import Tensor, nn

from unnoise.diffusion.schedules import Schedule
from unnoise.diffusion.timesteps import LogNormalTimes, stratified_uniform
from unnoise.training.batches import Batch


class PixelNetwork(nn.Module):
    """Each pixel by itself, from its value, the noise level and the first augmentation label."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None, augment_labels: Tensor | None = None) -> Tensor:
        told = torch.zeros_like(c_noise) if augment_labels is None else augment_labels[:, 0]
        level, told = (v[:, None, None, None].expand_as(x) for v in (c_noise, told))
        y: Tensor = self.layers(torch.stack([x, level, told], dim=-1)).squeeze(-1)
        return y


def gaussian(size: int, generator: torch.Generator) -> Tensor:
    return 0.3 + 0.5 * torch.randn(size, 1, 2, 2, generator=generator)


def mixture(size: int, generator: torch.Generator) -> Tensor:
    signs = torch.where(torch.rand(size, 1, 2, 2, generator=generator) < 0.3, -1.0, 1.0)
    return 0.6 * signs + 0.2 * torch.randn(size, 1, 2, 2, generator=generator)


def batch_of(
    schedule: Schedule, x: Tensor, generator: torch.Generator, label: Tensor | None = None, extra_noise: int = 0
) -> Batch:
    u = stratified_uniform(float(torch.rand((), generator=generator)), len(x)).to(x)
    noise, *others = (torch.randn(x.shape, generator=generator).to(x) for _ in range(1 + extra_noise))
    return Batch(x, LogNormalTimes(-0.4, 1.6)(u, schedule), noise, label, extra_noise=torch.stack(others, 1) if others else None)
