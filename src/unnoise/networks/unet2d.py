"""The U-Net of the library diffusers (UNet2DModel), with its names of weights: a model of ours that loads there, and theirs here.

Ho et al. 2020, appendix B: levels of residual blocks, each with a skip connection, attention at some levels and in the middle.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unnoise.networks.base import NetworkConfig, Unit
from unnoise.networks.layers import Dropout, EmbeddingLinear, attend
from unnoise.utils.errors import UserError


@dataclass(frozen=True)
class UNet2DConfig(NetworkConfig):
    """The fields of UNet2DModel that matter, by this program's names where they are the same thing.

    `widths` are its block_out_channels, `blocks` its layers_per_block, `attention_levels` the levels, from 0, that are its Attn
    blocks, `head_size` its attention_head_dim (0: one head), `groups` and `eps` those of its norms, `padding` that of its
    downsampling convolutions (0: right and below only), `freq_shift` and `sin_first` those of its time embedding.
    """

    widths: tuple[int, ...] = (64, 128)
    blocks: int = 2
    attention_levels: tuple[int, ...] = (1,)
    head_size: int = 8
    groups: int = 16
    eps: float = 1e-5
    dropout: float = 0.0
    padding: int = 1
    middle_attention: bool = True
    freq_shift: float = 0.0
    sin_first: bool = False

    def __post_init__(self) -> None:
        if not self.widths or self.groups < 1 or any(w < 4 or w % self.groups or w % 2 for w in self.widths):
            raise UserError(f"unet2d widths must be even multiples of network.groups ({self.groups}), not {list(self.widths)}")
        if self.blocks < 1 or self.padding not in (0, 1) or not 0 <= self.dropout < 1 or self.eps <= 0:
            raise UserError("unet2d needs blocks >= 1, padding 0 or 1, dropout in [0, 1) and eps > 0")
        if any(not 0 <= level < len(self.widths) for level in self.attention_levels):
            raise UserError(f"attention_levels are levels from 0 to {len(self.widths) - 1}, not {list(self.attention_levels)}")
        attending = [self.widths[level] for level in self.attention_levels] + [self.widths[-1]] * self.middle_attention
        if self.head_size and (self.head_size < 0 or any(w % self.head_size for w in attending)):
            raise UserError(f"head_size {self.head_size} must divide the widths that have attention, {attending}")

    @property
    def takes_augmentation(self) -> bool:
        return False

    @property
    def size_divisor(self) -> int:
        return int(2 ** (len(self.widths) - 1))

    def build(self, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        self.check_size(size)
        return UNet2D(self, channels, classes)


class Resnet(Unit):
    """norm, silu, convolve, plus the embedding; norm, silu, convolve; plus the input. (B, in, H, W), (B, E) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, config: UNet2DConfig) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(config.groups, in_channels, config.eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, out_channels)
        self.norm2 = nn.GroupNorm(config.groups, out_channels, config.eps)
        self.dropout = Dropout(config.dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = None if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x))) + self.time_emb_proj(embedding)[:, :, None, None]
        h = self.conv2(self.dropout(functional.silu(self.norm2(h))))
        out: Tensor = h + (x if self.conv_shortcut is None else self.conv_shortcut(x))
        return out


