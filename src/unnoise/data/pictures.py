"""Pictures as uint8 arrays in memory: decoded, fitted to one size, and split into trained on and held out."""

import hashlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from unnoise.errors import UserError, nearest

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
RESIZES = ("crop", "squash", "pad")


@dataclass(frozen=True)
class Pictures:
    """`pixels` uint8 (N, H, W, C); `labels` int64 (N,) or None, and their names; files skipped, with the reason.

    `test` (N,) marks the set's own test pictures, None where it has no such split.
    """

    pixels: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    test: np.ndarray | None = None

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 4 and self.pixels.dtype == np.uint8, (self.pixels.shape, self.pixels.dtype)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width), as networks count."""
        _, h, w, c = self.pixels.shape
        return c, h, w

    def where(self, mask: np.ndarray) -> "Pictures":
        """The pictures at the true places of `mask` (N,)."""
        labels = None if self.labels is None else self.labels[mask]
        return Pictures(self.pixels[mask], labels, self.classes, self.skipped)

    def tensor(self, index: np.ndarray | slice = slice(None)) -> Tensor:
        """The chosen pictures on [-1, 1], float32 (B, C, H, W)."""
        return torch.tensor(self.pixels[index]).permute(0, 3, 1, 2).float() / 127.5 - 1

    def fingerprint(self) -> str:
        """A short hash of every pixel and label."""
        digest = hashlib.blake2b(repr(self.pixels.shape).encode(), digest_size=8)
        digest.update(self.pixels.tobytes())
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """What is trained on and what is held out."""

    train: Pictures
    held_out: Pictures


def split(pictures: Pictures, share: float) -> Split:
    """Hold out the set's own test pictures or, where it has none, each picture whose content hashes into `share`.

    By content, adding pictures moves none, and copies stay together. Raises UserError if nothing is left to train on.
    """
    held = pictures.test
    if held is None:
        hashes = [hashlib.blake2b(p.tobytes(), digest_size=8).digest() for p in pictures.pixels]
        held = np.array([int.from_bytes(h, "little") / 2**64 < share for h in hashes], dtype=bool)
    if held.all():
        raise UserError(f"all {len(pictures)} pictures are held out: add pictures or lower --data.held-out")
    return Split(pictures.where(~held), pictures.where(held))


@dataclass(frozen=True)
class Fit:
    """To one `size` (height, width), antialiased: cut the longer side's ends, squash, or pad with black. None: as it is."""

    size: tuple[int, int] | None = None
    resize: str = "crop"

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise UserError(f"unknown resize '{self.resize}': {nearest(self.resize, RESIZES)}")
        if self.size is not None and min(self.size) < 1:
            raise UserError(f"the picture size must be positive, not {self.size[0]}x{self.size[1]}")

    def __call__(self, picture: Image.Image) -> Image.Image:
        if self.size is None or picture.size == self.size[::-1]:
            return picture
        to = self.size[::-1]
        if self.resize == "squash":
            return picture.resize(to, Image.Resampling.LANCZOS)
        method = ImageOps.fit if self.resize == "crop" else ImageOps.pad
        return method(picture, to, Image.Resampling.LANCZOS)

    def array(self, pixels: np.ndarray) -> np.ndarray:
        """The same for uint8 (N, H, W, C)."""
        if self.size is None or pixels.shape[1:3] == self.size:
            return pixels
        fitted = [self(Image.fromarray(p.squeeze(2) if p.shape[2] == 1 else p)) for p in pixels]
        return np.stack([np.asarray(p).reshape(*self.size, -1) for p in fitted])


class Source(ABC):
    """A set of pictures."""

    @abstractmethod
    def read(self, fit: Fit) -> Pictures:
        """All of it, fitted to one size. Raises UserError where there is nothing usable."""


def open_picture(path: Path) -> Image.Image:
    """Decode one file wholly: turned as its EXIF says, transparency over white, 16 bits scaled, to L or RGB.

    Raises whatever the decoder raises; a picture too large to be honest is an error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=FORMATS) as opened:
            opened.load()
            picture: Image.Image = ImageOps.exif_transpose(opened)
    if picture.mode.startswith("I"):  # 16-bit grey, which a plain conversion would clip
        wide = np.asarray(picture, dtype=np.float64)
        return Image.fromarray(np.round(wide / 65535 * 255).clip(0, 255).astype(np.uint8))
    if picture.mode == "F":
        raise ValueError("floating-point pictures have no known range")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")


def read_size(files: Sequence[Path]) -> tuple[int, int]:
    """The one size (height, width) that all readable files share. Raises UserError where they differ."""
    sizes = set()
    for path in files:
        try:
            with Image.open(path, formats=FORMATS) as p:
                turned = p.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # EXIF: lies on its side
                sizes.add((p.width, p.height) if turned else (p.height, p.width))
        except Exception:  # named when the file is read in earnest
            continue
    if len(sizes) > 1:
        raise UserError(f"the pictures have {len(sizes)} different sizes: say which to train at, e.g. --size 64")
    return sizes.pop() if sizes else (1, 1)


def read_files(
    files: Sequence[Path], read: Callable[[Path], Image.Image], where: str
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read files of one size on all cores: uint8 (M, H, W, C), which of the files these are, and why others were skipped.

    Grey if all are grey, else RGB. Raises UserError if none can be read.
    """
    from rich.progress import track

    def attempt(path: Path) -> Image.Image | str:
        try:
            return read(path)
        except Exception as e:  # any decoder may fail in its own way on a broken file
            return f"{path}: {e or type(e).__name__}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes and resizes outside the interpreter's lock
        results = track(pool.map(attempt, files), "reading", total=len(files), transient=True, disable=len(files) < 500)
        found = list(results)
    read_ones = [p for p in found if not isinstance(p, str)]
    skipped = tuple(p for p in found if isinstance(p, str))
    if not read_ones:
        raise UserError(f"none of the {len(files)} files in '{where}' can be read as a picture; the first: {skipped[0]}")
    mode = "L" if all(p.mode == "L" for p in read_ones) else "RGB"
    pixels = np.stack([np.asarray(p.convert(mode)).reshape(p.height, p.width, -1) for p in read_ones])
    return pixels, np.array([not isinstance(p, str) for p in found]), skipped
