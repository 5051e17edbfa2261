"""A folder of image files as a source. Nothing that it holds is executed."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unnoise.data.cache import Listing, read_listing
from unnoise.data.dataset import ImageDataset, Source
from unnoise.data.decode import EXTENSIONS, Fit, read_header
from unnoise.utils.errors import UserError

LOOKED_AT = 200  # files whose headers say how large the images are


@dataclass(frozen=True)
class ImageFolder(Source):
    """Every image below a folder, in the order of their paths.

    `size`, a side or (height, width), is the one that they are read at unless the recipe says another. `subfolders` takes the
    name of the first folder below `path` as the class.
    """

    path: str = ""
    size: int | tuple[int, int] | None = None
    subfolders: bool = False

    def read(self, fit: Fit, cache: Path | None = None) -> ImageDataset:
        root = Path(self.path)
        if not root.is_dir():
            raise UserError(f"no folder '{root}': give the folder that holds your images")
        skipped: list[str] = []
        found = sorted(_images_below(root, skipped))
        if not found:
            raise UserError(f"no images in '{root}': looked for {', '.join(sorted(EXTENSIONS))} in it and below"
                            + (f"; the first of {len(skipped)} that are no files: {skipped[0]}" if skipped else ""))  # fmt: skip
        names = [str(path.relative_to(root)) for path, _ in found]
        stamps = [f"{s.st_size} {s.st_mtime_ns}" for _, s in found]
        labels, classes = self._labels(names) if self.subfolders else (None, ())
        listing = Listing(str(root.resolve()), names, lambda k: found[k][0], stamps, labels, classes, skipped=tuple(skipped))
        return read_listing(listing, fit, cache)

    def own_size(self) -> tuple[int, int] | None:
        found = sorted(path for path, _ in _images_below(Path(self.path), []))
        sizes = []
        for k in np.linspace(0, len(found) - 1, min(len(found), LOOKED_AT)).round().astype(int):
            with suppress(Exception):  # a file that no decoder can read is left out when all are read
                header = read_header(found[k])
                sizes.append((header.height, header.width))
        if not sizes:
            return None
        side = int(np.median([min(size) for size in sizes]))
        return sizes[0] if len(set(sizes)) == 1 else (side, side)

    def _labels(self, names: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
        parents = [Path(name).parts[0] if len(Path(name).parts) > 1 else "" for name in names]
        if "" in parents:
            raise UserError(f"'{names[parents.index('')]}' lies in no sub-folder of '{self.path}', so it has no class: "
                            "move it into one or train without data.source.subfolders")  # fmt: skip
        classes, index = np.unique(parents, return_inverse=True)
        return index.astype(np.int64), tuple(str(c) for c in classes)


def _images_below(root: Path, skipped: list[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """Files with an image's extension; links to files are followed, links to folders are not."""

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
