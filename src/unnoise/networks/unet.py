"""The U-Net: residual blocks, attention at low resolution, class labels, and an input folded into patches.

The image is folded by `patch` (pixel unshuffle), taken down through `widths`, its sides halved between two levels, and
up again with a skip connection from every layer of the encoder; then unfolded.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from unnoise.networks.base import NetworkConfig, Unit
from unnoise.networks.layers import ACTIVATIONS, NORMS, Attention, Block, EmbeddingLinear, FourierTime, Style, zero_init
from unnoise.utils.errors import UserError


class Layer(Unit):
    """A block, with or without attention after it."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, style: Style, attend: bool) -> None:
        super().__init__()
        self.block = Block(in_channels, out_channels, embedding, style)
        self.attention = Attention(out_channels, style) if attend else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        out: Tensor = self.attention(self.block(x, embedding))
        return out


class UNet(nn.Module):
    """(B, C, H, W), c_noise (B,), label (B,) or None -> (B, C, H, W). The label -1 is no label, and so is None."""

    def __init__(self, config: "UNetConfig", channels: int, size: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.patch, self.classes = config.patch, classes
        widths, e = config.widths, config.embedding
        tokens = [(size[0] // config.patch >> level) * (size[1] // config.patch >> level) for level in range(len(widths))]
        attend = [n <= config.attention_tokens for n in tokens]

        self.time = nn.Sequential(FourierTime(e, 0.1, 100), EmbeddingLinear(e, e), nn.SiLU(), EmbeddingLinear(e, e))
        self.label = nn.Embedding(classes + 1, e) if classes else None  # the last row is no label
        self.augment = zero_init(EmbeddingLinear(7, e, bias=False))  # of the augmentation labels; all 0 is none
        folded = channels * config.patch**2
        self.conv_in = nn.Conv2d(folded, widths[0], 3, padding=1)

        def layer(i: int, o: int, level: int) -> Layer:
            return Layer(i, o, e, config.style, attend[level])

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.downsample, self.upsample = nn.ModuleList(), nn.ModuleList()
        skips, width = [widths[0]], widths[0]
        for level, w in enumerate(widths):
            if level:
                self.downsample.append(nn.Conv2d(width, w, 3, stride=2, padding=1))
                width = w
                skips.append(w)
            self.down.append(nn.ModuleList([layer(width, w, level) for _ in range(config.blocks)]))
            skips += [w] * config.blocks
        self.middle = layer(width, width, len(widths) - 1)
        for level, w in reversed(list(enumerate(widths))):
            ins = [(width if k == 0 else w) + skips.pop() for k in range(config.blocks + 1)]
            self.up.append(nn.ModuleList([layer(i, w, level) for i in ins]))
            width = w
            if level:
                self.upsample.append(nn.Conv2d(w, widths[level - 1], 3, padding=1))
                width = widths[level - 1]
        self.norm, self.activation = NORMS[config.style.norm](width), ACTIVATIONS[config.style.activation]
        self.conv_out = zero_init(nn.Conv2d(width, folded, 3, padding=1))

    def embed(self, c_noise: Tensor, label: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        embedding = self.time(c_noise)
        if augment_labels is not None:
            embedding = embedding + self.augment(augment_labels)
        if self.label is not None:
            label = torch.full_like(c_noise, -1, dtype=torch.long) if label is None else label
            embedding = embedding + self.label(label % (self.classes + 1))  # -1 is the last row
        return functional.silu(embedding)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None, augment_labels: Tensor | None = None) -> Tensor:
        embedding = self.embed(c_noise, label, augment_labels)
        x = self.conv_in(functional.pixel_unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last))
        skips = [x]
        for level, layers in enumerate(self.down):
            if level:
                x = self.downsample[level - 1](x)
                skips.append(x)
            for layer in layers:  # type: ignore[attr-defined]
                x = layer(x, embedding)
                skips.append(x)
        x = self.middle(x, embedding)
        for level, layers in enumerate(self.up):
            if level:
                x = self.upsample[level - 1](functional.interpolate(x, scale_factor=2.0, mode="nearest"))
            for layer in layers:  # type: ignore[attr-defined]
                x = layer(torch.cat([x, skips.pop()], dim=1), embedding)
        return functional.pixel_shuffle(self.conv_out(self.activation(self.norm(x))), self.patch)


@dataclass(frozen=True)
class UNetConfig(NetworkConfig):
    """Channels of each level, blocks per level, patch size, and the style of the blocks.

    Levels of at most `attention_tokens` positions have attention (0: none has).
    """

    widths: tuple[int, ...] = (64, 128)
    blocks: int = 2
    patch: int = 1
    embedding: int = 128
    attention_tokens: int = 64
    style: Style = field(default_factory=Style)

    def __post_init__(self) -> None:
        if not self.widths:
            raise UserError("unet needs at least one width")
        self._check()

    def _check(self) -> None:
        if any(w < 16 or w % 16 for w in self.widths):
            raise UserError(f"unet widths must be multiples of 16, not {list(self.widths)}")
        if min(self.blocks, self.patch) < 1 or self.embedding < 4 or self.embedding % 2:
            raise UserError("unet needs blocks >= 1, patch >= 1 and an even embedding >= 4")

    @property
    def size_divisor(self) -> int:
        return int(self.patch * 2 ** max(0, len(self.widths) - 1))

    def build(self, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        self.check_size(size)
        return UNet(self, channels, size, classes)


FINEST = 16  # positions a side, after patching, above which there is a level more


@dataclass(frozen=True)
class AutoUNet(UNetConfig):
    """A U-Net of which widths and patch, where they are not given, are chosen when a run begins.

    For the speed of the machine, the time, and the size of the images (`unnoise.training.scaling`).
    """

    widths: tuple[int, ...] = ()
    blocks: int = 1
    patch: int = 0
    attention_tokens: int = 0  # in equal time, with it images of up to 64x64 were learned less well

    def __post_init__(self) -> None:
        if self.patch:
            self._check()
        else:
            replace(self, patch=1)  # checks the rest

    def of_width(self, width: int, size: tuple[int, int]) -> UNetConfig:
        """The network whose first level has `width` channels, for images of `size` (height, width); what is given stays."""
        side = max(size)
        patch = self.patch or (1 if side <= 16 else 2 if side <= 128 else 4)
        while not self.patch and patch > 1 and any(s % patch for s in size):
            patch //= 2
        levels = 2 if side / patch <= FINEST else 3
        while levels > 1 and any(s % (patch * 2 ** (levels - 1)) for s in size):
            levels -= 1
        widths = self.widths or tuple(width * k for k in range(1, levels + 1))
        return UNetConfig(widths, self.blocks, patch, self.embedding, self.attention_tokens, self.style)

    def build(self, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        """Outside of a run, where nothing is measured, that of width 32."""
        return self.of_width(32, size).build(channels, size, classes)
