"""Images as uint8 arrays, in memory or on disk; the split into training and held-out images; what a source of images is."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unnoise.data.fit import Fit
from unnoise.data.pixels import from_uint8
from unnoise.utils.errors import UserError

Index = np.ndarray | slice


class OnDisk:
    """Images in a .npy file, mapped anew for each reading, so that pages read do not stay resident."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shape: tuple[int, ...] = self._map().shape

    def _map(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")  # type: ignore[no-any-return]

    def __getitem__(self, index: Index) -> np.ndarray:
        return np.array(self._map()[index])


@dataclass(frozen=True)
class ImageDataset:
    """uint8 images with what is known of them. Index with `read` and `tensor`; `pixels` brings all into memory.

    `store` (M, H, W, C) holds them, `index` (N,) selects these of it (None: all). `labels` int64 (N,) or None, and
    their names `classes`. `test` (N,) marks the data set's own test images, None where it has no such split. `skipped` are
    the files that could not be read, with the reason; `notes` say what was done to others. `per_process`: each of
    several processes has images of its own.
    """

    store: np.ndarray | OnDisk
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    test: np.ndarray | None = None
    index: np.ndarray | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    known_hashes: np.ndarray | None = None
    per_process: bool = False

    def __len__(self) -> int:
        return self.store.shape[0] if self.index is None else len(self.index)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width), as networks count."""
        _, h, w, c = self.store.shape
        return c, h, w

    def read(self, index: Index) -> np.ndarray:
        """The selected images, uint8 (B, H, W, C)."""
        return self.store[index if self.index is None else self.index[index]]

    def tensor(self, index: Index = slice(None), device: torch.device | str = "cpu") -> Tensor:
        """The selected images on [-1, 1], float32 (B, C, H, W)."""
        return from_uint8(self.read(index), device)

    @property
    def pixels(self) -> np.ndarray:
        """All images, uint8 (N, H, W, C)."""
        return self.read(slice(None))

    def chunks(self, size: int = 1024) -> Iterator[np.ndarray]:
        """All images in order, at most `size` at a time."""
        for first in range(0, len(self), size):
            yield self.read(np.arange(first, min(first + size, len(self))))

    def subset(self, mask: np.ndarray) -> "ImageDataset":
        """The images where `mask` (N,) is true."""
        index = np.flatnonzero(mask) if self.index is None else self.index[mask]
        labels, test = (None if a is None else a[mask] for a in (self.labels, self.test))
        return replace(self, index=index, labels=labels, test=test, known_hashes=self.hashes[mask])

    @cached_property
    def hashes(self) -> np.ndarray:
        """A hash of each image's content, uint64 (N,)."""
        if self.known_hashes is not None:
            return self.known_hashes
        return np.concatenate([hash_images(part) for part in self.chunks()] or [np.empty(0, np.uint64)])

    def fingerprint(self) -> str:
        """A short hash of every pixel and label."""
        digest = hashlib.blake2b(repr(self.shape).encode(), digest_size=8)
        digest.update(self.hashes.tobytes())
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        return digest.hexdigest()


def hash_images(pixels: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, C) -> uint64 (B,)."""
    digests = [hashlib.blake2b(np.ascontiguousarray(p).data, digest_size=8).digest() for p in pixels]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


@dataclass(frozen=True)
class Split:
    """The images to train on and those held out."""

    train: ImageDataset
    held_out: ImageDataset


def split(images: ImageDataset, fraction: float) -> Split:
    """Hold out the data set's own test images or, where it has none, each image whose content hashes into `fraction`.

    By content, so that adding images moves none. A copy of a held-out image is held out too. Raises UserError if nothing is
    left to train on.
    """
    hashes = images.hashes
    held = hashes / 2**64 < fraction if images.test is None else images.test
    held = held | np.isin(hashes, hashes[held])
    if held.all():
        raise UserError(f"all {len(images)} images are held out: add images or lower data.held_out")
    return Split(images.subset(~held), images.subset(held))


class Source(ABC):
    """Where images come from: a frozen dataclass that a recipe keeps."""

    size: "int | tuple[int, int] | None" = None  # that they are read at where nobody says another

    def own_size(self) -> tuple[int, int] | None:
        """(height, width) of the images as they are; of several sizes as in `unnoise.data.folder.usual_size`.

        None where it is not known before all are read.
        """
        return None

    def without_labels(self) -> "Source":
        """The same where labels are not wanted, so that none that can't be used stands in the way."""
        return self

    @abstractmethod
    def read(self, fit: Fit, cache: Path | None = None) -> ImageDataset:
        """All images, fitted to one size; files are decoded once into the folder `cache` (None: the user's own).

        Raises UserError where there is nothing usable.
        """
