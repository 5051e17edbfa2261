"""Pictures as uint8 arrays, in memory or on disk, and the split into trained on and held out."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unnoise.data.decode import Fit
from unnoise.errors import UserError

Which = np.ndarray | slice


class OnDisk:
    """Pictures in a .npy file. It is mapped anew for each reading, so what was read does not stay resident."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shape: tuple[int, ...] = self._map().shape

    def _map(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")  # type: ignore[no-any-return]

    def __getitem__(self, which: Which) -> np.ndarray:
        return np.array(self._map()[which])


@dataclass(frozen=True)
class Pictures:
    """uint8 pictures with what is known of them. Index with `read` and `tensor`; `pixels` brings all into memory.

    `store` (M, H, W, C) holds them, `index` (N,) says which of it these are (None: all). `labels` int64 (N,) or None, and
    their names `classes`. `test` (N,) marks the set's own test pictures, None where it has no such split. `skipped` are
    the files that could not be read, with the reason; `notes` what was done to others. `divided`: each of several
    processes has its own.
    """

    store: np.ndarray | OnDisk
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    test: np.ndarray | None = None
    index: np.ndarray | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    known_hashes: np.ndarray | None = None
    divided: bool = False

    def __len__(self) -> int:
        return self.store.shape[0] if self.index is None else len(self.index)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width), as networks count."""
        _, h, w, c = self.store.shape
        return c, h, w

    def read(self, which: Which) -> np.ndarray:
        """The chosen pictures, uint8 (B, H, W, C)."""
        return self.store[which if self.index is None else self.index[which]]

    def tensor(self, which: Which = slice(None)) -> Tensor:
        """The chosen pictures on [-1, 1], float32 (B, C, H, W)."""
        return torch.tensor(self.read(which)).permute(0, 3, 1, 2).float() / 127.5 - 1

    @property
    def pixels(self) -> np.ndarray:
        """All of them, uint8 (N, H, W, C)."""
        return self.read(slice(None))

    def chunks(self, size: int = 1024) -> Iterator[np.ndarray]:
        """All of them, a part at a time."""
        for first in range(0, len(self), size):
            yield self.read(np.arange(first, min(first + size, len(self))))

    def where(self, mask: np.ndarray) -> "Pictures":
        """The pictures at the true places of `mask` (N,)."""
        index = np.flatnonzero(mask) if self.index is None else self.index[mask]
        labels, test = (None if a is None else a[mask] for a in (self.labels, self.test))
        return replace(self, index=index, labels=labels, test=test, known_hashes=self.hashes[mask])

    @cached_property
    def hashes(self) -> np.ndarray:
        """A hash of each picture's content, uint64 (N,)."""
        if self.known_hashes is not None:
            return self.known_hashes
        return np.concatenate([hash_pictures(part) for part in self.chunks()] or [np.empty(0, np.uint64)])

    def fingerprint(self) -> str:
        """A short hash of every pixel and label."""
        digest = hashlib.blake2b(repr(self.shape).encode(), digest_size=8)
        digest.update(self.hashes.tobytes())
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        return digest.hexdigest()


def hash_pictures(pixels: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, C) -> uint64 (B,)."""
    digests = [hashlib.blake2b(np.ascontiguousarray(p).data, digest_size=8).digest() for p in pixels]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


@dataclass(frozen=True)
class Split:
    """What is trained on and what is held out."""

    train: Pictures
    held_out: Pictures


def split(pictures: Pictures, share: float) -> Split:
    """Hold out the set's own test pictures or, where it has none, each picture whose content hashes into `share`.

    By content, adding pictures moves none. A copy of a held-out picture is held out too. Raises UserError if nothing is
    left to train on.
    """
    hashes = pictures.hashes
    held = hashes / 2**64 < share if pictures.test is None else pictures.test
    held = held | np.isin(hashes, hashes[held])
    if held.all():
        raise UserError(f"all {len(pictures)} pictures are held out: add pictures or lower --data.held-out")
    return Split(pictures.where(~held), pictures.where(held))


class Source(ABC):
    """A set of pictures."""

    @abstractmethod
    def read(self, fit: Fit, cache: Path | None = None) -> Pictures:
        """All of it, fitted to one size; files are decoded once into the folder `cache` (None: the user's own).

        Raises UserError where there is nothing usable.
        """
