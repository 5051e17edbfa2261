"""Which arrays are images: the order of their axes, the range of their numbers, and the way out where they are not.

Nothing is guessed. What can be read in two ways, or holds other numbers than uint8, is refused with the expression that makes
images of it; in it `images` stands for the array.
"""

import math
from collections.abc import Callable

import numpy as np

from unnoise.utils.errors import UserError

Shape = tuple[int, ...]

CHANNELS = (1, 3)
OVER_WHITE = '(images[..., :3] * (images[..., 3:] / 255) + 255 - images[..., 3:]).round().astype("uint8")'

SHAPES: tuple[tuple[Callable[[Shape], bool], str], ...] = (  # that are refused: the first that applies, s being the shape
    (lambda s: len(s) == 3 and s[2] in (1, 3, 4),
     "which is one image or {s[0]} grey ones of {s[1]}x{s[2]}: save images[None] for the one, images[..., None] for the many"),
    (lambda s: len(s) == 3 and s[0] == 3,
     "which is one colour image, channels first, or 3 grey ones of {s[1]}x{s[2]}: save images.transpose(1, 2, 0)[None] for the "
     "one, images[..., None] for the many"),
    (lambda s: len(s) == 4 and s[1] in CHANNELS and s[3] in (1, 3, 4),
     "in which the channels may come first or last: pad the images to 5 pixels or more a side"),
    (lambda s: len(s) == 4 and s[3] == 4,
     f"of which the fourth channel may be transparency or none: save images[..., :3] to leave it out, or {OVER_WHITE} to "
     "composite over white"),
    (lambda s: len(s) == 4 and s[1] == 4 and s[3] not in CHANNELS,
     "of which the fourth channel may be transparency or none: save images[:, :3] to leave it out"),
    (lambda s: len(s) == 4 and 2 in (s[1], s[3]) and not {s[1], s[3]} & set(CHANNELS),
     "in which 2 channels are neither grey nor colour: save images[..., :1], or images[:, :1] where the channels come first"),
    (lambda s: len(s) == 4 and not {s[1], s[3]} & set(CHANNELS),
     "in which no axis holds 1 or 3 channels, as in volumes and videos: save images.reshape(-1, {s[2]}, {s[3]}) to take each "
     "slice as a grey image"),
    (lambda s: len(s) == 5 and s[4] in CHANNELS,
     "as of videos: save images.reshape(-1, {s[2]}, {s[3]}, {s[4]}) to take each frame as an image"),
    (lambda s: len(s) == 5 and s[2] in CHANNELS,
     "as of videos: save images.reshape(-1, {s[2]}, {s[3]}, {s[4]}) to take each frame as an image, channels first"),
    (lambda s: len(s) == 2 and s[0] != s[1] and _side(s[1]) > 0,
     "as of flattened images: save images.reshape(-1, {side}, {side}), if they are square"),
    (lambda s: len(s) == 2 and s[0] != s[1] and s[1] % 3 == 0 and _side(s[1] // 3) > 0,
     "as of flattened images: save images.reshape(-1, 3, {side}, {side}), if they are square with red, green and blue apart"),
    (lambda s: len(s) == 2, "as of one grey image: save images[None]"),
    (lambda s: len(s) not in (3, 4), "which is none of images: save (N, H, W) for grey, (N, H, W, 3) for colour ones"),
)  # fmt: skip

SCALES = (  # from, to, and what brings that range to 0 to 255: the first that holds the numbers
    (0, 1, "255 * {x}"),
    (-0.5, 0.5, "255 * ({x} + 0.5)"),
    (-1, 1, "127.5 * ({x} + 1)"),
    (0, 255, "{x}"),
    (0, 4095, "{x} / 4095 * 255"),
    (0, 65535, "{x} / 257"),
)


def _side(pixels: int) -> int:
    """Of a square of so many pixels; 0 where there is none of 4 or more a side."""
    side = math.isqrt(pixels)
    return side if side**2 == pixels and side >= 4 else 0


def order_of(shape: Shape, where: str) -> str:
    """`grey` (N, H, W), or `last` or `first` by where the channels are. Raises UserError for what is none of these or two."""
    if 0 in shape:
        raise UserError(f"{where} holds no images: it has the shape {shape}")
    for applies, words in SHAPES:
        if applies(shape):
            side = (_side(shape[1]) or _side(shape[1] // 3)) if len(shape) == 2 else 0
            raise UserError(f"{where} has the shape {shape}, {words.format(s=shape, side=side)}")
    return "grey" if len(shape) == 3 else "last" if shape[3] in CHANNELS else "first"


def size_of(shape: Shape, where: str) -> tuple[int, int]:
    """(height, width) of the images in an array of this shape. Raises UserError as `order_of` does."""
    return (shape[2], shape[3]) if order_of(shape, where) == "first" else (shape[1], shape[2])


def to_images(array: np.ndarray, where: str, ranged: bool = False) -> tuple[np.ndarray, tuple[str, ...]]:
    """The images of an array as uint8 (N, H, W, C), and what was done to them. Raises UserError, naming `where`.

    Other numbers are left as they are where their range is known (`ranged`).
    """
    if array.size == 0:
        raise UserError(f"{where} holds no images: it has the shape {array.shape}")
    doubtful = array.dtype not in (np.uint8, np.bool_) or (array.dtype == np.uint8 and array.max() == 1)
    if doubtful and not (ranged and array.dtype.kind in "iuf"):
        way = ", or give data.range" if array.dtype.kind in "iuf" and array.dtype != np.uint8 else ""
        raise UserError(f"{where} holds {describe(array)}, and images must be uint8 from 0 to 255: save {to_uint8(array)}{way}")
    order = order_of(array.shape, where)
    pixels = array.astype(np.uint8) * np.uint8(255) if array.dtype == np.bool_ else array
    if order == "first":
        moved = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        return moved, (f"{where} has the shape {array.shape}, read as channels first",)
    return pixels[..., None] if order == "grey" else pixels, ()


def describe(array: np.ndarray) -> str:
    """The kind, shape and range of an array, for a sentence."""
    text = f"{array.dtype} of shape {array.shape}"
    if array.dtype.kind not in "iuf":
        return text
    finite = array[np.isfinite(array)]
    gaps = "" if finite.size == array.size else ", with values that are NaN or infinite"
    return f"{text} from {finite.min():.6g} to {finite.max():.6g}{gaps}" if finite.size else f"{text} without a finite value"


def to_uint8(array: np.ndarray, name: str = "images", cast: str = 'astype("uint8")') -> str:
    """The expression that brings an array of this range, called `name`, to uint8."""
    finite = array[np.isfinite(array)] if array.dtype.kind in "iuf" else np.empty(0)
    if not finite.size:
        return "whole numbers from 0 to 255"
    low, high = float(finite.min()), float(finite.max())
    start, span = float(f"{low:.6g}"), float(f"{high - low:.6g}") or 1.0
    general = f"255 / {span} * ({name} - {start})"
    scaled = next((text.format(x=name) for start, end, text in SCALES if start <= low and high <= end), general)
    whole = scaled if scaled == name else f"({scaled})"
    mended = f"numpy.nan_to_num({scaled})" if finite.size < array.size else whole
    return f"{mended}.{cast}" if scaled == name and array.dtype.kind in "iu" else f"{mended}.round().{cast}"
