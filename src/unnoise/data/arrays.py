"""Arrays as sources: .npz and .npy files, idx files, the digits of scikit-learn, and images already in memory.

Arrays that need unpickling are refused: nothing that a source holds is executed.
"""

import gzip
import zlib
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unnoise.data.classes import classes_of, encode
from unnoise.data.dataset import ImageDataset, Source
from unnoise.data.fit import Fit
from unnoise.data.layout import order_of, size_of, to_images
from unnoise.data.npz import Entry, choose, load, read_headers
from unnoise.data.torch_datasets import first_size, from_dataset
from unnoise.utils.errors import UserError


@dataclass(frozen=True)
class Digits(Source):
    """scikit-learn's 1,797 handwritten digits (UCI), 8x8 grey, which that package contains."""

    def read(self, fit: Fit, cache: Path | None = None) -> ImageDataset:
        package = find_spec("sklearn")
        assert package is not None and package.origin is not None
        file = Path(package.origin).parent / "datasets/data/digits.csv.gz"  # without importing it: that takes a second
        rows = np.loadtxt(file, delimiter=",", dtype=np.uint8)
        pixels = np.round(rows[:, :64] / 16 * 255).astype(np.uint8)
        return ImageDataset(fit.array(pixels.reshape(-1, 8, 8, 1)), rows[:, 64].astype(np.int64), tuple("0123456789"))

    def own_size(self) -> tuple[int, int] | None:
        return 8, 8


@dataclass(frozen=True)
class Array(Source):
    """An .npz or .npy: uint8 (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W); in an .npz labels and test images by their names.

    `with_labels` says whether labels are wanted (`DataConfig.labels`).
    """

    path: str = ""
    with_labels: bool = field(default=True, repr=False, metadata={"json": False})

    def read(self, fit: Fit, cache: Path | None = None) -> ImageDataset:
        path = Path(self.path)
        parts, notes = choose(path, read_headers(path), self.with_labels)
        found, values = [], []
        for part in parts:
            images, note = to_images(load(path, part.images), self._where(part.images), ranged=fit.range is not None)
            found.append(fit.array(images))
            notes += note
            if found[-1].shape[1:] != found[0].shape[1:]:
                raise UserError(f"{self._where(part.images)} has images of shape {found[-1].shape[1:]}, those of "
                                f"'{parts[0].images.name}' {found[0].shape[1:]}: make them alike, or leave it out")  # fmt: skip
            if part.labels is not None:
                values += classes_of(load(path, part.labels), len(images), self._where(part.labels))
        labels, classes = encode(values) if values else (None, ())
        test = np.repeat(np.arange(len(parts)) > 0, [len(f) for f in found]) if len(parts) > 1 else None
        return ImageDataset(np.concatenate(found) if len(found) > 1 else found[0], labels, classes, test, notes=notes)

    def own_size(self) -> tuple[int, int] | None:
        path = Path(self.path)
        images = choose(path, read_headers(path), with_labels=False)[0][0].images
        return size_of(images.shape, self._where(images))

    def without_labels(self) -> Source:
        return replace(self, with_labels=False)

    def _where(self, entry: Entry) -> str:
        return f"'{entry.name}' of '{self.path}'" if entry.name else f"'{self.path}'"


@dataclass(frozen=True, eq=False)
class InMemory(Source):
    """Images given from Python: an array or tensor as in a file, an `ImageDataset`, or a Dataset or DataLoader of torch.

    A recipe can't keep them, only their fingerprint: to resume such a run, give them again. `with_labels` says whether labels are
    wanted (`DataConfig.labels`).
    """

    data: Any = field(default=None, repr=False, metadata={"json": False})
    with_labels: bool = field(default=True, repr=False, metadata={"json": False})

    def read(self, fit: Fit, cache: Path | None = None) -> ImageDataset:
        if self.data is None:
            raise UserError("the images of this run were given from Python and are not in its folder: give them again, "
                            "unnoise.resume(run, data=images)")  # fmt: skip
        if isinstance(self.data, ImageDataset):
            if fit.size in (None, self.data.shape[1:]) and fit.range is None and fit.bands is None:
                return self.data
            return replace(self.data, store=fit.array(self.data.pixels), index=None, known_hashes=None)
        if (array := self._array()) is not None:
            images, notes = to_images(array, "the array", ranged=fit.range is not None)
            return ImageDataset(fit.array(images), notes=notes)
        return from_dataset(self.data, fit, self.with_labels)

    def own_size(self) -> tuple[int, int] | None:
        """That of the first image, as it was given."""
        if isinstance(self.data, ImageDataset):
            return self.data.shape[1:]
        array = self._array()
        return first_size(self.data) if array is None else size_of(array.shape, "the array")

    def without_labels(self) -> Source:
        return replace(self, with_labels=False)

    def _array(self) -> np.ndarray | None:
        """Of an array, or a tensor of whole numbers; tensors of floats are read as a Dataset of them is, if of images at all."""
        if isinstance(self.data, torch.Tensor):
            order_of(tuple(self.data.shape), "the tensor")
            return None if self.data.is_floating_point() else self.data.detach().cpu().numpy()
        return self.data if isinstance(self.data, np.ndarray) else None


@dataclass(frozen=True)
class Idx(Source):
    """The idx files of MNIST and its kin (LeCun 1998), plain or .gz: one file of images, or the folder of all four.

    Labels come from the file beside it; in a folder the `t10k` (or `test`) images are held out.
    """

    path: str = ""

    def read(self, fit: Fit, cache: Path | None = None) -> ImageDataset:
        path, files = Path(self.path), self._files()
        parts = [read_idx(f) for f in files]
        for file, part in zip(files, parts, strict=True):
            if part.ndim != 3 or not part.size:
                raise UserError(f"'{file}' does not hold images: it has the shape {part.shape}")
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
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as e:
        raise UserError(f"'{path}' can't be read as an idx file ({e})") from e
