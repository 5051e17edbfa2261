"""PNG files of 16 bits a channel, of which Pillow writes grey ones alone (W3C, Portable Network Graphics, 2003)."""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL.PngImagePlugin import PngInfo, putchunk

from unnoise.utils import atomic
from unnoise.utils.names import MARK

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels: grey, grey and alpha, colour, colour and alpha


def png_text(text: Mapping[str, str]) -> PngInfo:
    """The mark of this program, and `text` by keys, as Pillow takes them."""
    info = PngInfo()
    for key, value in (dict([MARK]) | dict(text)).items():
        info.add_text(key, value)
    return info


def write_png16(pixels: np.ndarray, path: Path, text: Mapping[str, str]) -> None:
    """Write uint16 (H, W, 1 to 4) atomically, with `text` in it by keys."""
    assert pixels.dtype == np.uint16
    h, w, channels = pixels.shape
    header = struct.pack(">IIBBBBB", w, h, 16, COLOUR_TYPES[channels], 0, 0, 0)
    rows = pixels.astype(">u2").reshape(h, -1).view(np.uint8)
    data = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())  # before each row the number of its filter: 0, none

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(SIGNATURE)
            putchunk(file, b"IHDR", header)
            for kind, content, *_ in png_text(text).chunks:
                putchunk(file, kind, content)
            putchunk(file, b"IDAT", data)
            putchunk(file, b"IEND", b"")

    atomic.write(path, fill)
