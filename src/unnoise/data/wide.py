"""Files with more than Pillow holds: several bands of more than 8 bits, more than four bands, bands first, pages as bands.

Colours of 16 bits are read by Pillow, one byte of each value at a time; other TIFFs by tifffile (the extra `tiff`).
"""

import importlib.util
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from unnoise.data.levels import EXTRA_SAMPLES, Range

BITS, PHOTOMETRIC, SAMPLES, PLANAR, SAMPLE_FORMAT = 258, 262, 277, 284, 339  # TIFF tags
INVERTED, GREY, COLOUR = 0, 1, 2  # kinds of `PHOTOMETRIC` that are read
ALPHA = 1, 2  # of the extra samples
MAX_BYTES = 2**30  # of one image's values
SMALL, MAX_RATIO = 2**26, 400  # bytes of values, and of an image of more than so many those that a byte of its file can hold

File = Path | IO[bytes]


class Wide(NamedTuple):
    """Values (H, W, C) as they are stored, whether the last band is alpha, and the EXIF orientation."""

    values: np.ndarray
    alpha: bool
    orientation: int


class WideHeader(NamedTuple):
    """What a TIFF says of itself: height and width as they are stored, bands without alpha, kind of numbers."""

    height: int
    width: int
    bands: int
    kind: str
    pages: int
    orientation: int


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image holds more than 8 bits a band."""
    return image.mode.startswith(("I", "F")) or ";16" in str(getattr(image, "tile", ""))


def is_wide(image: Image.Image, bands: Sequence[int] | None, value_range: Range | None) -> bool:
    """Whether Pillow, which could open it, would lose or spoil something that is needed."""
    cut = is_deep(image) and len(image.getbands()) > 1  # to 8 bits
    if image.format != "TIFF":
        return cut and image.format == "PNG" and value_range is not None
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    samples, deep = tags.get(SAMPLES, 1), max(tags.get(BITS, (1,))) > 8
    if deep and samples > 1 and (tags.get(PLANAR) == 2 or value_range is not None):
        return True
    if value_range is not None and image.mode == "I" and max(tags[BITS]) == 32 and tags.get(SAMPLE_FORMAT, (1,))[0] == 1:
        return True  # Pillow's whole numbers have a sign
    pages = getattr(image, "n_frames", 1) if samples == 1 else 1
    return bands is not None and (samples > len(image.getbands()) or pages >= max(bands) > 1)


def read_wide(file: File, bands: Sequence[int] | None) -> Wide:
    """The values of a TIFF or PNG; pages are bands where such `bands` are asked for.

    Raises ValueError, or whatever the reader raises, for what can't be read.
    """
    with stream(file) as opened:
        deep = _read_deep(opened)
        if deep is not None and (bands is None or max(bands) <= deep.values.shape[2]):
            return deep if deep.alpha or bands is not None else deep._replace(values=deep.values[..., :3])
        opened.seek(0)
        return _read_tiff(opened, bands)


def read_wide_header(file: File) -> WideHeader:
    """Of a TIFF. Raises ValueError where tifffile is not there."""
    with stream(file) as opened, _tifffile(opened) as tiff:
        page = tiff.pages[0]
        if not all(isinstance(side, int) and side > 0 for side in (page.imagelength, page.imagewidth)):
            raise ValueError("a TIFF of no width or height, or of several: it is damaged")
        bands = page.samplesperpixel - _has_alpha(page)
        return WideHeader(page.imagelength, page.imagewidth, bands, str(page.dtype), len(tiff.pages), _orientation(page))


@contextmanager
def stream(file: File) -> Iterator[IO[bytes]]:
    """A file from its beginning."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            yield opened
    else:
        file.seek(0)
        yield file


