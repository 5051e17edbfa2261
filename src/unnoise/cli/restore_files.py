"""Which images `unnoise restore` restores, and where their results go."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from unnoise.utils.errors import UserError

DETAILS = "details"  # a folder in --out
PARTS = ("degraded", "difference", "std", "strip")
KEY = "unnoise restore"  # of the text in a result


@dataclass(frozen=True)
class Place:
    """An image file, and the name of its results below --out: its path below the folder that was given, without its ending."""

    path: Path
    name: PurePath

    def result(self, out: Path) -> Path:
        return out / self.name.parent / f"{self.name.name}.png"

    def detail(self, out: Path, part: str) -> Path:
        return out / DETAILS / self.name.parent / f"{self.name.name}-{part}.png"


def find_images(given: tuple[Path, ...], out: Path) -> list[Place]:
    """Images as they were given, and those in folders and below: without hidden ones, results, and what is in `out`.

    Images that differ in their endings alone keep these in their results' names.
    """
    found = [place for path in given for place in (_inside(path, out) if path.is_dir() else [Place(path, PurePath(path.stem))])]
    if not found:
        raise UserError("give at least one image to restore")
    count = Counter(place.name for place in found)
    return [replace(p, name=p.name.with_name(p.path.name)) if count[p.name] > 1 else p for p in found]


def _inside(folder: Path, out: Path) -> Iterator[Place]:
    from unnoise.data.decode import EXTENSIONS

    within = folder.resolve() != out.resolve()
    inside = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in EXTENSIONS and p.is_file()]
    inside = [p for p in inside if not (within and out.resolve() in p.resolve().parents)]
    inside = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    inside = [p for p in inside if not (p.suffix == ".png" and is_result(p))]
    if not inside:
        raise UserError(f"no images in '{folder}' that are not results of restoring: give files or a folder that holds some")
    for path in inside:
        name = path.relative_to(folder)
        yield Place(path, name.with_name(name.stem))


def refuse_overwriting(places: list[Place], mask: Path | None, out: Path, overwrite: bool) -> None:
    """Raises UserError where a result would replace an image, the mask, another result or, unless `overwrite`, another file."""
    results = [place.result(out) for place in places]
    written = [*results, *(place.detail(out, part) for place in places for part in PARTS)]
    count = Counter(p.resolve() for p in (*(place.path for place in places), *([mask] if mask else []), *written))
    twice = next((path for path, n in count.items() if n > 1), None)
    if twice is not None:
        raise UserError(f"'{twice.name}' would be written over: choose another --out, or restore images of one name apart")
    for path in () if overwrite else written:
        if path.exists() and not is_result(path):
            raise UserError(f"'{path}' is there already and no result of restoring: choose another --out, or --overwrite it")


def is_result(path: Path) -> bool:
    """Whether a file is a PNG that restoring wrote."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as opened:
            return KEY in opened.info
    except (OSError, ValueError):
        return False
