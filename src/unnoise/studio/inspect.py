"""What is in images that one may train on, before anything is trained."""

import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from unnoise import figures
from unnoise.data.cache import FileSource, Listing
from unnoise.data.dataset import ImageDataset, Source
from unnoise.data.decode import decode
from unnoise.data.fit import Fit
from unnoise.data.folder import ImageFolder
from unnoise.data.sources import find_source, names
from unnoise.data.survey import survey
from unnoise.presets import DEFAULT_SIDE, fit_size
from unnoise.runs.places import run_name
from unnoise.studio import pixels
from unnoise.studio.errors import Refusal
from unnoise.studio.requests import Fields, api_of, read_fields
from unnoise.utils.errors import UserError
from unnoise.utils.rng import stream

if TYPE_CHECKING:
    from unnoise.studio.api import Api

SHEET, SIDE, COLUMNS = 32, 64, 8  # images of a contact sheet, pixels of each, images in a row
LISTED = 100  # files that are named
REASON = re.compile(r"(['\"])(.*)\1: (.*)", re.DOTALL)
Json = dict[str, Any]


def data_of(api: "Api", fields: Fields) -> str:
    """What to train on, from the fields `path` or `folder`: the name of a data set, or an absolute path.

    Raises Refusal for what can't be had here: another machine's browser names no paths, and nothing is fetched.
    """
    path, folder = fields.text("path", None), fields.text("folder", None)
    fields.end()
    if (path is None) == (folder is None):
        raise Refusal(400, "images are a `path` or a `folder` that was sent: give one of them")
    if folder is not None:
        return str(api.uploads.data(str(folder)))
    if path in names():
        return str(path)
    if not api.is_local:
        raise Refusal(403, "paths are for the machine that the studio runs on: drop a folder instead")
    if str(path).startswith("hf:"):
        raise Refusal(400, "the studio fetches nothing: train on the hub's data sets with the command, as in the docs")
    return str(Path(str(path)).expanduser().absolute())


async def inspect(request: Request) -> Response:
    api = api_of(request)
    data = data_of(api, await read_fields(request))
    return JSONResponse(await run_in_threadpool(describe, data))


def describe(data: str) -> Json:
    """Counts, sizes, classes, what can't be read, a size to train at, and a contact sheet. Raises UserError."""
    source = find_source(data)
    found = _of_files(source, source.listing()) if isinstance(source, FileSource) else _of_arrays(source)
    return {"name": run_name(data), **found}


def _of_files(source: Source, listing: Listing) -> Json:
    found = survey(listing, Fit())
    if found.usual is None:
        raise UserError(f"no image in '{listing.where}' can be read, the first: {found.skipped[0]}")
    names = dict(found.rows)
    return {"images": len(found.sizes), "unreadable": [_split(reason) for reason in found.skipped[:LISTED]],
            "sizes": _counted(found.sizes), "classes": (classes := _classes(source)), "labels": "folder" if classes else None,
            "suggested_size": list(fit_size(found.usual)),
            "notes": [text for name, text in found.rows if name == "files"], "short_side": names.get("short side"),
            "sheet": _sheet(len(listing.names), lambda k: _thumbnail(listing, k))}  # fmt: skip


def _of_arrays(source: Source) -> Json:
    images: ImageDataset = source.read(Fit())
    h, w = images.shape[1:]
    size = (h, w) if max(h, w) <= DEFAULT_SIDE else fit_size((h, w))
    return {"images": len(images), "unreadable": [_split(reason) for reason in images.skipped[:LISTED]],
            "sizes": [{"size": [h, w], "count": len(images)}], "classes": list(images.classes),
            "labels": "own" if images.classes else None, "suggested_size": list(size), "notes": list(images.notes),
            "short_side": None,
            "sheet": _sheet(len(images), lambda k: images.read(np.array([k]))[0])}  # fmt: skip


def _classes(source: Source) -> list[str]:
    """Those that sub-folders would be, where each image lies in one."""
    if not isinstance(source, ImageFolder):
        return []
    with suppress(UserError):
        classes = ImageFolder(source.path, subfolders=True).listing().classes
        return list(classes) if len(classes) > 1 else []
    return []


def _counted(sizes: tuple[tuple[int, int], ...]) -> list[Json]:
    return [{"size": list(size), "count": n} for size, n in Counter(sizes).most_common(5)]


def _split(reason: str) -> Json:
    """`'name': why` in its two parts."""
    found = REASON.fullmatch(reason)
    return {"name": found[2], "why": found[3]} if found else {"name": "", "why": reason}


def _thumbnail(listing: Listing, k: int) -> np.ndarray:
    crop = listing.crop
    image = decode(listing.open_file(k), Fit((SIDE, SIDE)), None if crop is None else lambda opened: crop(k, opened))
    return np.asarray(image.convert("RGB"))


def _sheet(count: int, read: Callable[[int], np.ndarray]) -> Json | None:
    """Some of the images, drawn at random; those that can't be read are left out."""
    found: list[np.ndarray] = []
    for k in stream(0, "figure").permutation(count)[: 2 * SHEET]:
        with suppress(Exception):  # any decoder may fail in its own way, and the file is named elsewhere
            found.append(read(int(k)))
        if len(found) == SHEET:
            break
    if not found:
        return None
    sheet = figures.grid(np.stack(found), COLUMNS)
    return pixels.to_json(np.asarray(sheet).reshape(sheet.height, sheet.width, -1))
