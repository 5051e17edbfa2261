"""A folder of everything that can be wrong with an image: no crash, no hang, each rejection with its reason."""

import io
import os
import re
import struct
import subprocess
import sys
import tarfile
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from unnoise.data import cache as cache_module
from unnoise.data import decode as decode_module
from unnoise.data.arrays import Array
from unnoise.data.cache import list_cache
from unnoise.data.dataset import ImageDataset, OnDisk, split
from unnoise.data.decode import Fit, decode
from unnoise.data.tar import TarShards
from unnoise.utils.errors import UserError

RNG = np.random.default_rng(0)
H, W = 16, 24
COLOUR = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (H, W), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (H, W), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (H, W), dtype=np.uint16)


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Composite in exact numbers, to be met within one level (Pillow works in whole numbers)."""
    a = alpha[..., None] / 255
    return np.round(pixels * a + 255 * (1 - a))


def accepted(folder: Path) -> dict[str, np.ndarray]:
    """Files of one size that must be read, with what must come out: (H, W, 3) numbers."""
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
    seen_through = np.asarray(palette.convert("RGB")).copy()
    seen_through[np.asarray(palette) == 3] = 255
    add("p-transparent.png", palette, seen_through, transparency=3)
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
    """Each of red, green, blue is what neither its own ink nor black takes away."""
    ink, black = pixels[..., :3].astype(float), pixels[..., 3:].astype(float)
    colour: np.ndarray = np.round((255 - ink) * (255 - black) / 255)
    return colour


def test_accepted_images_are_exact(tmp_path: Path) -> None:
    truth = accepted(tmp_path)
    images = ImageFolder(str(tmp_path)).read(Fit())
    assert not images.skipped and len(images) == len(truth) >= 30 and images.shape == (3, H, W)
    loose = {"rgba.png", "la.png", "cmyk.tif", "cmyk.jpg"}
    for name, got in zip(sorted(truth, key=lambda n: tmp_path / n), images.pixels, strict=True):
        worst = np.abs(got.astype(int) - truth[name]).max()
        assert worst <= (1 if name in loose else 0), (name, worst)
    assert any("2 are animated" in note for note in images.notes)
    assert any("colour profile" in note for note in images.notes)
    assert any("all taken as colour" in note for note in images.notes)


def png_bomb(side: int) -> bytes:
    """A PNG of side x side zeros, a few thousand bytes."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = part(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    body = part(b"IDAT", zlib.compress(bytes((side // 8 + 1) * side), 9))
    return b"\x89PNG\r\n\x1a\n" + head + body + part(b"IEND", b"")


def rejected(folder: Path) -> dict[str, str]:
    """Entries that must be refused, with a word of the reason."""
    folder.mkdir(exist_ok=True)
    jpeg = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(jpeg, "JPEG", quality=90)
    whole = jpeg.getvalue()
    reasons = {}
    for kind, extension in (("jpg", ".jpg"), ("upper", ".JPEG")):
        for share in (10, 50, 99):
            (folder / f"cut-{kind}-{share}{extension}").write_bytes(whole[: len(whole) * share // 100])
            reasons[f"cut-{kind}-{share}{extension}"] = "truncated"
    for extension in sorted(decode_module.EXTENSIONS):
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
        "folder.jpg": "not a file",
        "broken-link.png": "No such file",
        "loop.png": "symbolic links",
        "script.eps.png": "cannot identify",
        "pipe.jpg": "not a file",
        "half.png": "truncated|Truncated|unrecognized|broken",
    }


def test_torture(tmp_path: Path) -> None:
    truth, reasons = accepted(tmp_path), rejected(tmp_path)
    Image.new("L", (1, 1), 7).save(tmp_path / "one.png")
    Image.new("RGB", (20_000, 1), "red").save(tmp_path / "thin.png")
    (tmp_path / "loop").symlink_to(tmp_path)  # a folder within itself
    assert len(truth) + len(reasons) >= 60
    before, peak, done = psutil.Process().memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], psutil.Process().memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        images = ImageFolder(str(tmp_path)).read(Fit((32, 32)))
    finally:
        done.set()
        watcher.join()
    assert (peak[0] - before) < 100 * 2**20
    assert len(images) == len(truth) + 2
    assert len(images.skipped) == len(reasons)
    for name, words in reasons.items():
        mine = [reason for reason in images.skipped if reason.startswith(f"{name!r}: ")]
        assert len(mine) == 1 and re.search(words, mine[0]), (name, mine)
    assert all("\n" not in reason for reason in images.skipped)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted(tmp_path)
    opened = Image.open

    def guard(file: Any, *args: Any, **options: Any) -> Image.Image:
        if str(file).endswith("l.tiff"):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *args, **options)

    monkeypatch.setattr("unnoise.data.decode.Image.open", guard)
    images = ImageFolder(str(tmp_path)).read(Fit((8, 8)))
    assert len(images.skipped) == 1 and "'l.tiff'" in images.skipped[0] and "Permission denied" in images.skipped[0]


