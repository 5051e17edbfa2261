"""Files with more than Pillow holds: several bands of more than 8 bits, more than four bands, bands first, pages as bands.

TIFFs are read by tifffile (the extra `tiff`).
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image

from unnoise.data.levels import Range

BITS, PHOTOMETRIC, SAMPLES, PLANAR, SAMPLE_FORMAT = 258, 262, 277, 284, 339  # TIFF tags
INVERTED, GREY, COLOUR = 0, 1, 2  # kinds of `PHOTOMETRIC` that are read
ALPHA = 1, 2  # of the extra samples
MAX_BYTES = 2**30  # of one image's values
SMALL, MAX_RATIO = 2**25, 400  # bytes of values, and bytes out of a byte of a file of more than so many

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
        is_png = opened.read(4) == b"\x89PNG"
        opened.seek(0)
        return _read_png(opened) if is_png else _read_tiff(opened, bands)


def read_wide_header(file: File) -> WideHeader:
    """Of a TIFF. Raises ValueError where tifffile is not there."""
    with stream(file) as opened, _tifffile(opened) as tiff:
        page = tiff.pages[0]
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


def _read_png(file: IO[bytes]) -> Wide:
    """Pillow unpacks one byte of each value: the first of two as they are stored, or the second as if they were swapped."""
    values: np.ndarray = np.zeros((1, 1, 1), np.uint16)
    for ending in (";16B", ";16L"):
        file.seek(0)
        with Image.open(file, formats=("PNG",)) as image:
            tile: Any = image.tile[0]
            if tile.args not in ("RGB;16B", "RGBA;16B"):
                raise ValueError("16 bits of grey with transparency have no range: save it without transparency")
            image.tile = [tile._replace(args=tile.args.replace(";16B", ending))]
            values = values * 256 + np.asarray(image).astype(np.uint16)
    return Wide(values, values.shape[2] == 4, 1)


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
        size = file.seek(0, os.SEEK_END)
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
