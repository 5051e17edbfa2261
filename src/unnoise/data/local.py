"""Sources on the user's own disk: a folder, arrays, and the digits that scikit-learn carries.

Nothing that a source holds is executed: arrays that need unpickling are refused.
"""

import gzip
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unnoise.data.cache import Listing, read_listing
from unnoise.data.decode import EXTENSIONS, Fit
from unnoise.data.pictures import Pictures, Source
from unnoise.errors import UserError


@dataclass(frozen=True)
class Digits(Source):
    """scikit-learn's 1,797 handwritten digits (UCI), 8x8 grey, embedded in that package."""

    def read(self, fit: Fit, cache: Path | None = None) -> Pictures:
        from sklearn.datasets import load_digits

        raw = load_digits()
        pixels = np.round(raw.images / 16 * 255).astype(np.uint8)
        return Pictures(fit.array(pixels[..., None]), raw.target.astype(np.int64), tuple("0123456789"))


@dataclass(frozen=True)
class Folder(Source):
    """Every picture below a folder, in the order of their paths; `subfolders` takes the first folder below as the class."""

    path: str = ""
    subfolders: bool = False

    def read(self, fit: Fit, cache: Path | None = None) -> Pictures:
        root = Path(self.path)
        if not root.is_dir():
            raise UserError(f"no folder '{root}': give the folder that holds your pictures")
        skipped: list[str] = []
        found = sorted(_pictures_below(root, skipped))
        if not found:
            raise UserError(f"no pictures in '{root}': looked for {', '.join(sorted(EXTENSIONS))} in it and below"
                            + (f"; the first of {len(skipped)} that are no files: {skipped[0]}" if skipped else ""))  # fmt: skip
        names = [str(path.relative_to(root)) for path, _ in found]
        stamps = [f"{s.st_size} {s.st_mtime_ns}" for _, s in found]
        labels, classes = self._labels(names) if self.subfolders else (None, ())
        listing = Listing(str(root.resolve()), names, lambda k: found[k][0], stamps, labels, classes, skipped=tuple(skipped))
        return read_listing(listing, fit, cache)

    def _labels(self, names: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
        parents = [Path(name).parts[0] if len(Path(name).parts) > 1 else "" for name in names]
        if "" in parents:
            raise UserError(f"'{names[parents.index('')]}' lies in no sub-folder of '{self.path}', so it has no class: "
                            "move it into one or train without --data.source.subfolders")  # fmt: skip
        classes, index = np.unique(parents, return_inverse=True)
        return index.astype(np.int64), tuple(str(c) for c in classes)


def _pictures_below(root: Path, skipped: list[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """Files with a picture's extension; links to files are followed, links to folders are not."""

    def fail(error: OSError) -> None:
        skipped.append(f"{str(Path(error.filename).relative_to(root))!r}: {error.strerror}")

    for folder, subfolders, names in os.walk(root, onerror=fail):
        for name in [*names, *subfolders]:
            path = Path(folder) / name
            if path.suffix.lower() not in EXTENSIONS:
                continue
            try:
                found = path.stat()
            except OSError as e:
                skipped.append(f"{str(path.relative_to(root))!r}: {e.strerror}")
                continue
            if stat.S_ISREG(found.st_mode):
                yield path, found
            else:
                skipped.append(f"{str(path.relative_to(root))!r}: not a file")


@dataclass(frozen=True)
class Array(Source):
    """An .npz or .npy: uint8 (N, H, W) or (N, H, W, 1 or 3), in an .npz its first array or `images`/`x`.

    Labels from `labels`/`y`.
    """

    path: str = ""

    def read(self, fit: Fit, cache: Path | None = None) -> Pictures:
        pixels, labels = self._arrays()
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
            raise UserError(f"'{self.path}' holds {pixels.dtype} of shape {pixels.shape}: pictures must be uint8 "
                            "of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3)")  # fmt: skip
        if len(pixels) == 0:
            raise UserError(f"'{self.path}' holds no pictures: its array has shape {pixels.shape}")
        pixels = fit.array(pixels)
        if labels is None:
            return Pictures(pixels)
        if labels.shape != (len(pixels),):
            raise UserError(f"'{self.path}' has labels of shape {labels.shape} for {len(pixels)} pictures: give one each")
        names, index = np.unique(labels, return_inverse=True)
        return Pictures(pixels, index.astype(np.int64), tuple(str(n) for n in names))

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


@dataclass(frozen=True)
class Idx(Source):
    """The idx files of MNIST and its kin (LeCun 1998), plain or .gz: one file of pictures, or the folder of all four.

    Labels come from the file beside it; in a folder the `t10k` (or `test`) pictures are held out.
    """

    path: str = ""

    def read(self, fit: Fit, cache: Path | None = None) -> Pictures:
        path = Path(self.path)
        files = sorted(f for f in path.iterdir() if "images" in f.name and "idx3" in f.name) if path.is_dir() else [path]
        if not files:
            raise UserError(f"no idx files in '{path}': looked for names like train-images-idx3-ubyte.gz")
        parts = [read_idx(f) for f in files]
        if any(p.ndim != 3 for p in parts):
            raise UserError(f"'{files[0]}' does not hold pictures: it has {parts[0].ndim} dimensions where pictures have 3")
        is_test = np.repeat([f.name.startswith(("t10k", "test")) for f in files], [len(p) for p in parts])
        found = [f.with_name(f.name.replace("images", "labels").replace("idx3", "idx1")) for f in files]
        labels = np.concatenate([read_idx(f) for f in found]).astype(np.int64) if all(f.is_file() for f in found) else None
        pixels = np.concatenate(parts)[..., None]
        if labels is not None and len(labels) != len(pixels):
            raise UserError(f"'{path}' has {len(labels)} labels for {len(pixels)} pictures")
        classes = () if labels is None else tuple(str(c) for c in range(int(labels.max()) + 1))
        return Pictures(fit.array(pixels), labels, classes, is_test if is_test.any() and not is_test.all() else None)


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


def from_dataset(dataset: Any, fit: Fit | None = None, classes: tuple[str, ...] = ()) -> Pictures:
    """A `torch.utils.data.Dataset` of pictures, or of (picture, label), read once into memory.

    A picture is a Pillow one, a uint8 array (H, W) or (H, W, C), or a tensor (C, H, W), uint8 or in [0, 1]. All must come
    to one size, by themselves or by `fit`. Raises UserError naming the first that does not fit.
    """
    read: list[np.ndarray] = []
    labels: list[int] = []
    for k in range(len(dataset)):
        item = dataset[k]
        picture, label = item if isinstance(item, tuple) else (item, None)
        pixels = _pixels(picture, k)
        read.append((fit or Fit()).array(pixels[None])[0])
        if read[k].shape != read[0].shape:
            raise UserError(f"picture {k} has shape {read[k].shape} where picture 0 has {read[0].shape}: give a fit with a size")
        if label is not None:
            labels.append(int(label))
    if not read:
        raise UserError("the dataset holds no pictures")
    names = classes or tuple(str(c) for c in range(max(labels, default=-1) + 1))
    return Pictures(np.stack(read), np.array(labels, dtype=np.int64) if labels else None, names)


def _pixels(picture: Any, k: int) -> np.ndarray:
    """uint8 (H, W, C)."""
    if isinstance(picture, torch.Tensor):
        array = picture.detach().cpu().numpy().transpose(1, 2, 0) if picture.ndim == 3 else picture.detach().cpu().numpy()
        if array.dtype.kind == "f":
            if array.min() < 0 or array.max() > 1:
                raise UserError(f"picture {k} is a tensor from {array.min():.3g} to {array.max():.3g}: give uint8, or [0, 1]")
            array = np.round(array * 255).astype(np.uint8)
    else:
        array = np.asarray(picture)
    array = array[..., None] if array.ndim == 2 else array
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3):
        raise UserError(f"picture {k} is {array.dtype} of shape {array.shape}: give uint8, grey or RGB")
    return array