class Attention(Unit):
    """Multi-head self-attention over all positions, plus the input. (B, C, H, W) -> the same."""

    def __init__(self, channels: int, config: UNet2DConfig) -> None:
        super().__init__()
        self.heads = channels // config.head_size if config.head_size else 1
        self.group_norm = nn.GroupNorm(config.groups, channels, config.eps)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, HW, C)
        q, k, v = (
            project(tokens).reshape(b, h * w, self.heads, c // self.heads).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )  # (B, heads, HW, C/heads)
        mixed = functional.scaled_dot_product_attention(q, k, v) if x.is_cuda else attend(q, k, v)
        out: Tensor = x + self.to_out[0](mixed.transpose(1, 2).reshape(b, h * w, c)).transpose(1, 2).reshape(b, c, h, w)
        return out


class Downsample(nn.Module):
    """Halves height and width."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x if self.padding else functional.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Doubles height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Level(nn.Module):
    """The layers of one level on one side, and what leads to the next."""

    def __init__(self, pairs: list[tuple[int, int]], embedding: int, config: UNet2DConfig, attends: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(i, o, embedding, config) for i, o in pairs])
        self.attentions = nn.ModuleList([Attention(o, config) for _, o in pairs] if attends else [])
        self.downsamplers, self.upsamplers = nn.ModuleList(), nn.ModuleList()

    def layer(self, k: int, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.resnets[k](x, embedding)
        return self.attentions[k](x) if len(self.attentions) else x


class Middle(nn.Module):
    """Two blocks, with attention between them."""

    def __init__(self, width: int, embedding: int, config: UNet2DConfig) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(width, config)] if config.middle_attention else [])
        self.resnets = nn.ModuleList([Resnet(width, width, embedding, config) for _ in range(2)])

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.resnets[0](x, embedding)
        for attention in self.attentions:
            x = attention(x)
        out: Tensor = self.resnets[1](x, embedding)
        return out


class TimeEmbedding(nn.Module):
    """(B, size) -> (B, out)."""

    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = EmbeddingLinear(size, out), EmbeddingLinear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_2(functional.silu(self.linear_1(x)))
        return out


class UNet2D(nn.Module):
    """(B, C, H, W), step (B,), label (B,) or None -> (B, C, H, W). The label -1 is no label, and so is None."""

    counts_steps = True

    def __init__(self, config: UNet2DConfig, channels: int, classes: int) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        widths, e = config.widths, 4 * config.widths[0]
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], e)
        self.class_embedding = nn.Embedding(classes + 1, e) if classes else None  # the last row is no label
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        for k, (width, w) in enumerate(itertools.pairwise((widths[0], *widths))):
            level = Level([(width if j == 0 else w, w) for j in range(config.blocks)], e, config, k in config.attention_levels)
            if k < len(widths) - 1:
                level.downsamplers.append(Downsample(w, config.padding))
            self.down_blocks.append(level)
        self.mid_block = Middle(widths[-1], e, config)
        for k in reversed(range(len(widths))):
            w, before, after = widths[k], widths[min(k + 1, len(widths) - 1)], widths[max(k - 1, 0)]
            ins = [(before if j == 0 else w) + (after if j == config.blocks else w) for j in range(config.blocks + 1)]
            level = Level([(i, w) for i in ins], e, config, k in config.attention_levels)
            if k:
                level.upsamplers.append(Upsample(w))
            self.up_blocks.append(level)
        self.conv_norm_out = nn.GroupNorm(config.groups, widths[0], config.eps)
        self.conv_out = nn.Conv2d(widths[0], channels, 3, padding=1)

    def embed(self, step: Tensor, label: Tensor | None) -> Tensor:
        half = self.config.widths[0] // 2
        k = torch.arange(half, dtype=torch.float32, device=step.device)
        angles = step[:, None] * torch.exp(k * (-math.log(10000) / (half - self.config.freq_shift)))
        features = (angles.sin(), angles.cos()) if self.config.sin_first else (angles.cos(), angles.sin())
        embedding = self.time_embedding(torch.cat(features, dim=-1))
        if self.class_embedding is not None:
            label = torch.full_like(step, -1, dtype=torch.long) if label is None else label
            embedding = embedding + self.class_embedding(label % (self.classes + 1))  # -1 is the last row
        return functional.silu(embedding)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        embedding = self.embed(c_noise, label)
        x = self.conv_in(x)
        skips = [x]
        for level in self.down_blocks:
            for k in range(len(level.resnets)):  # type: ignore[arg-type]
                x = level.layer(k, x, embedding)  # type: ignore[operator]
                skips.append(x)
            for downsample in level.downsamplers:  # type: ignore[union-attr]
                x = downsample(x)
                skips.append(x)
        x = self.mid_block(x, embedding)
        for level in self.up_blocks:
            for k in range(len(level.resnets)):  # type: ignore[arg-type]
                x = level.layer(k, torch.cat([x, skips.pop()], dim=1), embedding)  # type: ignore[operator]
            for upsample in level.upsamplers:  # type: ignore[union-attr]
                x = upsample(x)
        out: Tensor = self.conv_out(functional.silu(self.conv_norm_out(x)))
        return out
