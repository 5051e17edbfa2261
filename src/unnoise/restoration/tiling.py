"""Tiling: images larger than those trained on, a tile at a time."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unnoise.diffusion.denoiser import Denoiser

MAX_TILES = 64  # in a call of the network


class TiledDenoiser(Denoiser):
    """A denoiser of images of any size, at least `size` (height, width): overlapping tiles of it, blended in every call.

    A sampler that uses it makes one image from one noise: neighbouring tiles see the same x_t where they overlap, and their
    estimates are averaged with weights that fall towards the tiles' edges.
    """

    def __init__(self, denoiser: Denoiser, size: tuple[int, int], overlap: float = 0.25) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.size, self.overlap = denoiser, denoiser.schedule, size, overlap

    def starts(self, length: int, tile: int) -> list[int]:
        """Where tiles begin along a side, evenly spaced, each sharing at least `overlap` of itself with the next."""
        count = 1 + max(0, -(-(length - tile) // max(1, round(tile * (1 - self.overlap)))))
        return [round(k * (length - tile) / max(1, count - 1)) for k in range(count)]

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        assert not cond, "conditioning of training can't be tiled"
        (h, w), (_, _, height, width) = self.size, x_t.shape
        if (height, width) == (h, w):
            x_hat: Tensor = self.denoiser(x_t, t, label)
            return x_hat
        corners = [(y, x) for y in self.starts(height, h) for x in self.starts(width, w)]
        window = torch.outer(_window(h), _window(w)).to(x_t)
        total, weight = torch.zeros_like(x_t), torch.zeros_like(x_t[:1, :1])
        each = max(1, MAX_TILES // len(x_t))
        for first in range(0, len(corners), each):
            some = corners[first : first + each]
            tiles = torch.cat([x_t[..., y : y + h, x : x + w] for y, x in some])
            times = t if t.ndim == 0 else t.repeat(len(some))
            labels = None if label is None else label.repeat(len(some))
            # For a gradient only the tiles are stored, and the network runs again: the activations of all would not fit.
            estimates: Tensor = checkpoint(self.denoiser, tiles, times, labels, use_reentrant=False, preserve_rng_state=False)
            for (y, x), estimate in zip(some, estimates.chunk(len(some)), strict=True):
                total[..., y : y + h, x : x + w] += estimate * window
                weight[..., y : y + h, x : x + w] += window
        return total / weight


def _window(size: int) -> Tensor:
    """A raised cosine that is nowhere 0, (size,)."""
    return torch.sin(torch.pi * (torch.arange(size) + 0.5) / size).square() + 1e-3
