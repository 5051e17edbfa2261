"""Pictures larger than those trained on, a tile at a time."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unnoise.denoiser import Denoiser

TILES_AT_ONCE = 64  # in a call of the network


class Tiled(Denoiser):
    """A denoiser of pictures of any size, at least `size` (height, width): overlapping tiles of that size, blended in every call.

    A sampler that uses it draws one picture, from one noise: neighbouring tiles see the same x_t where they overlap, and what
    they make of it is averaged with weights that fall towards their edges.
    """

    def __init__(self, denoiser: Denoiser, size: tuple[int, int], overlap: float = 0.25) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.size, self.overlap = denoiser, denoiser.schedule, size, overlap

    def starts(self, whole: int, tile: int) -> list[int]:
        """Where tiles begin along a side, evenly, each sharing at least `overlap` of itself with the next."""
        count = 1 + max(0, -(-(whole - tile) // max(1, round(tile * (1 - self.overlap)))))
        return [round(k * (whole - tile) / max(1, count - 1)) for k in range(count)]

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        (h, w), (_, _, high, wide) = self.size, x_t.shape
        if high == h and wide == w:
            whole: Tensor = self.denoiser(x_t, t, label)
            return whole
        places = [(y, x) for y in self.starts(high, h) for x in self.starts(wide, w)]
        window = torch.outer(_window(h), _window(w)).to(x_t)
        total, weight = torch.zeros_like(x_t), torch.zeros_like(x_t[:1, :1])
        each = max(1, TILES_AT_ONCE // len(x_t))
        for first in range(0, len(places), each):
            some = places[first : first + each]
            tiles = torch.cat([x_t[..., y : y + h, x : x + w] for y, x in some])
            told = t if t.ndim == 0 else t.repeat(len(some))
            labels = None if label is None else label.repeat(len(some))
            # For a gradient only the tiles are kept, and the network runs again: of a large picture all would not fit.
            estimates: Tensor = checkpoint(self.denoiser, tiles, told, labels, use_reentrant=False, preserve_rng_state=False)
            for (y, x), estimate in zip(some, estimates.chunk(len(some)), strict=True):
                total[..., y : y + h, x : x + w] += estimate * window
                weight[..., y : y + h, x : x + w] += window
        return total / weight


def _window(size: int) -> Tensor:
    """A raised cosine that is nowhere 0, (size,)."""
    return torch.sin(torch.pi * (torch.arange(size) + 0.5) / size).square() + 1e-3
