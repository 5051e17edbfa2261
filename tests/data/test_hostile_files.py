"""Small files of every format that is read, damaged in any byte: a sentence or an image, soon, in little memory."""

import gzip
import io
import resource
import struct
import tarfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save

from unnoise.data.fit import Fit
from unnoise.data.sources import find_source
from unnoise.restoration.files import read_file
from unnoise.run_folder import RunFolder
from unnoise.training.checkpoint import check_model
from unnoise.utils.errors import UserError

SECONDS, MEMORY = 2, 300 * 2**20  # that a small file may take
FIT = Fit((8, 8))


def image(kind: str, mode: str = "RGB", **how: object) -> bytes:
    pixels, data = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8), io.BytesIO()
    grey = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else None
    (grey or Image.fromarray(pixels).convert(mode)).save(data, kind, **how)
    return data.getvalue()


def arrays(save: Callable[..., object]) -> bytes:
    data = io.BytesIO()
    save(data, images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4))
    return data.getvalue()


def npy(shape: tuple[int, ...], content: bytes) -> bytes:
    data = io.BytesIO()
    np.lib.format.write_array_header_1_0(data, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return data.getvalue() + content


def idx(*shape: int, content: bytes = b"") -> bytes:
    return b"\0\0\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


def tar(layout: int) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=layout) as file:
        for name, content in (("é" * 60 + ".png", image("PNG")), ("é" * 60 + ".cls", b"3"), ("b.jpg", image("JPEG"))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return data.getvalue()


TURNED = Image.Exif()
TURNED[0x0112] = 6
IMAGES = {
    "png": image("PNG"), "palette.png": image("PNG", "P", transparency=1), "16.png": image("PNG", "I;16"),
    "jpg": image("JPEG", exif=TURNED), "progressive.jpg": image("JPEG", progressive=True), "gif": image("GIF", "P"),
    "tiff": image("TIFF", exif=TURNED), "lzw.tiff": image("TIFF", compression="tiff_lzw"), "16.tiff": image("TIFF", "I;16"),
    "webp": image("WEBP"), "lossless.webp": image("WEBP", lossless=True), "bmp": image("BMP"), "avif": image("AVIF"),
    "ppm": image("PPM"),
}  # fmt: skip
ARRAYS = {
    "a.npz": arrays(np.savez), "compressed.npz": arrays(np.savez_compressed), "a.npy": npy((6, 8, 8), bytes(384)),
    "idx3": idx(4, 6, 5, content=bytes(120)), "idx3.gz": gzip.compress(idx(4, 6, 5, content=bytes(120))),
    "pax.tar": tar(tarfile.PAX_FORMAT), "gnu.tar": tar(tarfile.GNU_FORMAT),
}  # fmt: skip
WEIGHTS = {"model.safetensors": save({"conv.weight": np.zeros((2, 3), np.float32), "a": np.arange(5)})}
FILES = IMAGES | ARRAYS | WEIGHTS


def read(folder: Path, name: str, content: bytes) -> list[str]:
    """Read a file in each way that there is; gives the sentences that were said."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    if name in WEIGHTS:
        ways: list[Callable[[], object]] = [lambda: check_model(path, {}), RunFolder(folder).read_moments]
    else:
        where = str(path if name in ARRAYS or "." not in name or name.endswith((".npz", ".npy", ".tar", ".gz")) else folder)
        ways = [lambda: find_source(where).own_size(), lambda: find_source(where).read(FIT, folder.parent / "cache")]
        ways += [lambda: read_file(path), lambda: read_file(path, bits=16)] if where == str(folder) else []
    said = []
    try:
        for way in ways:
            try:
                way()
            except UserError as e:
                said.append(str(e))
    finally:
        path.unlink()
    return said


def within_limits(folder: Path, name: str, content: bytes) -> list[str]:
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = read(folder, name, content)
    assert time.perf_counter() - begun < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY
    return said


@st.composite
def damaged(draw: st.DrawFn, names: list[str]) -> tuple[str, bytes]:
    """A file cut off, or some of its bytes others, or more bytes between them."""
    name = draw(st.sampled_from(names))
    content = bytearray(FILES[name])
    where = st.integers(0, len(content) - 1)
    for place, value in draw(st.lists(st.tuples(where, st.integers(0, 255)), max_size=4)):
        content[place] = value
    place = draw(where)
    content[place:place] = draw(st.binary(max_size=16))
    return name, bytes(content[: draw(where)] if draw(st.integers(0, 4)) == 0 else content)


QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None, suppress_health_check=QUIET)
@given(file=damaged(sorted(FILES)))
def test_any_damage_is_answered_by_a_sentence(tmp_path: Path, file: tuple[str, bytes]) -> None:
    within_limits(tmp_path / "d", *file)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged metadata
@pytest.mark.parametrize("name", FILES)
def test_every_byte(tmp_path: Path, name: str) -> None:
    """Each byte in turn, of long files 250 to 500 of them, made 0, 255 and another, and the file cut off before it."""
    content = FILES[name]
    for k in range(0, len(content), max(1, len(content) // 250)):
        for byte in {0, 255, content[k] ^ 1, content[k] ^ 128} - {content[k]}:
            within_limits(tmp_path / "d", name, content[:k] + bytes([byte]) + content[k + 1 :])
        within_limits(tmp_path / "d", name, content[:k])


def empty_png(side: int, depth: int, kind: int, channels: int) -> bytes:
    row = bytes(1 + side * channels * depth // 8)
    chunks = (b"IHDR", struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0)), (b"IDAT", zlib.compress(row * side))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in (*chunks, (b"IEND", b""))
    )


def empty(kind: str, mode: str, **how: object) -> bytes:
    data = io.BytesIO()
    Image.new(mode, (8000, 8000)).save(data, kind, **how)
    return data.getvalue()


WITHOUT_PIXELS = {
    "none.npz": (arrays(lambda file, images, labels: np.savez(file, images=images[:, :0])), "holds no images"),
    "none.npy": (npy((0, 8, 8), b""), "holds no images"), "flat.npy": (npy((5, 8, 0, 3), b""), "holds no images"),
    "none-idx3": (idx(5, 0, 0), "does not hold images"), "no-idx3": (idx(0, 5, 5), "does not hold images"),
    "0.tiff": (image("TIFF").replace(struct.pack("<HHII", 256, 4, 1, 5), struct.pack("<HHII", 256, 4, 1, 0))
               .replace(struct.pack("<HHIHH", 256, 3, 1, 5, 0), struct.pack("<HHIHH", 256, 3, 1, 0, 0)), "'0.tiff'"),
    "0.png": (empty_png(0, 8, 0, 1), "'0.png'"), "0.ppm": (b"P5\n0 0\n255\n", "'0.ppm'"),
    "0.gif": (b"GIF89a" + bytes(7) + b";", "'0.gif'"),
}  # fmt: skip
LIES = {"lie.npy": (npy((10**6, 1000, 1000), bytes(99)), "can't be read"), "lie-idx3": (idx(2**31, 2**31, 9), "can't be read")}
BOMBS = {f"{depth}-{kind}.png": (empty_png(8000, depth, kind, channels), "as of an empty image")
         for depth, kind, channels in ((16, 0, 1), (16, 2, 3), (8, 6, 4))}  # fmt: skip
BOMBS |= {"l.webp": (empty("WEBP", "RGB", lossless=True, method=0), "as of an empty image"),
          "t.tiff": (empty("TIFF", "I;16", compression="tiff_adobe_deflate"), "as of an empty image")}  # fmt: skip
ZIPPED = gzip.compress(idx(4, 6, 5, content=bytes(120)))
DAMAGED = {
    "cut-idx3.gz": (ZIPPED[:-12], "can't be read as an idx file"), "bits-idx3.gz": (ZIPPED[:12] + b"\xff" * 9, "can't be read"),
    "cut.tar.gz": (gzip.compress(tar(tarfile.PAX_FORMAT))[:-30], "is no folder, .npz, .npy, .tar nor idx file"),
    "cut.tar": (tar(tarfile.PAX_FORMAT)[:700], "no images in"),
}  # fmt: skip
HOSTILE = WITHOUT_PIXELS | LIES | BOMBS | DAMAGED


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_none_or_too_much_is_named(tmp_path: Path, name: str) -> None:
    content, sentence = HOSTILE[name]
    said = within_limits(tmp_path / "d", name, content)
    assert any(sentence in line for line in said), said
