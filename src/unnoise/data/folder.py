"""A folder of image files as a source. Nothing that it holds is executed."""

import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unnoise.data.cache import FileSource, Listing
from unnoise.data.decode import read_header
from unnoise.data.notes import CROPPED, kept_by_crop
from unnoise.data.walk import walk
from unnoise.utils.errors import UserError

LOOKED_AT = 200  # files whose headers say how large the images are
FEW = 0.2  # of the images, that may have another shape than most
TRAIN, HELD_OUT = ("train", "training"), ("val", "valid", "validation", "test", "testing")


@dataclass(frozen=True)
class ImageFolder(FileSource):
    """Every image below a folder, in the order of their paths; those below `test` or `val` beside `train` are held out.

    `size`, a side or (height, width), is the one that they are read at unless the recipe says another. `subfolders` takes the
    name of the first folder below `path` (or below `train`) as the class. `generated` takes also images that this program
    wrote. `union` trains on `test` and `val` too.
    """

    path: str = ""
    size: int | tuple[int, int] | None = None
    subfolders: bool = False
    generated: bool = False
    union: bool = False

    def listing(self) -> Listing:
        root = Path(self.path)
        if not root.is_dir():
            raise UserError(f"no folder '{root}': give the folder that holds your images")
        found = walk(root, self.generated)
        left_out = found.left_out.notes()
        if not found.images:
            why = [*left_out, *(f"not read: {reason}" for reason in found.skipped[:1])]
            raise UserError(f"no images in '{root}' or below" + "".join(f"; {reason}" for reason in why))
        names = list(found.images)
        parts = [name.split(os.sep) for name in names]  # noqa: PTH206  (faster)
        stamps = [f"{state.st_size} {state.st_mtime_ns}" for state in found.images.values()]
        test, inner, notes = self._split(parts)
        labels, classes = self._labels(names, inner) if self.subfolders else (None, ())
        if empty := self._empty_classes(found.folders, classes, inner is not parts):
            notes.append(f"classes without an image that is used: {', '.join(map(repr, empty))}")
        return Listing(str(root.resolve()), names, lambda k: root / names[k], stamps, labels, classes, test,
                       skipped=tuple(found.skipped), notes=(*left_out, *notes))  # fmt: skip

    def own_size(self) -> tuple[int, int] | None:
        names = list(walk(Path(self.path), self.generated).images)
        sizes = []
        for k in np.linspace(0, len(names) - 1, min(len(names), LOOKED_AT)).round().astype(int):
            with suppress(Exception):  # a file that no decoder can read is left out when all are read
                header = read_header(Path(self.path) / names[k])
                sizes.append((header.height, header.width))
        return usual_size(sizes)

    def _split(self, parts: list[list[str]]) -> tuple[np.ndarray | None, list[list[str]], list[str]]:
        """Which images are test images, the parts of the names within the split, and what is to be said of it."""
        tops = [part[0] if len(part) > 1 else "" for part in parts]
        counts = Counter(tops)
        train, held_out = ([top for top in counts if top.lower() in names] for names in (TRAIN, HELD_OUT))
        beside = [top for top in counts if top not in (*train, *held_out)]
        if held_out and not train:
            return None, parts, [f"no folder 'train' beside '{held_out[0]}': it is taken as any other folder"]
        if not train or (beside and not held_out):
            return None, parts, []
        inner = [part[1:] if top in (*train, *held_out) else part for part, top in zip(parts, tops, strict=True)]
        if not held_out or self.union:
            return None, inner, []
        notes = ["split by folders: "
                 + ", ".join(f"{counts[top]} in '{top}' {'held out' if top in held_out else 'to train on'}"
                             for top in (*train, *held_out))
                 + "; data.source.union true trains on all"]  # fmt: skip
        if beside:
            notes.append(f"beside these {sum(counts[top] for top in beside)} images, e.g. in '{beside[0] or self.path}', are to "
                         "train on")  # fmt: skip
        return np.isin(tops, held_out), inner, notes

    def _empty_classes(self, folders: list[str], classes: tuple[str, ...], split: bool) -> list[str]:
        """Folders that would be classes if they held images."""
        parts = [folder.split(os.sep) for folder in folders if folder]  # noqa: PTH206  (faster)
        inner = [part[1:] if split and part[0].lower() in TRAIN + HELD_OUT else part for part in parts]
        return sorted({part[0] for part in inner if part} - set(classes)) if classes else []

    def _labels(self, names: list[str], parts: list[list[str]]) -> tuple[np.ndarray, tuple[str, ...]]:
        parents = [part[0] if len(part) > 1 else "" for part in parts]
        if "" in parents:
            raise UserError(f"'{names[parents.index('')]}' lies in no sub-folder of '{self.path}', so it has no class: "
                            "move it into one or train without data.source.subfolders")  # fmt: skip
        classes, index = np.unique(parents, return_inverse=True)
        return index.astype(np.int64), tuple(str(c) for c in classes)


def usual_size(sizes: list[tuple[int, int]]) -> tuple[int, int] | None:
    """(height, width) of all, None of none; of several a square of the median short side, or the median where a square would cut
    much of the usual image, and little is cut of most at the median's shape."""
    if not sizes:
        return None
    heights, widths = np.array(sizes).T
    if len(set(sizes)) == 1:
        return sizes[0]
    h, w = int(np.median(heights)), int(np.median(widths))
    by_square, by_usual = (kept_by_crop(widths / heights, target) for target in (1.0, w / h))
    if np.median(by_square) < CROPPED <= np.percentile(by_usual, 100 * FEW):
        return h, w
    side = int(np.median(np.minimum(heights, widths)))
    return side, side
