""".npz and .npy files: which of their arrays are the images, which their labels, which are held out, by the usual names.

Only headers are read to decide, and nothing is ever unpickled. Where no name is known a single array of images is taken, several
are refused. What is used and what is not is said.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple
from zipfile import ZipFile, is_zipfile

import numpy as np
from numpy.lib import format as npy

from unnoise.data.classes import NO_LABELS
from unnoise.data.layout import order_of
from unnoise.utils.errors import UserError

SPLITS = {"training": "train", "train": "train", "trn": "train", "tr": "train", "validation": "val", "valid": "val", "val": "val",
          "dev": "val", "testing": "test", "test": "test", "tst": "test", "te": "test"}  # fmt: skip
IMAGES = ("images", "image", "imgs", "img", "pictures", "photos", "pixels", "samples", "data", "xs", "x")
LABELS = ("labels", "label", "targets", "target", "finelabels", "finelabel", "classes", "class", "categories", "category",
          "ys", "y", "coarselabels", "coarselabel")  # fmt: skip
_SPLIT = f"({'|'.join(SPLITS)})?"
NAME = re.compile(f"{_SPLIT}(?:set)?({'|'.join(IMAGES + LABELS)})?(?:set)?{_SPLIT}")  # in small letters and digits alone
HELD_OUT = ("val", "test")


class Entry(NamedTuple):
    """An array as its header describes it. Its name may say the `role`, images or labels, and the `split`, train, val or test."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        return f"'{self.name}' {self.dtype} {self.shape}"

    @property
    def word(self) -> str:
        """The known word in its name."""
        return self._parsed()[1]

    @property
    def split(self) -> str:
        return SPLITS.get("".join(self._parsed()[::2]), "")

    @property
    def role(self) -> str:
        return "labels" if self.word in LABELS else "images" if self.word or self.split else ""

    def _parsed(self) -> tuple[str, str, str]:
        found = NAME.fullmatch(re.sub("[^a-z0-9]", "", self.name.lower()))
        return tuple(g or "" for g in found.groups()) if found else ("", "", "")  # type: ignore[return-value]

    def may_be_images(self, sure: bool = False) -> bool:
        """By its shape; `sure`: also by its numbers."""
        try:
            order_of(self.shape, self.name)
        except UserError:
            return False
        return self.dtype.kind in "biuf" and (not sure or self.dtype in (np.uint8, np.bool_))


class Part(NamedTuple):
    """An array of images that is used, and that of its labels."""

    images: Entry
    labels: Entry | None

    def __str__(self) -> str:
        return f"'{self.images.name}'" + (f" with the labels '{self.labels.name}'" if self.labels else "")


def read_headers(path: Path) -> list[Entry]:
    """The arrays of a file, read no further than their headers. Raises UserError for a file of no plain arrays."""
    with plain_arrays(path), path.open("rb") as file:
        if not is_zipfile(file):
            file.seek(0)
            return [_entry("", file)]
        with ZipFile(file) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            found = []
            for name in members:
                with archive.open(name) as member:
                    found.append(_entry(name.removesuffix(".npy"), member))
    if not found:
        raise UserError(f"'{path}' holds no array: save one with numpy.savez(file, images=array)")
    return found


def _entry(name: str, file: IO[bytes]) -> Entry:
    version = npy.read_magic(file)
    read: Callable[..., tuple[tuple[int, ...], bool, np.dtype]]
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return Entry(name, shape, dtype)


def load(path: Path, entry: Entry) -> np.ndarray:
    """The array itself. Raises UserError for one that would have to be unpickled, or is damaged."""
    with plain_arrays(path):
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            array: np.ndarray = found[entry.name]
            return array


