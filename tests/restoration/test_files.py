"""Image files as they are restored: every kind with alpha, several pages or 16 bits, against the values that were written."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unnoise.restoration.files import read_file
from unnoise.utils.errors import UserError
from unnoise.utils.png import write_png16

SIZE = (5, 7)
RNG = np.random.default_rng(0)
WIDE = RNG.integers(0, 65536, (*SIZE, 4)).astype(np.uint16)
BYTES = RNG.integers(0, 256, (*SIZE, 4)).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_come_back(tmp_path: Path, channels: int) -> None:
    """Exactly with 16 bits, with their text for Pillow; to half a level of 8 bits without, which is said."""
    path, values = tmp_path / "p.png", WIDE[..., :channels]
    write_png16(values, path, {"key": "text, ä"})
    assert Image.open(path).info["key"] == "text, ä"
    file, cut = read_file(path, bits=16), read_file(path)
    got = [f.values if f.alpha is None else np.dstack([f.values, f.alpha]) for f in (file, cut)]
    assert got[0].dtype == np.uint16 and np.array_equal(got[0], values) and file.notes == ()
    assert got[1].dtype == np.uint8 and np.abs(257 * got[1].astype(int) - values).max() <= (257 if channels == 3 else 128)
    assert cut.notes == ("cut to 8 bits, where `bits` 16 keeps 16",)
    x = file.tensor()
    assert x.shape == (1, channels - (channels + 1) % 2, *SIZE)
    assert np.abs((x[0].permute(1, 2, 0).numpy() + 1) * 32767.5 - file.values).max() < 0.01


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bits_of_a_tiff(tmp_path: Path, channels: int, order: str) -> None:
    """Colours of either order of bytes, written by hand: Pillow writes none."""
    values = WIDE[..., :channels]
    count, data = 10 + (channels == 4), values.astype(f"{order}u2").tobytes()
    tags = [(256, 3, 1, 7), (257, 3, 1, 5), (258, 3, channels, None), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, None),
            (277, 3, 1, channels), (278, 3, 1, 5), (279, 4, 1, len(data)), (284, 3, 1, 1), (338, 3, 1, 2)][:count]  # fmt: skip
    end = 8 + 2 + 12 * count + 4
    places = {258: end, 273: end + 2 * channels}
    entries = b""
    for tag, kind, n, value in tags:
        value = places.get(tag, value)
        shown = struct.pack(
            order + ("I" if kind == 4 or tag == 258 else "HH"), *([value] if kind == 4 or tag == 258 else [value, 0])
        )
        entries += struct.pack(f"{order}HHI", tag, kind, n) + shown
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", count)
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    (tmp_path / "p.tif").write_bytes(head + entries + bytes(4) + bits + data)
    file = read_file(tmp_path / "p.tif", bits=16)
    assert np.array_equal(file.values, values[..., :3]) and (channels == 3 or np.array_equal(file.alpha, values[..., 3]))  # type: ignore[arg-type]


def rgba(path: Path) -> None:
    Image.fromarray(BYTES).save(path)


def palette(path: Path) -> None:
    image = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(SIZE) % 4, "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    image.save(path, transparency=2)


def palette_layers() -> np.ndarray:
    index = np.arange(35).reshape(SIZE) % 4
    colours = np.array([[10, 20, 30, 255], [40, 50, 60, 255], [70, 80, 90, 0], [100, 110, 120, 255]])
    return colours[index]


@pytest.mark.parametrize(
    ("name", "write", "layers"),
    [
        ("rgba.png", rgba, BYTES),
        ("rgba.tif", rgba, BYTES),
        ("la.png", lambda p: Image.fromarray(BYTES[..., :2]).save(p), BYTES[..., :2]),
        ("palette.png", palette, palette_layers()),
        ("palette.gif", palette, palette_layers()),
        ("rgba.webp", lambda p: Image.fromarray(BYTES).save(p, lossless=True, exact=True), BYTES),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_alpha_is_kept(tmp_path: Path, name: str, write: object, layers: np.ndarray) -> None:
    """And the colours below it as they are stored, not over a background."""
    assert callable(write)
    write(tmp_path / name)
    file = read_file(tmp_path / name)
    assert (
        file.alpha is not None and np.array_equal(file.values, layers[..., :-1]) and np.array_equal(file.alpha, layers[..., -1])
    )
    assert file.values.dtype == np.uint8 and file.notes == ()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_alpha(tmp_path: Path, orientation: int) -> None:
    """Turned as Pillow turns it, of 8 bits and of 16."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    rgba = Image.fromarray(BYTES)
    rgba.save(tmp_path / "p.png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "p.png")))
    file = read_file(tmp_path / "p.png")
    assert file.alpha is not None and np.array_equal(np.dstack([file.values, file.alpha]), upright)
    Image.fromarray(WIDE[..., 0]).save(tmp_path / "q.png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "q.png")))
    assert np.array_equal(read_file(tmp_path / "q.png", bits=16).values[..., 0], upright)


@pytest.mark.parametrize(("name", "note"), [("p.tif", "page 1 of 3"), ("p.gif", "frame 1 of 3"), ("p.webp", "frame 1 of 3"),
                                            ("p.png", "frame 1 of 3"), ("p.mpo", None)])  # fmt: skip
def test_the_first_page_is_taken_and_said(tmp_path: Path, name: str, note: str | None) -> None:
    """Of a phone's MPO the others are its own thumbnails."""
    pages = [Image.new("L", (8, 8), level) for level in (200, 100, 0)]
    pages = [p.convert("RGB") for p in pages] if name.endswith(("mpo", "webp")) else pages
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    file = read_file(tmp_path / name)
    assert file.notes == (() if note is None else (note,))
    assert np.abs(file.values.astype(int) - 200).max() <= 2


def test_too_large_is_refused_with_the_way(tmp_path: Path) -> None:
    """Before it is decoded, also where Pillow itself would refuse it."""
    for side in (8_100, 14_000):
        Image.new("1", (side, side)).save(tmp_path / "p.png")
        with pytest.raises(UserError, match=r"more than 64 megapixels, .*: cut it into parts"):
            read_file(tmp_path / "p.png")
