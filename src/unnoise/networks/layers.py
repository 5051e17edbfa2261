"""Layers of the U-Net, chosen for what runs fast on a CPU in bfloat16 with channels last; a GPU has its own kernels."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unnoise.utils.errors import UserError, nearest


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with at least 16 channels per group: smaller groups are several times slower on a CPU."""
    groups = next(g for g in (8, 4, 2, 1) if channels % g == 0 and channels // g >= min(16, channels))
    return nn.GroupNorm(groups, channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "group": group_norm,
    "batch": nn.BatchNorm2d,
    "none": lambda channels: nn.Identity(),
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "relu": functional.relu,
    "gelu": functional.gelu,
}


@dataclass(frozen=True)
class Style:
    """The normalisation, activation and dropout of every block, and whether blocks are residual."""

    norm: str = "group"
    activation: str = "silu"
    residual: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for kind, table in (("norm", NORMS), ("activation", ACTIVATIONS)):
            if (name := getattr(self, kind)) not in table:
                raise UserError(f"unknown {kind} '{name}': {nearest(name, table)}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout must be in [0, 1), not {self.dropout}")


def zero_init(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """The same layer with its weights set to zero, so that a residual branch begins as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Dropout(nn.Module):
    """Sets each value to 0 with probability `p`, to the nearest 1/256 on a CPU, and scales the others so that the mean stays.

    On a CPU one int64 decides over eight values: nn.Dropout draws for each, which took a tenth of a training step.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.threshold = p, round(256 * p)  # a byte below the threshold is a value dropped

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.threshold:
            return x
        if x.is_cuda:
            return functional.dropout(x, self.p)
        bits = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        mask = bits.view(torch.uint8).as_strided(x.shape, x.stride()) >= self.threshold
        return x * mask * (256 / (256 - self.threshold))


class EmbeddingLinear(nn.Linear):
    """A layer that makes the embedding of time and labels, which Muon leaves to AdamW: as good there, and cheaper."""


class FourierTime(nn.Module):
    """cos and sin of c_noise at `size` / 2 frequencies, log-spaced from `low` to `high`. (B,) -> (B, size)."""

    frequencies: Tensor

    def __init__(self, size: int, low: float, high: float) -> None:
        super().__init__()
        ramp = torch.linspace(math.log(low), math.log(high), size // 2, device="cpu")
        self.register_buffer("frequencies", ramp.exp(), persistent=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        angles = c_noise[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Block(nn.Module):
    """norm, activation, convolve; norm, scaled and shifted by the embedding, activation, convolve; plus the input.

    The layers of Dhariwal & Nichol 2021 (adaptive group normalisation). (B, in, H, W), (B, E) -> (B, out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, embedding: int, style: Style) -> None:
        super().__init__()
        norm, self.activation = NORMS[style.norm], ACTIVATIONS[style.activation]
        self.norm1 = norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulate = zero_init(nn.Linear(embedding, 2 * out_channels))
        self.norm2 = norm(out_channels)
        self.dropout = Dropout(style.dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip: nn.Module | None = None
        if style.residual:
            zero_init(self.conv2)
            self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(self.activation(self.norm1(x)))
        scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, dim=1)  # (B, out, 1, 1) each
        h = self.activation(torch.addcmul(shift, self.norm2(h), 1 + scale))
        out: Tensor = self.conv2(self.dropout(h))
        return out if self.skip is None else self.skip(x) + out


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, written out: at 64 tokens several times faster in training on a CPU than the fused kernel.

    q, k, v (B, heads, tokens, D) -> the same shape.
    """
    weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
    return weights @ v


class Attention(nn.Module):
    """Multi-head self-attention over all positions, plus the input. (B, C, H, W) -> the same."""

    def __init__(self, channels: int, style: Style, head_size: int = 32) -> None:
        super().__init__()
        self.heads = next(h for h in range(max(1, channels // head_size), 0, -1) if channels % h == 0)
        self.norm = NORMS[style.norm](channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        # (B, 3C, H, W) -> q, k, v of (B, heads, HW, C/heads)
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w).transpose(-1, -2).unbind(1)
        mixed = functional.scaled_dot_product_attention(q, k, v) if x.is_cuda else attend(q, k, v)
        out: Tensor = x + self.out(mixed.transpose(-1, -2).reshape(b, c, h, w))
        return out