@contextmanager
def plain_arrays(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside is a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:  # a broken file fails in many ways
        raise UserError(f"'{path}' can't be read as plain arrays ({e}): "
                        "save it with numpy.savez(file, images=array)") from e  # fmt: skip


def choose(path: Path, entries: Sequence[Entry], with_labels: bool = True) -> tuple[list[Part], tuple[str, ...]]:
    """The arrays to train on, first, and those held out, with what is to be said of them. Raises UserError for doubtful ones.

    Where those trained on have labels, images without are not held out.
    """
    trained = _trained(path, entries)
    train = Part(trained, _labels(entries, trained, (trained.split, "", "train")) if with_labels else None)
    parts = [train]
    for split in HELD_OUT if trained.split not in HELD_OUT else ():
        images = _pick(path, [e for e in entries if (e.role, e.split) == ("images", split)])
        if images is None or not images.may_be_images():
            continue
        labels = None if train.labels is None else _labels(entries, images, (split,))
        if (labels is None) == (train.labels is None):
            parts.append(Part(images, labels))
    if len(entries) == 1:
        return parts, ()
    used = {e for part in parts for e in part}
    held = f"; held out: {', '.join(str(p) for p in parts[1:])}" if parts[1:] else ""
    unused = [str(e) for e in entries if e not in used]
    return parts, (f"images from {train}{held}", *([f"arrays that are not used: {', '.join(unused)}"] if unused else []))


def _trained(path: Path, entries: Sequence[Entry]) -> Entry:
    """The array to train on: that called `images`, else for training, else of images, else the only one that can be."""
    named = [e for e in entries if e.role == "images"]
    groups = [
        [e for e in entries if e.name == "images"],
        [e for e in named if e.split == "train"],
        [e for e in named if not e.split],
        [e for e in entries if not e.role and e.may_be_images()],
        [e for e in named if e.split in HELD_OUT],
    ]
    found = (_pick(path, group) for group in groups)
    picked = next((e for e in found if e is not None and e.may_be_images()), None)
    likely = picked or next((group[0] for group in groups if group), entries[0])
    if likely.dtype.hasobject:
        raise UserError(f"'{path}' can't be read as plain arrays ('{likely.name}' would have to be unpickled): save it by "
                        "numpy.savez(file, images=numpy.stack(images)), or images of several sizes as files")  # fmt: skip
    if picked is None and len(entries) > 1 and (len(likely.shape) < 2 or likely.role != "images"):
        raise UserError(f"none of the arrays of '{path}' looks like images: it holds {', '.join(map(str, entries))}; "
                        "save (N, H, W) or (N, H, W, 3) as 'images'")  # fmt: skip
    return likely


def _pick(path: Path, group: Sequence[Entry]) -> Entry | None:
    """The array of images among those of the same meaning. Raises UserError if there are several."""
    fits = next((f for f in ([e for e in group if e.may_be_images(sure)] for sure in (True, False)) if f), list(group[:1]))
    if len(fits) > 1:
        raise UserError(f"'{path}' holds {len(fits)} arrays that may be the images, {', '.join(map(str, fits))}: rename the one "
                        "to train on to 'images', and one to hold out to 'test_images'")  # fmt: skip
    return fits[0] if fits else None


def _labels(entries: Sequence[Entry], images: Entry, splits: Sequence[str]) -> Entry | None:
    """The array of the labels of `images`, of the first of the splits that has one."""
    second = next((e for e in entries if (images.name, e.name) == ("arr_0", "arr_1")), None)
    if second and second.shape in ((images.shape[0],), (images.shape[0], 1)) and second.dtype.kind in "biuUS":
        return second
    found = next((f for f in ([e for e in entries if (e.role, e.split) == ("labels", s)] for s in splits) if f), None)
    chosen = min(found, key=lambda e: LABELS.index(e.word)) if found else None
    if chosen and chosen.dtype.hasobject:
        raise UserError(f"'{chosen.name}', the labels of '{images.name}', would have to be unpickled: save labels.astype(str), "
                        f"or {NO_LABELS}")  # fmt: skip
    return chosen
