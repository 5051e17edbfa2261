"""Image files as they are restored: with their own size, alpha and, where asked for, all of their 16 bits."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from unnoise.data.decode import MAX_PIXELS, Header, named, read_header, read_values
from unnoise.data.fit import Fit
from unnoise.data.kinds import FORMATS
from unnoise.data.levels import pick, to_layers
from unnoise.data.notes import range_note
from unnoise.data.pixels import from_uint8, from_uint16
from unnoise.utils.errors import UserError

BEYOND = 0.05  # the fraction of an image's values outside of its range that is spoken of
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
    """An image of any size, upright, its values kept at `bits` (8 or 16) where it has as many; `fit` gives range and bands.

    Raises UserError if it can't be read, or has too many pixels.
    """
    fit = fit or Fit()
    _refuse_large(path)
    with named(path):
        header, stored = read_header(path, fit), read_values(path, fit)
        layers = to_layers(stored.values, stored.alpha, fit.bands, fit.range, bits)
    taken = stored.values[..., :-1] if stored.alpha else stored.values
    notes = _notes(header, taken if fit.bands is None else pick(stored.values, fit.bands), fit, bits)
    layers = _upright(layers, stored.orientation)
    has_alpha = layers.shape[2] in (2, 4)
    return ImageFile(layers[..., :-1], layers[..., -1], notes) if has_alpha else ImageFile(layers, None, notes)


def _refuse_large(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=FORMATS) as opened:
                size = f" of {opened.width}x{opened.height}" if opened.width * opened.height > MAX_PIXELS else None
        except Image.DecompressionBombError:
            size = ""
        except Exception:  # decoding it says why
            return
    if size is not None:
        raise UserError(f"'{path}'{size} has more than {MAX_PIXELS // 10**6} megapixels, the most that are restored at once: "
                        "cut it into parts that overlap a little, and join the results")  # fmt: skip


def _notes(header: Header, values: np.ndarray, fit: Fit, bits: int) -> tuple[str, ...]:
    notes, as_bands = [], fit.bands is not None and header.mode.startswith("1 bands")
    if header.frames > 1 and header.format in SEVERAL and not as_bands:
        notes.append(f"{SEVERAL[header.format]} 1 of {header.frames}")
    if fit.range is not None:
        low, high = fit.range
        beyond = ((values < low) | (values > high)).mean()
        cut = f", and {beyond:.0%} of its values lie beyond" if beyond > BEYOND else ""
        notes.append(f"values {low:.12g} to {high:.12g} are black to white{cut}")
    elif values.dtype == np.uint16 and (doubt := range_note([values], 16)):
        notes.append(doubt)
    if values.dtype != np.uint8 and bits == 8:
        notes.append("cut to 8 bits, where `bits` 16 keeps 16")
    return tuple(notes)


def _upright(layers: np.ndarray, found: int) -> np.ndarray:
    """(H, W, C) turned as the EXIF orientation `found` says."""
    if found in (5, 6, 7, 8):
        layers = layers.swapaxes(0, 1)
    across = found in (2, 3, 6, 7)
    down = found in (3, 4, 7, 8)
    return np.ascontiguousarray(layers[:: -1 if down else 1, :: -1 if across else 1])
