"""Where the images of a run lie, so that run and images can be moved together."""

import os
import re
from dataclasses import replace
from pathlib import Path

from unnoise.data.dataset import Source

FIELDS = ("path", "root")  # of a source, that are a place on this machine


def relation(source: Source, folder: Path) -> str:
    """The way from a run folder to the images; empty where they lie nowhere, or on another drive."""
    place = _place(source)
    try:
        return "" if place is None else Path(os.path.relpath(place, folder)).as_posix()
    except ValueError:
        return ""


def move(source: Source, place: Path | str) -> Source | None:
    """The same source at another place; None where it lies nowhere."""
    field = _field(source)
    return None if field is None else replace(source, **{field: str(place)})  # type: ignore[type-var]


def candidates(source: Source, folder: Path, relation: str) -> list[Source]:
    """The source where it may be now, the likeliest first: an absolute path as it was, a relative one from the run folder."""
    place, moved = _place(source), move(source, os.path.normpath(folder / relation)) if relation else None
    if place is None or moved is None or os.path.realpath(str(_place(moved))) == os.path.realpath(place):
        return [source]
    both = [source, moved] if Path(place).is_absolute() else [moved, source]
    return [s for s in both if is_there(s)] or [source]


def shown(source: Source) -> str:
    """Where images lie, for a sentence."""
    place = _place(source)
    return str(source) if place is None else f"'{place}'"


def run_name(images: Path | str) -> str:
    """A name for the run folder of images of this name or at this place, which may be one that names no folder, such as `..`."""
    names = (Path(images).stem, Path(images).resolve().name)
    return next(filter(None, (re.sub(r"[^\w.-]+", "-", name).strip("-.") for name in names)), "images")


def _field(source: Source) -> str | None:
    return next((name for name in FIELDS if isinstance(getattr(source, name, None), str)), None)


def _place(source: Source) -> str | None:
    field = _field(source)
    return None if field is None else str(getattr(source, field))


def is_there(source: Source) -> bool:
    """Whether there is a file, a folder, or the folder of what a pattern stands for; also where images lie nowhere."""
    place = _place(source)
    if place is None:
        return True
    return Path(place).exists() or (bool(set(place) & set("*{")) and Path(place).parent.is_dir())
