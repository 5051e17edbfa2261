"""Files that the page sends: images to learn with and to restore, masks, and folders of images to train on.

They lie in RUNS/.studio under names of our own; each is decoded wholly by the decoder of training before it is kept.
"""

import asyncio
import io
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from unnoise.data.decode import decode, read_header
from unnoise.data.fit import Fit
from unnoise.data.kinds import HEAD, kind_of
from unnoise.studio import pixels
from unnoise.studio.errors import Refusal
from unnoise.studio.requests import api_of, read_body, read_fields
from unnoise.utils import atomic

PLACE = ".studio"  # in the folder of runs
MAX_BYTES, MAX_PIXELS = 5 * 2**20, 16 * 10**6
FORMATS = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}
SHOWN = 1024  # pixels of the longer side of an image that is sent back
KEPT = 40  # single images
MAX_FILES, MAX_TOTAL = 20_000, 2**31  # of a folder
MAX_NAME, MAX_DEPTH = 200, 8
KEPT_SECONDS = 7 * 24 * 3600  # of a folder that no training uses
ID = re.compile(r"[0-9a-f]{32}")


class Uploads:
    """What was sent, by ids that nobody can guess."""

    def __init__(self, runs: Path) -> None:
        self.images, self.folders = runs / PLACE / "images", runs / PLACE / "data"
        self._sizes: dict[str, tuple[int, int]] = {}  # files and bytes of each folder

    def add(self, content: bytes) -> tuple[str, np.ndarray]:
        """Keep an image; gives its id and its pixels. Raises Refusal for what is none of ours."""
        found = check(content)
        number = secrets.token_hex(16)
        self.images.mkdir(parents=True, exist_ok=True)
        atomic.write(self.images / f"{number}{kind(content)}", lambda p: p.write_bytes(content))
        for old in sorted(self.images.iterdir(), key=lambda p: p.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
        return number, found

    def path(self, number: str) -> Path:
        """Of an image. Raises Refusal for an id that is none, any more."""
        found = list(self.images.glob(f"{number}.*")) if ID.fullmatch(number) else []
        if not found:
            raise Refusal(404, "this image is gone: choose it again")
        return found[0]

    def new_folder(self) -> str:
        number = secrets.token_hex(16)
        (self.folders / number).mkdir(parents=True)
        self._sizes[number] = (0, 0)
        return number

    def folder(self, number: str) -> Path:
        """Raises Refusal for an id that is none."""
        if not ID.fullmatch(number) or not (self.folders / number).is_dir():
            raise Refusal(404, "this folder is gone: choose it again")
        return self.folders / number

    def data(self, number: str) -> Path:
        """What to train on of a folder: the only folder in it, or itself. Raises Refusal."""
        inside = list(self.folder(number).iterdir())
        return inside[0] if len(inside) == 1 and inside[0].is_dir() else self.folder(number)

    def add_file(self, number: str, name: str, content: bytes) -> None:
        """Keep an image of a folder, under its own name. Raises Refusal for what is none, and for names that lead elsewhere."""
        root, parts = self.folder(number), check_name(name)
        count, size = self._sizes.get(number, (MAX_FILES, 0))  # those of an earlier start are complete
        if count >= MAX_FILES or size + len(content) > MAX_TOTAL:
            raise Refusal(413, f"a folder of more than {MAX_FILES:,} images or {MAX_TOTAL >> 30} GiB: give its path instead")
        check(content)
        path = root.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
        except (FileExistsError, NotADirectoryError) as e:
            raise Refusal(409, f"'{name}' was sent twice: begin with a new folder") from e
        self._sizes[number] = (count + 1, size + len(content))

    def forget(self, used: Iterable[Path]) -> None:
        """Remove folders that are old, but those that hold something `used`."""
        kept = {parent for path in used for parent in (path, *path.parents)}
        for folder in self.folders.iterdir() if self.folders.is_dir() else ():
            if ID.fullmatch(folder.name) and folder not in kept and time.time() - folder.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(folder)


def kind(content: bytes) -> str:
    """The extension of an image's kind, by its content. Raises Refusal for kinds that are not taken."""
    found = kind_of(content[:HEAD], "")
    if found is None or found.name not in FORMATS:
        what = "no image" if found is None else f"an image of the kind {found.name}"
        raise Refusal(415, f"this is {what}: give one of {', '.join(FORMATS)}")
    return FORMATS[found.name]


def check(content: bytes) -> np.ndarray:
    """An image's pixels, uint8 (H, W, C), small enough to be sent back. Raises Refusal where it can't be decoded wholly."""
    kind(content)
    try:
        header = read_header(io.BytesIO(content))
        if header.height * header.width > MAX_PIXELS:
            raise Refusal(413, f"{header.height}x{header.width} is more than {MAX_PIXELS // 10**6} megapixels: make it smaller")
        image = decode(io.BytesIO(content))
    except Refusal:
        raise
    except Exception as e:  # any decoder may fail in its own way on a broken file
        raise Refusal(415, f"this can't be read as an image ({e or type(e).__name__})") from e
    image.thumbnail((SHOWN, SHOWN))
    return np.asarray(image).reshape(image.height, image.width, -1)


def check_name(name: str) -> tuple[str, ...]:
    """The parts of a file's relative name. Raises Refusal for one that leads elsewhere, or that a system may take as another."""
    parts = tuple(name.split("/"))
    bad = {"", ".", ".."} & set(parts) or set(name) & set('\\:*?"<>|') or not name.isprintable()
    if bad or len(name) > MAX_NAME or len(parts) > MAX_DEPTH or any(p.startswith(".") or p.endswith((".", " ")) for p in parts):
        raise Refusal(400, f"'{name[:80]}' can't be a file's name here: rename it with letters, digits and '-'")
    return parts


async def add_image(request: Request) -> Response:
    content = await read_body(request, MAX_BYTES, "this image")
    number, shown = await asyncio.to_thread(api_of(request).uploads.add, content)
    h, w = read_header(io.BytesIO(content), Fit())[:2]
    return JSONResponse({"id": number, "width": w, "height": h, "image": pixels.to_json(shown)})


async def add_folder(request: Request) -> Response:
    (await read_fields(request)).end()
    return JSONResponse({"id": api_of(request).uploads.new_folder()})


async def add_file(request: Request) -> Response:
    uploads, name = api_of(request).uploads, unquote(request.headers.get("x-filename", ""), errors="replace")
    content = await read_body(request, MAX_BYTES, f"'{name[:80]}'")
    await asyncio.to_thread(uploads.add_file, request.path_params["folder"], name, content)
    return JSONResponse({})
