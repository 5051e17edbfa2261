"""Arrays as sources: .npz and .npy files, idx files, the digits of scikit-learn, and images already in memory.

Arrays that need unpickling are refused: nothing that a source holds is executed.
"""

import gzip
import operator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unnoise.data.dataset import ImageDataset, Source
from unnoise.data.decode import Fit
from unnoise.utils.errors import UserError


@dataclass(frozen=True)
class Digits(Source):
    """scikit-learn's 1,797 handwritten digits (UCI), 8x8 grey, which that package contains."""

    def read(self, fit: Fit, cache: Path | None = None) -> ImageDataset:
        from sklearn.datasets import load_digits

        raw = load_digits()
        pixels = np.round(raw.images / 16 * 255).astype(np.uint8)
        return ImageDataset(fit.array(pixels[..., None]), raw.target.astype(np.int64), tuple("0123456789"))

    def own_size(self) -> tuple[int, int] | None:
        return 8, 8


@dataclass(frozen=True)
class Array(Source):
    """An .npz or .npy: uint8 (N, H, W) or (N, H, W, 1 or 3), in an .npz its first array or `images`/`x`.

    Labels from `labels`/`y`.
    """

    path: str = ""

    def read(self, fit: Fit, cache: Path | None = None) -> ImageDataset:
        pixels, labels = self._arrays()
        pixels = fit.array(check_pixels(pixels, f"'{self.path}'"))
        if labels is None:
            return ImageDataset(pixels)
        if labels.shape != (len(pixels),):
            raise UserError(f"'{self.path}' has labels of shape {labels.shape} for {len(pixels)} images: give one each")
        names, index = np.unique(labels, return_inverse=True)
        return ImageDataset(pixels, index.astype(np.int64), tuple(str(n) for n in names))

    def own_size(self) -> tuple[int, int] | None:
        h, w = check_pixels(self._arrays()[0], f"'{self.path}'").shape[1:3]
        return h, w

    def _arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
        try:
            opened = np.load(self.path, allow_pickle=False)
            if isinstance(opened, np.ndarray):
                return opened, None
            with opened as file:
                names = file.files
                if not names:
                    raise UserError(f"'{self.path}' holds no array")
                pixels = file[next((n for n in ("images", "x") if n in names), names[0])]
                key = next((n for n in ("labels", "y") if n in names), None)
                return pixels, None if key is None else file[key]
        except UserError:
            raise
        except Exception as e:
            raise UserError(f"'{self.path}' can't be read as plain arrays ({e}): "
                            "save it with numpy.savez(file, images=array)") from e  # fmt: skip


def check_pixels(pixels: np.ndarray, where: str) -> np.ndarray:
    """uint8 (N, H, W) or (N, H, W, 1 or 3) as (N, H, W, C). Raises UserError, naming `where`, for anything else."""
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
        raise UserError(f"{where} holds {pixels.dtype} of shape {pixels.shape}: images must be uint8 "
                        "of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3)")  # fmt: skip
    if len(pixels) == 0:
        raise UserError(f"{where} holds no images: its array has shape {pixels.shape}")
    return pixels


@dataclass(frozen=True, eq=False)
class InMemory(Source):
    """Images given from Python: a uint8 array (N, H, W) or (N, H, W, C), a torch Dataset, or an `ImageDataset`.

    A recipe can't keep them, only their fingerprint: to resume such a run, give them again.
    """

    data: Any = field(default=None, repr=False, metadata={"json": False})

    def read(self, fit: Fit, cache: Path | None = None) -> ImageDataset:
        if self.data is None:
            raise UserError("the images of this run were given from Python and are not in its folder: give them again, "
                            "unnoise.resume(run, data=images)")  # fmt: skip
        if isinstance(self.data, ImageDataset):
            if fit.size in (None, self.data.shape[1:]):
                return self.data
            return replace(self.data, store=fit.array(self.data.pixels), index=None, known_hashes=None)
        if isinstance(self.data, np.ndarray):
            return ImageDataset(fit.array(check_pixels(self.data, "the array")))
        return from_dataset(self.data, fit)

    def own_size(self) -> tuple[int, int] | None:
        """That of the first image, as it was given."""
        if isinstance(self.data, ImageDataset):
            return self.data.shape[1:]
        if isinstance(self.data, np.ndarray):
            h, w = check_pixels(self.data, "the array").shape[1:3]
        else:
            h, w = from_dataset(self.data, first=1).shape[1:]
        return h, w


