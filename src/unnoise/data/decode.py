"""Decoding: one image file of any format and mode to pixels, and nothing silently.

EXIF orientation is applied, transparency composited over a background, 16 bits scaled, CMYK and palettes converted, the
first frame of an animation taken, colour profiles left alone. A file that is damaged, too large to be honest or of no known
range is an error with its reason.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from unnoise.utils.errors import UserError, nearest

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_PIXELS = 64_000_000
RESIZES = ("crop", "squash", "pad")
GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L"})

File = Path | IO[bytes]


@dataclass(frozen=True)
class Fit:
    """How an image is brought to one `size` (height, width), antialiased: crop its middle, squash, or pad with black.

    None leaves the size as it is. Transparent places show the `background`, white or black.
    """

    size: tuple[int, int] | None = None
    resize: str = "crop"
    background: str = "white"

    def __post_init__(self) -> None:
        for kind, value, valid in (("resize", self.resize, RESIZES), ("background", self.background, ("white", "black"))):
            if value not in valid:
                raise UserError(f"unknown {kind} '{value}': {nearest(value, valid)}")
        if self.size is not None and min(self.size) < 1:
            raise UserError(f"the image size must be positive, not {self.size[0]}x{self.size[1]}")

    def __call__(self, image: Image.Image, extent: tuple[float, float] | None = None) -> Image.Image:
        """`extent` is the part (width, height) of the image that is valid, from its top left; by default all of it."""
        if self.size is None or (image.size == self.size[::-1] and extent is None):
            return image
        (w, h), to = extent or image.size, self.size[::-1]
        scale = self.scale(w, h)
        if self.resize == "pad":
            inner = max(1, round(w / scale)), max(1, round(h / scale))
            sheet = Image.new(image.mode, to)
            sheet.paste(_resample(image, inner, (0, 0, w, h)), ((to[0] - inner[0]) // 2, (to[1] - inner[1]) // 2))
            return sheet
        across, down = (to[0] * scale, to[1] * scale) if self.resize == "crop" else (w, h)
        return _resample(image, to, ((w - across) / 2, (h - down) / 2, (w + across) / 2, (h + down) / 2))

    def scale(self, width: float, height: float) -> float:
        """How many pixels of the original make one of the result; when squashed, along the side where they are fewer."""
        assert self.size is not None
        ratios = width / self.size[1], height / self.size[0]
        return max(ratios) if self.resize == "pad" else min(ratios)

    def array(self, pixels: np.ndarray) -> np.ndarray:
        """The same for uint8 (N, H, W, C)."""
        if self.size is None or pixels.shape[1:3] == self.size:
            return pixels
        fitted = [self(Image.fromarray(p.squeeze(2) if p.shape[2] == 1 else p)) for p in pixels]
        return np.stack([np.asarray(p).reshape(*self.size, -1) for p in fitted])


def _resample(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, box=box)


class Header(NamedTuple):
    """What a file says before it is decoded: height and width (upright), whether it is grey, its mode and format."""

    height: int
    width: int
    grey: bool
    mode: str
    format: str
    frames: int
    profile: bool


def _open(file: File) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
        image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(f"{image.width}x{image.height} is more than {MAX_PIXELS // 10**6} megapixels")
    return image


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def read_header(file: File) -> Header:
    """Raises whatever a broken file makes its decoder raise."""
    with _open(file) as p:
        h, w = (p.width, p.height) if _orientation(p) >= 5 else (p.height, p.width)
        grey = p.mode in GREY_MODES
        return Header(h, w, grey, p.mode, str(p.format), getattr(p, "n_frames", 1), "icc_profile" in p.info)


def decode(file: File, fit: Fit | None = None, crop: Callable[[Image.Image], Image.Image] | None = None) -> Image.Image:
    """Decode a whole file, to mode L or RGB; `crop` is applied to the upright image before it is fitted to its size.

    JPEGs are decoded at the smallest scale (1/2, 1/4, 1/8) that still has twice the pixels each way that `fit` asks for.
    Raises whatever the decoder raises, and ValueError for values of no known range.
    """
    fit = fit or Fit()
    with _open(file) as opened:
        orientation = _orientation(opened)
        upright = fit
        if orientation >= 5 and fit.size is not None:
            fit = replace(fit, size=fit.size[::-1])
        extent = _draft(opened, fit) if crop is None else None
        opened.load()
        image = _to_grey_or_colour(opened, fit.background)
    if crop is None:  # the cheapest first: resize, then turn
        return _apply_orientation(fit(image, extent), orientation)
    return upright(crop(_apply_orientation(image, orientation)))


def decode_image(path: Path, fit: Fit | None = None) -> Image.Image:
    """`decode` for a file that a user named. Raises UserError if it can't be read."""
    try:
        return decode(path, fit)
    except Exception as e:  # any decoder may fail in its own way on a broken file
        raise UserError(f"'{path}' can't be read as an image ({e or type(e).__name__})") from e


def _draft(opened: Image.Image, fit: Fit) -> tuple[float, float] | None:
    """Have a JPEG decoded at a smaller scale where that loses nothing; gives the valid part (width, height) of the result."""
    if fit.size is None or opened.format not in ("JPEG", "MPO"):
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


def _to_grey_or_colour(image: Image.Image, background: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which a plain conversion would clip
        wide = np.asarray(image, dtype=np.float64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError("whole numbers beyond 16 bits have no known range")
        return Image.fromarray(np.round(wide / 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point images have no known range")
    if image.has_transparency_data:
        grey = image.mode in GREY_MODES
        rgba = image.convert("RGBA")
        whole = Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba)
        return whole.convert("L" if grey else "RGB")
    return image.convert("L" if image.mode in GREY_MODES else "RGB")
