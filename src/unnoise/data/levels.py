"""From the numbers of an image file to 8 or 16 bits: which bands are taken, and which values are black and white."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from unnoise.utils.errors import UserError

Range = tuple[float, float]
PLAIN = {"1": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB",
         "LAB": "RGB", "HSV": "RGB"}  # Pillow's modes whose bands are no grey, red, green, blue or alpha  # fmt: skip
BLOCK = 2**20  # values that are scaled at once
EXTRA_SAMPLES = 338  # the TIFF tag that says what bands beyond the colours are


def check(bands: Sequence[int] | None, value_range: Range | None) -> None:
    """Raises UserError for bands and ranges that no image has."""
    if bands is not None and (len(bands) not in (1, 3) or min(bands) < 1):
        raise UserError(f"data.bands are one or three numbers from 1, e.g. 1,2,3, not {','.join(map(str, bands)) or 'none'}")
    if value_range is not None and not (math.isfinite(sum(value_range)) and value_range[0] < value_range[1]):
        raise UserError(f"data.range goes from what is black to what is white, e.g. 0,4095, not {_text(value_range)}")


def to_levels(values: np.ndarray, value_range: Range | None, bits: int = 8) -> np.ndarray:
    """Numbers of any kind as uint8 or, of 16 `bits`, uint16: `value_range` to black and white, by default all of 8 or 16 bits.

    Raises ValueError for numbers whose range nobody knows.
    """
    kind = np.dtype(f"uint{bits}")
    if value_range is None:
        if values.dtype == kind:
            return values
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
        if values.dtype.kind == "f":
            raise ValueError(f"floating-point values, {low:.4g} to {high:.4g} here, have no known range: "
                             f"give data.range, e.g. {_text(_round(low, high))}")  # fmt: skip
        if low < 0 or high > 65535:
            raise ValueError(f"whole numbers beyond 16 bits, {low} to {high} here, have no known range: "
                             f"give data.range, e.g. {_text((low, high))}")  # fmt: skip
        value_range = 0, (255 if values.dtype == np.uint8 else 65535)
    elif values.dtype == np.uint8 and value_range[1] > 255:
        raise ValueError(f"it has 8 bits, for which the range {_text(value_range)} is not meant: give data.range, e.g. 0,255")
    low, high = value_range
    levels = np.empty(values.shape, kind)
    rows = max(1, BLOCK // max(1, values[:1].size))
    for k in range(0, len(values), rows):  # which spares memory, of which the numbers take eight times as much
        scaled = (np.clip(values[k : k + rows], low, high).astype(np.float64) - low) * np.iinfo(kind).max / (high - low)
        if np.isnan(scaled).any():
            raise ValueError("it holds values that are no numbers (NaN)")
        levels[k : k + rows] = np.round(scaled)
    return levels


def pick(values: np.ndarray, bands: Sequence[int]) -> np.ndarray:
    """These bands, counted from 1, of values (..., C). Raises ValueError for one that there is not."""
    count = values.shape[-1]
    if max(bands) > count:
        raise ValueError(f"it has {count} band{'s' if count > 1 else ''}, none of number {max(bands)}")
    picked: np.ndarray = values[..., [band - 1 for band in bands]]
    return picked


def to_layers(values: np.ndarray, alpha: bool, bands: Sequence[int] | None, value_range: Range | None,
              bits: int = 8) -> np.ndarray:  # fmt: skip
    """Values (H, W, C), of which with `alpha` the last band is one, as grey or colour, and alpha unless `bands` are taken.

    uint8 or, of 16 `bits` where there are as many, uint16. Raises ValueError where bands or range must be given.
    """
    colours, transparency = (values[..., :-1], values[..., -1:]) if alpha else (values, None)
    if bands is not None:
        colours, transparency = pick(values, bands), None
    if colours.shape[2] not in (1, 3):
        raise ValueError(f"{colours.shape[2]} bands, and it does not say which are colours: give data.bands, e.g. 1,2,3 for "
                         "red, green and blue, or one for grey")  # fmt: skip
    bits = 8 if values.dtype == np.uint8 else bits
    levels = to_levels(colours, value_range, bits)
    return levels if transparency is None else np.concatenate([levels, to_levels(transparency, None, bits)], axis=2)


def to_image(layers: np.ndarray) -> Image.Image:
    """uint8 (H, W, C) as an image of mode L, LA, RGB or RGBA."""
    return Image.fromarray(layers.squeeze(2) if layers.shape[2] == 1 else layers)


def values_of(image: Image.Image) -> tuple[np.ndarray, bool]:
    """The numbers (H, W, C) of a decoded image, palettes and the like as their colours, and whether the last band is alpha."""
    image = _without_false_alpha(image)
    mode = PLAIN.get(image.mode, image.mode)
    if image.has_transparency_data and mode in ("L", "RGB"):
        mode += "A"
    image = image.convert(mode) if mode != image.mode else image
    values = np.asarray(image)
    return values.reshape(*values.shape[:2], -1), mode.endswith("A")


def to_eight_bits(image: Image.Image, bands: Sequence[int] | None, value_range: Range | None) -> Image.Image:
    """A decoded image with 8 bits a band; of any mode where nothing is asked for."""
    if bands is None and value_range is None and not image.mode.startswith(("I", "F")):
        return _without_false_alpha(image)
    return to_image(to_layers(*values_of(image), bands, value_range))


def _without_false_alpha(image: Image.Image) -> Image.Image:
    """Without a fourth band that does not say that it is alpha."""
    false = image.format == "TIFF" and image.mode == "RGBA" and EXTRA_SAMPLES not in image.tag_v2  # type: ignore[attr-defined]
    return image.convert("RGB") if false else image


def _text(value_range: Range) -> str:
    return ",".join(f"{float(value):.12g}" for value in value_range)


def _round(low: float, high: float) -> Range:
    """A range of round numbers around these."""
    unit = 10.0 ** math.floor(math.log10(max(abs(low), abs(high), 1e-9)))
    return (0.0, 1.0) if low >= 0 and 0.1 < high <= 1 else (math.floor(low / unit) * unit, math.ceil(high / unit) * unit)