@dataclass(frozen=True)
class Idx(Source):
    """The idx files of MNIST and its kin (LeCun 1998), plain or .gz: one file of images, or the folder of all four.

    Labels come from the file beside it; in a folder the `t10k` (or `test`) images are held out.
    """

    path: str = ""

    def read(self, fit: Fit, cache: Path | None = None) -> ImageDataset:
        path, files = Path(self.path), self._files()
        parts = [read_idx(f) for f in files]
        if any(p.ndim != 3 for p in parts):
            raise UserError(f"'{files[0]}' does not hold images: it has {parts[0].ndim} dimensions where images have 3")
        is_test = np.repeat([f.name.startswith(("t10k", "test")) for f in files], [len(p) for p in parts])
        found = [f.with_name(f.name.replace("images", "labels").replace("idx3", "idx1")) for f in files]
        labels = np.concatenate([read_idx(f) for f in found]).astype(np.int64) if all(f.is_file() for f in found) else None
        pixels = np.concatenate(parts)[..., None]
        if labels is not None and len(labels) != len(pixels):
            raise UserError(f"'{path}' has {len(labels)} labels for {len(pixels)} images")
        classes = () if labels is None else tuple(str(c) for c in range(int(labels.max()) + 1))
        return ImageDataset(fit.array(pixels), labels, classes, is_test if is_test.any() and not is_test.all() else None)

    def own_size(self) -> tuple[int, int] | None:
        shape = read_idx(self._files()[0]).shape
        return (shape[1], shape[2]) if len(shape) == 3 else None

    def _files(self) -> list[Path]:
        path = Path(self.path)
        files = sorted(f for f in path.iterdir() if "images" in f.name and "idx3" in f.name) if path.is_dir() else [path]
        if not files:
            raise UserError(f"no idx files in '{path}': looked for names like train-images-idx3-ubyte.gz")
        return files


def read_idx(path: Path) -> np.ndarray:
    """uint8 of any shape. Raises UserError for anything else."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, dimensions = raw[:2], raw[2], raw[3]
        if zero != b"\0\0" or kind != 8:
            raise ValueError("it does not begin as one of bytes")
        shape = np.frombuffer(raw, ">u4", dimensions, 4).astype(int)
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError) as e:
        raise UserError(f"'{path}' can't be read as an idx file ({e})") from e


def from_dataset(dataset: Any, fit: Fit | None = None, classes: tuple[str, ...] = (), first: int | None = None) -> ImageDataset:
    """A `torch.utils.data.Dataset` of images, or of (image, label), read once into memory; of it the `first` (None: all).

    An image is a Pillow one, a uint8 array (H, W) or (H, W, C), or a tensor (C, H, W), uint8 or in [0, 1]; a label is a whole
    number from 0. All images must come to one size, by themselves or by `fit`. Raises UserError naming the first that does not
    fit.
    """
    read: list[np.ndarray] = []
    labels: list[int] = []
    for k in range(len(dataset) if first is None else min(first, len(dataset))):
        try:
            item = dataset[k]
        except (KeyError, TypeError) as e:
            raise UserError(f"item {k} of the dataset can't be read ({type(e).__name__}: {e}): give a sequence") from e
        image, label = (*item, None)[:2] if isinstance(item, tuple | list) else (item, None)
        pixels = _pixels(image, k)
        read.append((fit or Fit()).array(pixels[None])[0])
        if read[k].shape != read[0].shape:
            raise UserError(f"image {k} has shape {read[k].shape} where image 0 has {read[0].shape}: give a fit with a size")
        if (label is None) != (len(labels) < k) and k:
            raise UserError(f"image {k} has {'no' if label is None else 'a'} label, unlike image 0: give one to all or to none")
        if label is not None:
            labels.append(_label(label, k))
    if not read:
        raise UserError("the dataset holds no images")
    names = classes or tuple(str(c) for c in range(max(labels, default=-1) + 1))
    return ImageDataset(np.stack(read), np.array(labels, dtype=np.int64) if labels else None, names)


def _label(label: Any, k: int) -> int:
    try:
        number = operator.index(label)
    except (TypeError, ValueError, RuntimeError):
        number = -1
    if number < 0:
        raise UserError(f"the label of image {k} is {label!r}: give whole numbers from 0")
    return number


def _pixels(image: Any, k: int) -> np.ndarray:
    """uint8 (H, W, C)."""
    if isinstance(image, torch.Tensor):
        array = image.detach().cpu().numpy().transpose(1, 2, 0) if image.ndim == 3 else image.detach().cpu().numpy()
        if array.dtype.kind == "f":
            if array.min() < 0 or array.max() > 1:
                raise UserError(f"image {k} is a tensor from {array.min():.3g} to {array.max():.3g}: give uint8, or [0, 1]")
            array = np.round(array * 255).astype(np.uint8)
    else:
        array = np.asarray(image)
    array = array[..., None] if array.ndim == 2 else array
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3):
        raise UserError(f"image {k} is {array.dtype} of shape {array.shape}: give uint8, grey or RGB")
    return array