def test_nothing_usable_stops(tmp_path: Path) -> None:
    reasons = rejected(tmp_path)
    files = sum("not a file" not in r and "No such" not in r and "links" not in r for r in reasons.values())
    with pytest.raises(UserError, match=f"none of the {files} files"):
        ImageFolder(str(tmp_path)).read(Fit((8, 8)))
    with pytest.raises(UserError, match="no images in"):
        ImageFolder(str(tmp_path / "folder.jpg")).read(Fit((8, 8)))


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_jpegs_decoded_small_lose_nothing(tmp_path: Path, resize: str, orientation: int) -> None:
    """Against a full decode of the same file: a smooth image of 1,200x900 to 48x64."""
    y, x = np.mgrid[0:900, 0:1200] / 900
    pixels = np.stack([127 + 120 * np.sin(9 * x + 3 * y), 127 + 120 * np.cos(11 * y), 255 * x / x.max()], 2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, exif=exif)
    fit = Fit((48, 64), resize)
    small = np.asarray(decode(tmp_path / "a.jpg", fit)).astype(int)
    whole = np.asarray(fit(decode(tmp_path / "a.jpg"))).astype(int)
    assert np.abs(small - whole).mean() < 0.7 and np.abs(small - whole).max() <= 12
    with Image.open(tmp_path / "a.jpg") as opened:
        decode_module._draft(opened, fit)
        assert opened.width < 1200, "the point is to decode less"


def some(folder: Path, count: int, size: tuple[int, int] = (20, 20)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{k:04d}.png")
    return folder


def test_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, kept = some(tmp_path / "p", 12), tmp_path / "kept"
    first = ImageFolder(str(folder)).read(Fit((8, 8)), kept)
    monkeypatch.setattr(cache_module, "decode", lambda *_: pytest.fail("decoded again"))
    again = ImageFolder(str(folder)).read(Fit((8, 8)), kept)
    assert np.array_equal(first.pixels, again.pixels) and first.fingerprint() == again.fingerprint()
    assert [k.images for k in list_cache(kept)] == [12] and not list(kept.glob("*.tmp"))
    monkeypatch.undo()
    monkeypatch.setenv("UNNOISE_CACHE", str(kept))
    other = ImageFolder(str(folder)).read(Fit((8, 10)))  # other settings, another array
    assert other.shape == (3, 8, 10) and len(list_cache(kept)) == 2
    Image.new("RGB", (20, 20)).save(folder / "0003.png")  # a file that changed is seen
    assert not np.array_equal(ImageFolder(str(folder)).read(Fit((8, 8))).pixels, first.pixels)


def test_two_processes_decode_once(tmp_path: Path) -> None:
    """Both start at once on an empty cache: one builds, the other waits, both see the same."""
    folder, kept = some(tmp_path / "p", 60, (200, 200)), tmp_path / "kept"
    code = (
        "import sys\nfrom pathlib import Path\nfrom unnoise.data import cache\nfrom unnoise.data.decode import Fit\n"
        "from unnoise.data.folder import ImageFolder\ncount = [0]\nreal = cache.decode\n"
        "def counted(*a):\n    count[0] += 1\n    return real(*a)\n"
        "cache.decode = counted\n"
        "images = ImageFolder(sys.argv[1]).read(Fit((16, 16)), Path(sys.argv[2]))\n"
        "print(count[0], images.fingerprint())"
    )
    words = [sys.executable, "-c", code, str(folder), str(kept)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].split() for process in running]
    assert sorted(int(count) for count, _ in said) == [0, 60]
    assert said[0][1] == said[1][1] == ImageFolder(str(folder)).read(Fit((16, 16)), kept).fingerprint()


def test_an_interrupted_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, kept = some(tmp_path / "p", 40), tmp_path / "kept"
    (folder / "broken.png").write_bytes(b"no")
    monkeypatch.setattr(cache_module, "CHUNK", 10)
    real, calls = decode, []

    def stop_after_25(file: Path, *rest: Any) -> Image.Image:
        calls.append(file.name)
        if len(calls) > 25:
            raise KeyboardInterrupt
        return real(file, *rest)

    monkeypatch.setattr(cache_module, "decode", stop_after_25)
    with pytest.raises(KeyboardInterrupt):
        ImageFolder(str(folder)).read(Fit((8, 8)), kept)
    assert len(list(kept.glob("*.tmp"))) == 1 and not any(k.whole for k in list_cache(kept))
    later: list[str] = []

    def count(file: Path, *rest: Any) -> Image.Image:
        later.append(file.name)
        return real(file, *rest)

    monkeypatch.setattr(cache_module, "decode", count)
    images = ImageFolder(str(folder)).read(Fit((8, 8)), kept)
    assert len(images) == 40 and len(later) == 20, "two chunks of ten were done before"
    assert "broken.png" in images.skipped[0]
    fresh = ImageFolder(str(folder)).read(Fit((8, 8)), tmp_path / "fresh")
    assert np.array_equal(images.pixels, fresh.pixels) and np.array_equal(images.hashes, fresh.hashes)


