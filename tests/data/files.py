"""Files of images for the tests of data: whole and broken ones, arrays and shards."""

import io
import os
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unnoise.data.kinds import BY_EXTENSION

RNG = np.random.default_rng(0)
H, W = 16, 24
COLOUR = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (H, W), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (H, W), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (H, W), dtype=np.uint16)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W) or (H, W, 3) as the bytes of a PNG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def idx(array: np.ndarray) -> bytes:
    """The bytes of an idx file."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_pngs(folder: Path, count: int, size: tuple[int, int] = (20, 20)) -> Path:
    """`count` PNGs of noise, 0000.png and so on; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{k:04d}.png")
    return folder


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    """A tar file of these names and contents."""
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Composited exactly over white; Pillow works in whole numbers and may differ by one level."""
    a = alpha[..., None] / 255
    return np.round(pixels * a + 255 * (1 - a))


def write_accepted(folder: Path) -> dict[str, np.ndarray]:
    """Files of one size that must be read, with the pixels expected of each, (H, W, 3)."""
    truth: dict[str, np.ndarray] = {}
    grey3 = np.repeat(GREY[..., None], 3, 2)

    def add(name: str, image: Image.Image, expected: np.ndarray, **options: Any) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name, **options)
        truth[name] = expected

    rgb, mono = Image.fromarray(COLOUR), Image.fromarray(GREY)
    add("rgb.png", rgb, COLOUR)
    add("UPPER.PNG", rgb, COLOUR)
    add("deep/er/rgb.bmp", rgb, COLOUR)
    add("ünïcødé ✈.png", rgb, COLOUR)
    add("new\nline.png", rgb, COLOUR)
    add("l.png", mono, grey3)
    add("l.tiff", mono, grey3)
    add("p.ppm", rgb, COLOUR)
    add("p.pgm", mono, grey3)
    add("rgb.webp", rgb, COLOUR, lossless=True)
    add("profile.png", rgb, COLOUR, icc_profile=b"not looked at")
    turned = [COLOUR, COLOUR[:, ::-1], COLOUR[::-1, ::-1], COLOUR[::-1], COLOUR.transpose(1, 0, 2), np.rot90(COLOUR, 1),
              COLOUR[::-1, ::-1].transpose(1, 0, 2), np.rot90(COLOUR, -1)]  # fmt: skip
    for orientation, pixels in enumerate(turned, start=1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        add(f"exif-{orientation}.png", Image.fromarray(np.ascontiguousarray(pixels)), COLOUR, exif=exif)
    add("rgba.png", Image.fromarray(np.dstack([COLOUR, ALPHA])), over_white(COLOUR, ALPHA))
    add("la.png", Image.fromarray(np.dstack([GREY, ALPHA])), np.repeat(over_white(GREY[..., None], ALPHA), 3, 2))
    add("hidden.png", Image.fromarray(np.dstack([COLOUR, 0 * ALPHA])), np.full((H, W, 3), 255))
    palette = rgb.quantize(16)
    add("p.png", palette, np.asarray(palette.convert("RGB")))
    transparent = np.asarray(palette.convert("RGB")).copy()
    transparent[np.asarray(palette) == 3] = 255
    add("p-transparent.png", palette, transparent, transparency=3)
    bits = Image.fromarray(GREY > 127)
    add("bits.png", bits, np.repeat((255 * (GREY > 127))[..., None], 3, 2))
    add("wide.png", Image.fromarray(WIDE), np.repeat(np.round(WIDE / 257)[..., None], 3, 2))
    add("wide.tiff", Image.fromarray(WIDE), np.repeat(np.round(WIDE / 257)[..., None], 3, 2))
    second = Image.fromarray(255 - COLOUR)
    add("moving.webp", rgb, COLOUR, save_all=True, append_images=[second], lossless=True)
    still = rgb.quantize(64)
    add("moving.gif", still, np.asarray(still.convert("RGB")), save_all=True, append_images=[second.quantize(64)])
    for quality in (50, 95):
        add(f"q{quality}.jpg", rgb, COLOUR, quality=quality)
        truth[f"q{quality}.jpg"] = np.asarray(Image.open(folder / f"q{quality}.jpg"))
    add("grey.jpeg", mono, grey3, quality=95)
    truth["grey.jpeg"] = np.repeat(np.asarray(Image.open(folder / "grey.jpeg"))[..., None], 3, 2)
    cmyk = RNG.integers(0, 256, (H, W, 4), dtype=np.uint8)
    add("cmyk.tif", Image.fromarray(cmyk, "CMYK"), _cmyk(cmyk))
    add("cmyk.jpg", Image.fromarray(cmyk, "CMYK"), COLOUR, quality=95)
    truth["cmyk.jpg"] = _cmyk(np.asarray(Image.open(folder / "cmyk.jpg")))
    return truth


def _cmyk(pixels: np.ndarray) -> np.ndarray:
    """Each of red, green and blue is what its own ink and black leave of it."""
    ink, black = pixels[..., :3].astype(float), pixels[..., 3:].astype(float)
    colour: np.ndarray = np.round((255 - ink) * (255 - black) / 255)
    return colour


def tiled(seed: int, size: tuple[int, int] = (20, 20)) -> np.ndarray:
    """uint8 (H, W, 3) in tiles of 8 pixels, which lossy formats hardly change."""
    h, w = size
    tiles = np.random.default_rng(seed).integers(0, 256, (-(-h // 8), -(-w // 8), 3), dtype=np.uint8)
    return np.kron(tiles, np.ones((8, 8, 1), np.uint8))[:h, :w]


def encoded(pixels: np.ndarray, format: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format, **options)
    return out.getvalue()


def png16(values: np.ndarray) -> bytes:
    """uint16 (H, W, 1 to 4) as a PNG of 16 bits, which Pillow writes of grey alone."""
    h, w, c = values.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[c]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return _png_parts(struct.pack(">IIBBBBB", w, h, 16, colour, 0, 0, 0), zlib.compress(rows))


def png_bomb(side: int) -> bytes:
    """A PNG of side x side zeros, a few thousand bytes."""
    return _png_parts(struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0), zlib.compress(bytes((side // 8 + 1) * side), 9))


def _png_parts(header: bytes, data: bytes) -> bytes:
    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", data) + part(b"IEND", b"")


def write_rejected(folder: Path) -> dict[str, str]:
    """Entries that must be refused, with words of the reason for each; beside them a folder and an EPS that are no data."""
    folder.mkdir(exist_ok=True)
    jpeg = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(jpeg, "JPEG", quality=90)
    whole = jpeg.getvalue()
    reasons = {}
    for kind, extension in (("jpg", ".jpg"), ("upper", ".JPEG")):
        for percent in (10, 50, 99):
            (folder / f"cut-{kind}-{percent}{extension}").write_bytes(whole[: len(whole) * percent // 100])
            reasons[f"cut-{kind}-{percent}{extension}"] = "truncated"
    for extension in sorted(extension for extension, kind in BY_EXTENSION.items() if kind.module == "PIL"):
        (folder / f"empty{extension}").write_bytes(b"")
        (folder / f"text{extension}").write_text("I am a text")
        reasons |= {f"empty{extension}": "cannot identify", f"text{extension}": "cannot identify"}
    for k, name in enumerate(["noise.png", "noise\n2.jpg", "ñoise.webp"]):
        (folder / name).write_bytes(np.random.default_rng(k).bytes(3000))
        reasons[name] = "cannot identify"
    (folder / "bomb.png").write_bytes(png_bomb(12_000))
    assert (folder / "bomb.png").stat().st_size < 30_000
    Image.fromarray(RNG.random((8, 8), dtype=np.float32)).save(folder / "float.tiff")
    (folder / "folder.jpg").mkdir()
    (folder / "broken-link.png").symlink_to("nowhere.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "script.eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    os.mkfifo(folder / "pipe.jpg")
    half = io.BytesIO()
    Image.fromarray(COLOUR).save(half, "PNG")
    (folder / "half.png").write_bytes(half.getvalue()[: len(half.getvalue()) // 2])
    return reasons | {
        "bomb.png": "144000000 pixels|12000x12000 is more than 64 megapixels",
        "float.tiff": "no known range",
        "broken-link.png": "No such file",
        "loop.png": "symbolic links",
        "pipe.jpg": "not a file",
        "half.png": "truncated|Truncated|unrecognized|broken",
    }
