"""Decoding: one image file of any format and mode to pixels, and nothing silently.

EXIF orientation is applied, transparency composited over a background, 16 bits scaled, CMYK and palettes converted, the
first frame of an animation taken, colour profiles left alone. A file that is damaged, too large to be honest or of no known
range is an error with its reason.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple, cast

from PIL import ExifTags, Image, ImageOps, JpegImagePlugin, UnidentifiedImageError

from unnoise.data import levels
from unnoise.data.fit import Fit
from unnoise.data.kinds import FORMATS, HEAD, Kind, kind_of
from unnoise.data.wide import (
    MAX_RATIO,
    SMALL,
    Wide,
    is_deep,
    is_wide,
    orientation_of,
    read_wide,
    read_wide_header,
    size_of,
    stream,
)
from unnoise.data.wide import File as File
from unnoise.utils.errors import UserError

MAX_PIXELS = 64_000_000  # of an image as it is decoded
SCALED = ("JPEG", "MPO")  # formats that can be decoded at a smaller scale
GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"})
DNG_VERSION = 50706  # the TIFF tag that only camera raw has


class Header(NamedTuple):
    """What a file says before it is decoded: height and width (upright), whether it is grey, its mode and format.

    `frames` or pages, whether it has a colour `profile`, and whether it is `deep`: more than 8 bits.
    """

    height: int
    width: int
    grey: bool
    mode: str
    format: str
    frames: int = 1
    profile: bool = False
    deep: bool = False


def _open(file: File) -> Image.Image | None:
    """Opened by Pillow; None for a TIFF that only tifffile can open. Raises ValueError for kinds that are not read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            image = Image.open(file, formats=FORMATS)
    except (UnidentifiedImageError, Image.DecompressionBombError) as e:
        return _open_other(file, e)
    except ValueError as e:
        if "too large" in str(e).lower():
            raise ValueError("its embedded text or colour profile is too large: save it without metadata") from e
        raise
    if image.format == "TIFF":
        _refuse_unread(kind_of_file(file, ".dng" if DNG_VERSION in image.tag_v2 else None))  # type: ignore[attr-defined]
        if not all(isinstance(side, int) for side in image.size):
            raise ValueError("a TIFF of several widths or heights, or damaged")
        image.filename = ""  # so that it is not mapped into memory: Pillow scrambles mapped images that it turns
    return image


def _open_other(file: File, error: Exception) -> Image.Image | None:
    """What Pillow by itself refuses."""
    kind = kind_of_file(file)
    if isinstance(error, Image.DecompressionBombError):
        if kind is None or kind.name != "JPEG":
            raise _too_large(str(error).partition("(")[2].partition(")")[0] or "this") from error
        return JpegImagePlugin.jpeg_factory(cast(IO[bytes], file))  # it may be decoded at a smaller scale
    _refuse_unread(kind)
    if (content := kind_of_file(file, "")) is not None and content.name == "TIFF":
        return None
    if kind is not None and kind.module == "pillow_heif":
        import pillow_heif

        pillow_heif.register_heif_opener()
        return Image.open(file, formats=("HEIF",))
    raise error


def kind_of_file(file: File, extension: str | None = None) -> Kind | None:
    """By its content and its extension, where that is not given."""
    with stream(file) as opened:
        head = opened.read(HEAD)
    if isinstance(file, Path):
        return kind_of(head, file.suffix if extension is None else extension)
    file.seek(0)
    return kind_of(head, extension or "")


def _refuse_unread(kind: Kind | None) -> None:
    """Raises ValueError for a kind that can't be read."""
    if kind is not None and not kind.is_read:
        raise ValueError(f"{kind.name}: {kind.remedy}")


def _too_large(size: str) -> ValueError:
    return ValueError(f"{size} is more than {MAX_PIXELS // 10**6} megapixels: save it smaller, or as a JPEG, which is read at a "
                      "fraction of its size")  # fmt: skip


def _check_pixels(image: Image.Image, file: File) -> None:
    """Raises ValueError for an image of too many pixels, or of many in few bytes: next to nothing compresses so far."""
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"{image.width}x{image.height}")
    needed = image.width * image.height * len(image.getbands()) * (2 if is_deep(image) else 1)
    if needed > SMALL and needed > MAX_RATIO * (size := size_of(file)):
        raise ValueError(f"{needed >> 20} MiB of pixels out of {size} bytes, as of an empty image: save it smaller, or in grey")


def read_header(file: File, fit: Fit | None = None) -> Header:
    """Raises whatever a broken file makes its decoder raise."""
    fit = fit or Fit()
    opened = _open(file)
    if opened is None:
        return _wide_header(file, fit)
    with opened as p:
        if p.format not in SCALED:
            _check_pixels(p, file)
        if is_wide(p, fit.bands, fit.range) and p.format == "TIFF":
            return _wide_header(file, fit)
        h, w = (p.width, p.height) if orientation_of(p) >= 5 else (p.height, p.width)
        grey = p.mode in GREY_MODES if fit.bands is None else len(fit.bands) == 1
        return Header(h, w, grey, p.mode, str(p.format), getattr(p, "n_frames", 1), "icc_profile" in p.info, is_deep(p))


