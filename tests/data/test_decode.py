"""Whatever can be wrong with an image file: no crash, no hang, each rejection with its reason."""

import io
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.data.files import COLOUR, H, W, write_accepted, write_rejected
from unnoise.data import decode as decode_module
from unnoise.data.decode import decode
from unnoise.data.fit import Fit
from unnoise.data.folder import ImageFolder


def test_accepted_images_are_exact(tmp_path: Path) -> None:
    truth = write_accepted(tmp_path)
    images = ImageFolder(str(tmp_path)).read(Fit())
    assert not images.skipped and len(images) == len(truth) >= 30 and images.shape == (3, H, W)
    loose = {"rgba.png", "la.png", "cmyk.tif", "cmyk.jpg"}
    for name, got in zip(sorted(truth, key=lambda n: tmp_path / n), images.pixels, strict=True):
        worst = np.abs(got.astype(int) - truth[name]).max()
        assert worst <= (1 if name in loose else 0), (name, worst)
    assert any("2 animated images" in note for note in images.notes)
    assert any("colour profile" in note for note in images.notes)
    assert any("all taken as colour" in note for note in images.notes)


def test_broken_files_are_named_and_take_no_memory(tmp_path: Path) -> None:
    truth, reasons = write_accepted(tmp_path), write_rejected(tmp_path)
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
    assert any("EPS" in note and "script.eps.png" in note for note in images.notes)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_accepted(tmp_path)
    opened = Image.open

    def guard(file: Any, *args: Any, **options: Any) -> Image.Image:
        if str(file).endswith("l.tiff"):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *args, **options)

    monkeypatch.setattr("unnoise.data.decode.Image.open", guard)
    images = ImageFolder(str(tmp_path)).read(Fit((8, 8)))
    assert len(images.skipped) == 1 and "'l.tiff'" in images.skipped[0] and "Permission denied" in images.skipped[0]


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


def test_broken_metadata_lose_no_image(tmp_path: Path) -> None:
    """XMP that is no UTF-8, EXIF that ends in the middle: the pixels are whole. A profile beyond all measure is named."""
    whole = io.BytesIO()
    Image.fromarray(COLOUR).save(whole, "JPEG", quality=95)
    jpeg = whole.getvalue()
    for name, held in (("xmp", b"http://ns.adobe.com/xap/1.0/\0<x \xa8\xff tiff:Orientation='6'>"), ("exif", b"Exif\0\0MM\0*\0")):
        segment = b"\xff\xe1" + (len(held) + 2).to_bytes(2, "big") + held
        (tmp_path / f"{name}.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    images = ImageFolder(str(tmp_path)).read(Fit())
    assert len(images) == 2 and not images.skipped
    assert np.array_equal(images.pixels, np.stack([np.asarray(Image.open(whole))] * 2))
    Image.fromarray(COLOUR).save(tmp_path / "profile.png", icc_profile=bytes(2**23))
    images = ImageFolder(str(tmp_path)).read(Fit())
    assert "'profile.png': its embedded text or colour profile is too large: save it without metadata" in images.skipped