def size_of(file: File) -> int:
    """In bytes; a stream stays where it is."""
    if isinstance(file, Path):
        return file.stat().st_size
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(position)
    return size


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation that is still to be applied: Pillow itself applies that of a TIFF."""
    found = None
    if image.format != "TIFF":
        with suppress(Exception):  # metadata are often broken where the image is whole
            found = image.getexif().get(ExifTags.Base.Orientation)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _read_deep(file: IO[bytes]) -> Wide | None:
    """Colours, or grey and alpha, of 16 bits in a PNG or TIFF; None for anything else.

    Pillow unpacks one byte of each value: the higher as they are stored, the lower as if they were swapped.
    """
    try:
        image = Image.open(file, formats=("PNG", "TIFF"))
    except UnidentifiedImageError:
        return None
    kind, deep, order = _raw_mode(image).partition(";16")
    if not deep or kind not in ("LA", "RGB", "RGBA"):
        return None
    if kind == "LA":  # four bytes a pixel, whatever they mean
        four = _unpack(file, "RGBA").astype(np.uint16)
        values = four[..., ::2] << 8 | four[..., 1::2]
    else:
        first = {"little": "L", "big": "B"}[sys.byteorder] if order == "N" else order
        high, low = (_unpack(file, f"{kind};16{end}") for end in (first, "B" if first == "L" else "L"))
        values = high.astype(np.uint16) << 8 | low
    alpha = kind != "RGB" and (image.format == "PNG" or EXTRA_SAMPLES in image.tag_v2)  # type: ignore[attr-defined]
    return Wide(values, alpha, orientation_of(image))


def _raw_mode(image: Image.Image) -> str:
    """How the pixels are stored, in Pillow's words."""
    tile: Any = getattr(image, "tile", None)
    found = tile[0].args if tile else ""
    return str(found if isinstance(found, str) else found[0] if found else "")


def _unpack(file: IO[bytes], mode: str) -> np.ndarray:
    """The values of an image as if they were stored so."""
    file.seek(0)
    image = Image.open(file, formats=("PNG", "TIFF"))
    tiles: Any = image.tile
    image.tile = [t._replace(args=mode if isinstance(t.args, str) else (mode, *t.args[1:])) for t in tiles]
    return np.asarray(image)


def has_tifffile() -> bool:
    """Whether what only tifffile reads is read here."""
    return importlib.util.find_spec("tifffile") is not None


def _tifffile(file: IO[bytes]) -> Any:
    try:
        import tifffile
    except ImportError as e:
        raise ValueError("a TIFF with more than Pillow reads: if it is whole, pip install 'unnoise[tiff]'") from e
    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it logs of broken files is said in one sentence
    return tifffile.TiffFile(file)


def _has_alpha(page: Any) -> bool:
    return len(page.extrasamples) > 0 and int(page.extrasamples[-1]) in ALPHA


def _orientation(page: Any) -> int:
    tag = page.tags.get("Orientation")
    return 1 if tag is None else int(tag.value)


def _read_tiff(file: IO[bytes], bands: Sequence[int] | None) -> Wide:
    with _tifffile(file) as opened:
        pages = list(opened.pages)
        page, alpha = pages[0], _has_alpha(pages[0])
        if page.photometric not in (INVERTED, GREY, COLOUR):
            raise ValueError(f"a TIFF of {page.dtype} and colours {page.photometric.name}: save it as RGB")
        as_bands = bands is not None and page.samplesperpixel == 1 and len(pages) >= max(bands) > 1
        taken = [pages[band] for band in range(max(bands))] if as_bands and bands is not None else [page]
        size = size_of(file)
        if sum(p.nbytes for p in taken) > min(MAX_BYTES, max(SMALL, MAX_RATIO * size)):
            raise ValueError(f"{page.imagewidth}x{page.imagelength} of {page.samplesperpixel} {page.dtype} is more than "
                             f"{MAX_BYTES >> 20} MiB, or than {size} bytes can hold: save it smaller")  # fmt: skip
        if len({p.shape for p in taken}) > 1:
            raise ValueError(f"its pages have several sizes, so they are no bands: save it with one page for data.bands {bands}")
        values = np.concatenate([_height_width_bands(p) for p in taken], axis=2)
        if page.photometric == INVERTED:
            values = np.iinfo(values.dtype).max - values
        if page.photometric == COLOUR and not alpha and bands is None:
            values = values[..., :3]  # further bands do not say that they are alpha
        return Wide(values, alpha, _orientation(page))


def _height_width_bands(page: Any) -> np.ndarray:
    values: np.ndarray = page.asarray()
    if values.ndim == 2:
        return values[..., None]
    return values.transpose(1, 2, 0) if page.planarconfig == 2 else values