def _wide_header(file: File, fit: Fit) -> Header:
    h, w, bands, kind, pages, orientation = read_wide_header(file)
    h, w = (w, h) if orientation >= 5 else (h, w)
    grey = bands == 1 if fit.bands is None else len(fit.bands) == 1
    return Header(h, w, grey, f"{bands} bands of {kind}", "TIFF", pages, deep=kind != "uint8")


def decode(file: File, fit: Fit | None = None, crop: Callable[[Image.Image], Image.Image] | None = None) -> Image.Image:
    """Decode a whole file, to mode L or RGB; `crop` is applied to the upright image before it is fitted to its size.

    JPEGs are decoded at the smallest scale (1/2, 1/4, 1/8) that still has twice the pixels each way that `fit` asks for.
    Raises whatever the decoder raises, and ValueError for values of no known range.
    """
    fit = fit or Fit()
    opened = _open(file)
    if opened is None:
        image, orientation, extent = _decode_wide(file, fit)
    else:
        with opened:
            wide = is_wide(opened, fit.bands, fit.range)
            image, orientation, extent = _decode_wide(file, fit) if wide else _decode_plain(opened, file, fit, crop is None)
    if crop is not None:
        return fit(crop(_apply_orientation(image, orientation)))
    if orientation >= 5 and fit.size is not None:
        fit = replace(fit, size=fit.size[::-1])
    return _apply_orientation(fit(image, extent), orientation)  # the cheapest first: resize, then turn


Decoded = tuple[Image.Image, int, tuple[float, float] | None]  # L or RGB, the orientation to apply, the valid part


def _decode_plain(opened: Image.Image, file: File, fit: Fit, scaled: bool) -> Decoded:
    """By Pillow; with `scaled` a JPEG may come out smaller."""
    orientation = orientation_of(opened)
    turned = replace(fit, size=fit.size[::-1]) if orientation >= 5 and fit.size is not None else fit
    extent = _draft(opened, turned) if scaled else None
    _check_pixels(opened, file)
    opened.load()
    return to_grey_or_colour(opened, fit), orientation, extent


def to_grey_or_colour(image: Image.Image, fit: Fit) -> Image.Image:
    """A Pillow image of any mode as L or RGB, in its own size. Raises ValueError for values of no known range."""
    return _flat(levels.to_eight_bits(image, fit.bands, fit.range), fit.background)


def _decode_wide(file: File, fit: Fit) -> Decoded:
    """What Pillow does not hold."""
    values, alpha, orientation = read_wide(file, fit.bands)
    return _flat(levels.to_image(levels.to_layers(values, alpha, fit.bands, fit.range)), fit.background), orientation, None


def read_values(file: File, fit: Fit | None = None) -> Wide:
    """The numbers that a file holds, all of its 16 bits among them; palettes and the like as their colours.

    Raises whatever the decoder raises.
    """
    fit = fit or Fit()
    opened = _open(file)
    if opened is None:
        return read_wide(file, fit.bands)
    with opened:
        _check_pixels(opened, file)
        if is_wide(opened, fit.bands, fit.range) or (is_deep(opened) and len(opened.getbands()) > 1):
            return read_wide(file, fit.bands)
        return Wide(*levels.values_of(opened), orientation_of(opened))


def decode_image(path: Path, fit: Fit | None = None) -> Image.Image:
    """`decode` for a file that a user named. Raises UserError if it can't be read."""
    with named(path):
        return decode(path, fit)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Raises UserError with the name of an image that a user named, for whatever its decoder raises within."""
    try:
        yield
    except FileNotFoundError as e:
        raise UserError(f"no file '{path}': check the path") from e
    except Exception as e:  # any decoder may fail in its own way on a broken file
        raise UserError(f"'{path}' can't be read as an image ({e or type(e).__name__})") from e


def _draft(opened: Image.Image, fit: Fit) -> tuple[float, float] | None:
    """Have a JPEG decoded at a smaller scale where that loses nothing; gives the valid part (width, height) of the result."""
    if fit.size is None or opened.format not in SCALED:
        return None
    scale = fit.scale(*opened.size) / 2
    found = opened.draft(None, (math.ceil(opened.width / scale), math.ceil(opened.height / scale)))
    return None if found is None else (found[1][2], found[1][3])


def _apply_orientation(image: Image.Image, orientation: int) -> Image.Image:
    """Upright, by the EXIF orientation of the file, which a resized image has lost."""
    if orientation == 1:
        return image
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(image)


def _flat(image: Image.Image, background: str) -> Image.Image:
    """Mode L or RGB, over the background where it is transparent."""
    grey = image.mode in GREY_MODES
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba)
    return image.convert("L" if grey else "RGB")