def test_large_sets_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = some(tmp_path / "p", 12)
    small = ImageFolder(str(folder)).read(Fit((8, 8)))
    monkeypatch.setattr(cache_module, "IN_MEMORY", 100)
    large = ImageFolder(str(folder)).read(Fit((8, 8)))
    assert isinstance(large.store, OnDisk) and isinstance(small.store, np.ndarray)
    assert np.array_equal(large.pixels, small.pixels)
    chosen = np.array([7, 2, 2, 11])
    assert np.array_equal(large.read(chosen), small.read(chosen))
    half = large.subset(np.arange(12) % 2 == 1)
    assert np.array_equal(half.read(np.array([0, 5])), small.pixels[[1, 11]]) and len(half) == 6


def test_a_cache_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --cache"):
        ImageFolder(str(some(tmp_path / "p", 2))).read(Fit((8, 8)), tmp_path / "file" / "x")


def test_copies_never_straddle_the_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    unique = rng.integers(0, 256, (300, 4, 4, 1), dtype=np.uint8)
    images = ImageDataset(np.concatenate([unique, unique, unique[:50]]))
    parts = split(images, 0.3)
    assert not set(parts.train.hashes.tolist()) & set(parts.held_out.hashes.tolist())
    assert 0.2 < len(parts.held_out) / len(images) < 0.4
    more = split(ImageDataset(np.concatenate([rng.integers(0, 256, (99, 4, 4, 1), dtype=np.uint8), images.pixels])), 0.3)
    assert set(parts.held_out.hashes.tolist()) <= set(more.held_out.hashes.tolist())
    official = ImageDataset(unique[[0, 1, 2, 0]], test=np.array([False, False, False, True]))
    assert len(split(official, 0.1).train) == 2  # the copy of a test image is not trained on


def tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


def png(k: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), k, dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, with labels; names that reach outside write nothing; what is too large or no file is named."""
    for s in range(4):
        members = [(f"{s}{k}.png", png(10 * s + k)) for k in range(3)] + [(f"{s}{k}.cls", str(k).encode()) for k in range(3)]
        tar(tmp_path / f"t-{s:03d}.tar", members)
    pattern = str(tmp_path / "t-{000..003}.tar")
    images = TarShards(pattern).read(Fit())
    assert [int(p[0, 0, 0]) for p in images.pixels] == [10 * s + k for s in range(4) for k in range(3)]
    assert images.labels is not None and list(images.labels) == [0, 1, 2] * 4 and images.classes == ("0", "1", "2")
    shares = [TarShards(pattern, part=k, parts=2).read(Fit()).pixels[:, 0, 0, 0] for k in range(2)]
    assert sorted(np.concatenate(shares).tolist()) == sorted(images.pixels[:, 0, 0, 0].tolist())
    with pytest.raises(UserError, match="can't be shared among 5"):
        TarShards(pattern, part=0, parts=5).read(Fit())
    with pytest.raises(UserError, match=r"no file '.*t-004"):
        TarShards(str(tmp_path / "t-{000..004}.tar")).read(Fit())

    monkeypatch.setattr("unnoise.data.tar.MAX_BYTES", 5000)
    outside = [("../../outside.png", png(1)), ("/etc/absolute.png", png(2))]
    tar(tmp_path / "bad.tar", [*outside, ("huge.png", bytes(6000)), ("c.png", b"?"), ("x.pkl", b"cos\nsystem\n.")])
    with tarfile.open(tmp_path / "bad.tar", "a") as file:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    bad = TarShards(str(tmp_path / "bad.tar")).read(Fit())
    assert len(bad) == 2 and len(bad.skipped) == 3
    for words in ("huge.png': larger than", "link.png': not a file", "c.png': cannot identify"):
        assert any(words in reason for reason in bad.skipped), bad.skipped
    assert not (tmp_path.parent.parent / "outside.png").exists()
    (tmp_path / "cut.tar").write_bytes((tmp_path / "t-000.tar").read_bytes()[:1600])
    cut = TarShards(str(tmp_path / "cut.tar")).read(Fit())
    assert len(cut) == 2 and any("can't be read (further)" in reason for reason in cut.skipped), cut.skipped


def test_arrays_that_are_refused(tmp_path: Path) -> None:
    for name, array, words in [
        ("pickled", np.array([{}], dtype=object), "plain arrays"),
        ("floats", np.zeros((3, 8, 8), dtype=np.float32), "holds float32"),
        ("wide", np.zeros((3, 8, 8), dtype=np.uint16), "holds uint16"),
        ("four", np.zeros((3, 8, 8, 4), dtype=np.uint8), r"\(N, H, W, 3\)"),
        ("empty", np.zeros((0, 8, 8), dtype=np.uint8), "holds no images"),
    ]:
        for suffix, save in ((".npy", np.save), (".npz", np.savez)):
            save(tmp_path / f"{name}{suffix}", array)
            with pytest.raises(UserError, match=words):
                Array(str(tmp_path / f"{name}{suffix}")).read(Fit())
    pixels = RNG.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "good.npy", pixels)
    assert np.array_equal(Array(str(tmp_path / "good.npy")).read(Fit()).pixels, pixels)
