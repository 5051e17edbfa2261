"""Our U-Net: residual blocks, attention where the picture is small, labels, and an input cut into patches.

The picture is folded by `patch` (pixel unshuffle), taken down through `widths` with a halving between two levels, and
up again with every output of the way down kept; then unfolded.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from unnoise.errors import UserError
from unnoise.network import NetworkPlan, Unit
from unnoise.network.blocks import ACTIVATIONS, NORMS, Attention, Block, FourierTime, Style, zeroed


class Layer(Unit):
    """A block, with attention behind it or without."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, style: Style, attend: bool) -> None:
        super().__init__()
        self.block = Block(in_channels, out_channels, embedding, style)
        self.attention = Attention(out_channels, style) if attend else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        out: Tensor = self.attention(self.block(x, embedding))
        return out


class UNet(nn.Module):
    """(B, C, H, W), c_noise (B,), label (B,) or None -> (B, C, H, W). The label -1 is no label, and so is None."""

    def __init__(self, plan: "UNetPlan", channels: int, size: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.patch, self.classes = plan.patch, classes
        widths, e = plan.widths, plan.embedding
        tokens = [(size[0] // plan.patch >> level) * (size[1] // plan.patch >> level) for level in range(len(widths))]
        attend = [n <= plan.attention_tokens for n in tokens]

        self.time = nn.Sequential(FourierTime(e, 0.1, 100), nn.Linear(e, e), nn.SiLU(), nn.Linear(e, e))
        self.label = nn.Embedding(classes + 1, e) if classes else None  # the last row is "no label"
        self.augmentation = zeroed(nn.Linear(6, e, bias=False))  # how a picture was moved; all 0: not at all
        folded = channels * plan.patch**2
        self.enter = nn.Conv2d(folded, widths[0], 3, padding=1)

        def layer(i: int, o: int, level: int) -> Layer:
            return Layer(i, o, e, plan.style, attend[level])

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        kept, width = [widths[0]], widths[0]
        for level, w in enumerate(widths):
            if level:
                self.shrink.append(nn.Conv2d(width, w, 3, stride=2, padding=1))
                width = w
                kept.append(w)
            self.down.append(nn.ModuleList([layer(width, w, level) for _ in range(plan.blocks)]))
            kept += [w] * plan.blocks
        self.middle = layer(width, width, len(widths) - 1)
        for level, w in reversed(list(enumerate(widths))):
            ins = [(width if k == 0 else w) + kept.pop() for k in range(plan.blocks + 1)]
            self.up.append(nn.ModuleList([layer(i, w, level) for i in ins]))
            width = w
            if level:
                self.grow.append(nn.Conv2d(w, widths[level - 1], 3, padding=1))
                width = widths[level - 1]
        self.norm, self.activation = NORMS[plan.style.norm](width), ACTIVATIONS[plan.style.activation]
        self.leave = zeroed(nn.Conv2d(width, folded, 3, padding=1))

    def embed(self, c_noise: Tensor, label: Tensor | None, augmented: Tensor | None) -> Tensor:
        embedding = self.time(c_noise)
        if augmented is not None:
            embedding = embedding + self.augmentation(augmented)
        if self.label is not None:
            label = torch.full_like(c_noise, -1, dtype=torch.long) if label is None else label
            embedding = embedding + self.label(label % (self.classes + 1))  # -1 is the last row
        return functional.silu(embedding)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None, augmented: Tensor | None = None) -> Tensor:
        embedding = self.embed(c_noise, label, augmented)
        x = self.enter(functional.pixel_unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last))
        kept = [x]
        for level, layers in enumerate(self.down):
            if level:
                x = self.shrink[level - 1](x)
                kept.append(x)
            for layer in layers:  # type: ignore[attr-defined]
                x = layer(x, embedding)
                kept.append(x)
        x = self.middle(x, embedding)
        for level, layers in enumerate(self.up):
            if level:
                x = self.grow[level - 1](functional.interpolate(x, scale_factor=2.0, mode="nearest"))
            for layer in layers:  # type: ignore[attr-defined]
                x = layer(torch.cat([x, kept.pop()], dim=1), embedding)
        return functional.pixel_shuffle(self.leave(self.activation(self.norm(x))), self.patch)


@dataclass(frozen=True)
class UNetPlan(NetworkPlan):
    """Channels of each level, blocks a level, patch size, and the style of the blocks.

    Attention stands on the levels of at most `attention_tokens` places (0: nowhere).
    """

    widths: tuple[int, ...] = (64, 128)
    blocks: int = 2
    patch: int = 1
    embedding: int = 128
    attention_tokens: int = 64
    style: Style = field(default_factory=Style)

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 16 or any(w % 16 for w in self.widths):
            raise UserError(f"unet widths must be multiples of 16, not {list(self.widths)}")
        if min(self.blocks, self.patch) < 1 or self.embedding < 4 or self.embedding % 2:
            raise UserError("unet needs blocks >= 1, patch >= 1 and an even embedding >= 4")

    @property
    def multiple(self) -> int:
        return int(self.patch * 2 ** (len(self.widths) - 1))

    def build(self, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        self.check_size(size)
        return UNet(self, channels, size, classes)
