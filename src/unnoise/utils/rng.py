"""Random draws as pure functions of what they are for.

Every draw is keyed by (seed, purpose, and the numbers that say which draw it is: step, epoch, image). The key is
hashed to the 128 bits of a Philox counter generator (Salmon et al. 2011), so nothing needs to be saved to repeat or
to resume a draw, and no two purposes share a stream. Draws are made on the CPU, so they are the same on every device; but for
training's noise, which is too much to copy (`philox.py`).
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def stream(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """The generator that belongs to one (seed, purpose, numbers)."""
    return np.random.Generator(np.random.Philox(key=key(seed, purpose, *numbers)))


def key(seed: int, purpose: str, *numbers: int) -> int:
    """The 128 bits that belong to one (seed, purpose, numbers)."""
    return int.from_bytes(hashlib.blake2b(repr((seed, purpose, numbers)).encode(), digest_size=16).digest(), "little")


def normal(generator: np.random.Generator, shape: Sequence[int]) -> Tensor:
    """Standard normal draws, float32, of the given shape."""
    return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))


def uniform(generator: np.random.Generator, count: int) -> Tensor:
    """(count,) float32, uniform in (0, 1): the same draw in float64 could round to 1."""
    return torch.from_numpy(generator.random(count)).float().clamp(1e-6, 1 - 1e-6)


class BatchRng:
    """The noise of some numbered images: image 17 gets the same numbers whatever batch it is sampled in.

    Each image has its own stream, read in order, one draw a call.
    """

    def __init__(self, seed: int, numbers: Sequence[int], purpose: str = "sample") -> None:
        self._streams = [stream(seed, purpose, number) for number in numbers]

    def __add__(self, other: "BatchRng") -> "BatchRng":
        """That of these images and then of those."""
        both = BatchRng(0, [])
        both._streams = self._streams + other._streams
        return both

    def normal_like(self, x: Tensor) -> Tensor:
        """Standard normal noise in the shape (B, ...), dtype and device of `x`; B is the number of images."""
        if len(x) != len(self._streams):
            raise ValueError(f"noise for {len(self._streams)} images was asked to fill a batch of {len(x)}")
        return torch.stack([normal(s, x.shape[1:]) for s in self._streams]).to(x)

    def poisson(self, mean: Tensor) -> Tensor:
        """Counts with these means (B, ...)."""
        found = [s.poisson(m.cpu().double().numpy()) for s, m in zip(self._streams, mean, strict=True)]
        return torch.from_numpy(np.stack(found)).to(mean)
