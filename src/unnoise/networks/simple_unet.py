"""The notebook's network, to the digit: 62,438,883 parameters at 3 channels, and its state-dict names."""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unnoise.networks.base import NetworkConfig, Unit
from unnoise.networks.layers import EmbeddingLinear
from unnoise.utils.errors import UserError


class SinusoidalTime(nn.Module):
    """Features of the raw step: sin then cos of t exp(-k ln(10000) / (size/2 - 1)), k = 0 .. size/2 - 1. (B,) -> (B, size)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, t: Tensor) -> Tensor:
        half = self.size // 2
        k = torch.arange(half, device=t.device)
        angles = t[:, None] * torch.exp(k * -(math.log(10000) / (half - 1)))
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Block(Unit):
    """Convolve, add the time, convolve, then halve or double the image.

    (B, in_channels, H, W) -> (B, out_channels, H/2, W/2), or 2H, 2W when `up`; an up block also takes the skip
    connection, so its input has 2 in_channels.
    """

    def __init__(self, in_channels: int, out_channels: int, time_size: int, *, up: bool) -> None:
        super().__init__()
        self.time_mlp = nn.Linear(time_size, out_channels)
        self.conv1 = nn.Conv2d(2 * in_channels if up else in_channels, out_channels, 3, padding=1)
        resample = nn.ConvTranspose2d if up else nn.Conv2d
        self.transform = resample(out_channels, out_channels, 4, 2, 1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bnorm1 = nn.BatchNorm2d(out_channels)
        self.bnorm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.bnorm1(functional.relu(self.conv1(x)))
        h = h + functional.relu(self.time_mlp(time))[:, :, None, None]  # (B, out, 1, 1): one value a channel
        h = self.bnorm2(functional.relu(self.conv2(h)))
        out: Tensor = self.transform(h)
        return out


class SimpleUnet(nn.Module):
    """Down through `widths` and up again, with a skip connection from each down block. (B, C, H, W), (B,) -> (B, C, H, W)."""

    counts_steps = True

    def __init__(self, channels: int, widths: tuple[int, ...], time_size: int) -> None:
        super().__init__()
        self.time_mlp = nn.Sequential(SinusoidalTime(time_size), EmbeddingLinear(time_size, time_size), nn.ReLU())
        self.conv0 = nn.Conv2d(channels, widths[0], 3, padding=1)
        pairs = list(itertools.pairwise(widths))
        self.downs = nn.ModuleList([Block(i, o, time_size, up=False) for i, o in pairs])
        self.ups = nn.ModuleList([Block(o, i, time_size, up=True) for i, o in reversed(pairs)])
        self.output = nn.Conv2d(widths[0], channels, 1)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        time = self.time_mlp(c_noise)
        x = self.conv0(x)
        skips = []
        for down in self.downs:
            x = down(x, time)
            skips.append(x)
        for up in self.ups:
            x = up(torch.cat([x, skips.pop()], dim=1), time)  # the innermost sees the same tensor twice
        out: Tensor = self.output(x)
        return out


@dataclass(frozen=True)
class SimpleUnetConfig(NetworkConfig):
    """The notebook's widths by default; takes no labels."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    time_size: int = 32

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise UserError(f"simple-unet widths need two or more positive numbers, not {list(self.widths)}")
        if self.time_size < 4 or self.time_size % 2:
            raise UserError(f"simple-unet time_size must be even and at least 4, not {self.time_size}")

    @property
    def takes_labels(self) -> bool:
        return False

    @property
    def takes_augmentation(self) -> bool:
        return False

    @property
    def size_divisor(self) -> int:
        return int(2 ** (len(self.widths) - 1))

    def build(self, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        self.check_size(size)
        return SimpleUnet(channels, self.widths, self.time_size)
