"""Which images `unnoise restore` restores, and where their results go."""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from unnoise.data.kinds import BY_EXTENSION
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


@dataclass
class Images:
    """The images to restore, what is `left_out` of folders, and how many of these are images that can't be read."""

    places: list[Place] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unread: int = 0


def find_images(given: tuple[Path, ...], out: Path) -> Images:
    """Images as they were given, and those that training would find in folders and below, without what is in `out`.

    Images that differ in their endings alone keep these in their results' names.
    """
    images = Images()
    for path in given:
        if path.is_dir():
            _add_folder(images, path, out)
        else:
            images.places.append(Place(path, PurePath(path.stem)))
    if not images.places:
        raise UserError("give at least one image to restore")
    count = Counter(place.name for place in images.places)
    images.places = [replace(p, name=p.name.with_name(p.path.name)) if count[p.name] > 1 else p for p in images.places]
    return images


def _add_folder(images: Images, folder: Path, out: Path) -> None:
    from unnoise.data.walk import walk

    found = walk(folder, remedy="give them by their names")
    within = folder.resolve() != out.resolve()
    inside = [name for name in map(PurePath, found.images) if not (within and _is_below(folder / name, out))]
    why = [*found.left_out.notes(), *(f"left out: {reason}" for reason in found.skipped)]
    if not inside and (folder / "recipe.json").is_file():
        raise UserError(f"'{folder}' is a run, which comes first: 'unnoise restore {folder} IMAGE'")
    if not inside:
        raise UserError("; ".join([f"no images in '{folder}' or below to restore", *why]))
    images.places += [Place(folder / name, name.with_name(name.stem)) for name in inside]
    images.left_out += why
    images.unread += found.unread + len(found.skipped)


def _is_below(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents


def refuse_overwriting(places: list[Place], mask: Path | None, out: Path, overwrite: bool) -> None:
    """Raises UserError where a result would replace an image, the mask, another result or, unless `overwrite`, another file.

    And where `out`, a folder, has the name of an image.
    """
    if out.suffix.lower() in BY_EXTENSION and not out.is_dir():
        raise UserError(f"--out is a folder for the results, and '{out}' is the name of an image: --out {out.with_suffix('')}")
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
