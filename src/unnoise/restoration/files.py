"""Image files as they are restored: with their own size, alpha and, where asked for, all of their 16 bits."""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from unnoise.data.decode import GREY_MODES, MAX_PIXELS, Fit, decode_image, orientation_of
from unnoise.data.pixels import from_uint8, from_uint16
from unnoise.utils.errors import UserError

SEVERAL = {"TIFF": "page", "GIF": "frame", "WEBP": "frame", "PNG": "frame"}  # a phone's MPO holds its own thumbnails


@dataclass(frozen=True)
class ImageFile:
    """`values` (H, W, 1 or 3) and `alpha` (H, W) or None, both uint8 or both uint16, and what to say of what was left out."""

    values: np.ndarray
    alpha: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def tensor(self) -> Tensor:
        """The colours (1, C, H, W) on [-1, 1]; where they are transparent, those stored there."""
        return (from_uint8 if self.values.dtype == np.uint8 else from_uint16)(self.values[None])


def read_file(path: Path, fit: Fit | None = None, bits: int = 8) -> ImageFile:
    """An image of any size, upright, its values kept at `bits` (8 or 16) where it has as many.

    `fit` says how its values are taken where it has no alpha. Raises UserError if it can't be read, has too many pixels, or
    has 16 bits in a way that nothing here reads.
    """
    _refuse_large(path)
    image = decode_image(path, fit)  # raises for whatever can't be read
    try:
        return _read_layers(path, image, bits)
    except UserError:
        raise
    except Exception as e:  # as any decoder may
        raise UserError(f"'{path}' can't be read as an image with all that it holds ({e or type(e).__name__})") from e


def _read_layers(path: Path, image: Image.Image, bits: int) -> ImageFile:
    """Its values and alpha, where `image` is what it looks like in 8 bits without."""
    with Image.open(path) as opened:
        deep, notes = _is_deep(opened), _notes(opened)
        if deep and (bits == 16 or opened.has_transparency_data):
            layers = _read_deep(opened, path)
        elif opened.has_transparency_data:
            layers = _upright(np.asarray(opened.convert("LA" if opened.mode in GREY_MODES else "RGBA")), opened)
        else:
            layers = np.asarray(image).reshape(image.height, image.width, -1)
    if deep and bits == 8:
        layers = np.round(layers / 257).astype(np.uint8) if layers.dtype == np.uint16 else layers
        notes += ("16 bits cut to 8, which `bits` 16 keeps",)
    has_alpha = layers.shape[2] in (2, 4)
    return ImageFile(layers[..., :-1], layers[..., -1], notes) if has_alpha else ImageFile(layers, None, notes)


def _refuse_large(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as opened:
                size = f" of {opened.width}x{opened.height}" if opened.width * opened.height > MAX_PIXELS else None
        except Image.DecompressionBombError:
            size = ""
        except Exception:  # decoding it says why
            return
    if size is not None:
        raise UserError(f"'{path}'{size} has more than {MAX_PIXELS // 10**6} megapixels, the most that are restored at once: "
                        "cut it into parts that overlap a little, and join the results")  # fmt: skip


def _is_deep(opened: Image.Image) -> bool:
    """Whether more than 8 bits are stored: Pillow names the stored mode only where it decodes."""
    return opened.mode.startswith("I") or ";16" in _raw_mode(opened)


def _notes(opened: Image.Image) -> tuple[str, ...]:
    count = getattr(opened, "n_frames", 1)
    return (f"{SEVERAL[opened.format]} 1 of {count}",) if count > 1 and opened.format in SEVERAL else ()


def _read_deep(opened: Image.Image, path: Path) -> np.ndarray:
    """uint16 (H, W, C), alpha last. Raises UserError for colours stored in another way than as red, green and blue.

    Pillow holds 16 bits of grey alone; of other channels it takes the higher byte of each value. Read in the other order of
    bytes, the file gives the lower.
    """
    if opened.mode.startswith("I"):
        return _upright(np.asarray(opened).astype(np.uint16)[..., None], opened)
    stored = _raw_mode(opened)
    kind, _, order = stored.partition(";16")
    if kind == "LA":  # four bytes a pixel, whatever they mean
        with Image.open(path) as again:
            four = np.asarray(_with_raw_mode(again, "RGBA")).astype(np.uint16)
        return _upright(four[..., ::2] << 8 | four[..., 1::2], opened)
    if kind not in ("RGB", "RGBA"):
        raise UserError(f"'{path}' has 16 bits in colours stored as {kind}: save it as RGB")
    first = {"little": "L", "big": "B"}[sys.byteorder] if order == "N" else order
    with Image.open(path) as again:
        low = np.asarray(_with_raw_mode(again, f"{kind};16{'B' if first == 'L' else 'L'}"))
    return _upright(np.asarray(opened).astype(np.uint16) << 8 | low, opened)


def _raw_mode(opened: Image.Image) -> str:
    """How the pixels are stored, in Pillow's words."""
    tile = getattr(opened, "tile", None) or [("", (), 0, "")]
    found = tile[0][3]
    return str(found if isinstance(found, str) else found[0] if found else "")


def _with_raw_mode(opened: Image.Image, mode: str) -> Image.Image:
    """The same before it is decoded, to be decoded as if stored so."""
    tiles = opened.tile  # type: ignore[attr-defined]
    opened.tile = [t._replace(args=mode if isinstance(t.args, str) else (mode, *t.args[1:])) for t in tiles]  # type: ignore[attr-defined]
    return opened


def _upright(layers: np.ndarray, opened: Image.Image) -> np.ndarray:
    """(H, W, C) turned as the EXIF orientation says."""
    found = orientation_of(opened)
    if found in (5, 6, 7, 8):
        layers = layers.swapaxes(0, 1)
    across = found in (2, 3, 6, 7)
    down = found in (3, 4, 7, 8)
    return np.ascontiguousarray(layers[:: -1 if down else 1, :: -1 if across else 1])
