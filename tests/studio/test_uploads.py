"""Files from the page: what is taken, what is refused, and where it lies."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from tests.studio.conftest import Browser
from unnoise.studio.uploads import MAX_BYTES, Uploads, check_name


def encoded(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def noise(h: int = 8, w: int = 12, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8))


def bomb() -> bytes:
    """A PNG of 30000x30000 black pixels in a few kilobytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")


REFUSED = {
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', 415),
    "SVG with a declaration": (b'<?xml version="1.0"?><!DOCTYPE svg><svg onload="alert(1)"/>', 415),
    "HTML": (b"<!doctype html><script>alert(1)</script>", 415),
    "PDF": (b"%PDF-1.7 " + bytes(100), 415),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(100), 415),
    "nothing": (b"", 415),
    "a text": (b"hello", 415),
    "zip": (b"PK\x03\x04" + bytes(100), 415),
    "PPM": (b"P6 1 1 255 abc", 415),
    "half of a PNG": (encoded(noise(64, 64))[:3000], 415),
    "a PNG's beginning": (b"\x89PNG\r\n\x1a\n<script>", 415),
    "a decompression bomb": (bomb(), 413),
    "17 megapixels": (encoded(Image.new("L", (4200, 4100))), 413),
    "more than 5 MiB": (encoded(noise()) + bytes(MAX_BYTES), 413),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_of_ours(browser: Browser, runs: Path, name: str) -> None:
    content, expected = REFUSED[name]
    before = sorted((runs / ".studio").rglob("*"))
    status, said = browser.refused("POST", "/api/uploads", content=content)
    assert (status == expected and ":" in said) or "can't be read" in said
    assert sorted((runs / ".studio").rglob("*")) == before, "nothing is kept"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_images_are_decoded_and_kept(browser: Browser, runs: Path, kind: str) -> None:
    content = encoded(noise(), kind)
    found = browser.upload(content)
    assert (found["width"], found["height"]) == (12, 8)
    assert (found["image"]["width"], found["image"]["height"]) == (12, 8)
    (path,) = (runs / ".studio" / "images").glob(f"{found['id']}.*")
    assert path.read_bytes() == content


def test_pixels_are_those_of_the_image(browser: Browser) -> None:
    import base64

    image = noise()
    found = browser.upload(encoded(image))["image"]
    rgba = np.frombuffer(base64.b64decode(found["rgba"]), np.uint8).reshape(8, 12, 4)
    assert np.array_equal(rgba[..., :3], np.asarray(image)) and (rgba[..., 3] == 255).all()


def test_turned_images_are_upright(browser: Browser) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = browser.upload(encoded(noise(), "JPEG", exif=exif))
    assert (found["width"], found["height"]) == (8, 12) == (found["image"]["width"], found["image"]["height"])


@pytest.mark.parametrize("number", ["0" * 32, "../digits", "..", "", "*", "?" * 32, "0" * 31 + "*"])
def test_ids_lead_nowhere(browser: Browser, number: str) -> None:
    image = {"upload": number}
    for path, rest in (("/api/learn/denoise", {"t": 0.5}), ("/api/restore", {"task": "denoise"})):
        assert browser.refused("POST", path, json={"run": "digits", "image": image, **rest})[0] in (400, 404)
    assert browser.refused("POST", "/api/inspect", json={"folder": number})[0] in (400, 404)
    assert browser.refused("POST", f"/api/folders/{quote(number, safe='')}/files", content=encoded(noise()))[0] in (400, 404)


NAMES = ["../a.png", "/a.png", "a/../../b.png", "a//b.png", "", ".", "..", ".hidden.png", "a/.ssh/b.png", "a\\..\\b.png",
         "C:a.png", "a\0.png", "a\n.png", "a.png.", "a /b.png", "a/" * 9 + "b.png", "x" * 300, "a*.png", "CON:"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_lead_nowhere(browser: Browser, runs: Path, name: str) -> None:
    number = browser.post("/api/folders")["id"]
    headers = {"X-Filename": quote(name, safe="")}
    status, said = browser.refused("POST", f"/api/folders/{number}/files", content=encoded(noise()), headers=headers)
    assert status == 400 and "can't be a file's name" in said
    assert list((runs / ".studio" / "data" / number).iterdir()) == []


@pytest.mark.parametrize("name", ["a.png", "cats/1.png", "a b/Käse 1.png", "a/b/c/d.jpeg"])
def test_names_of_files_are_kept(name: str) -> None:
    assert "/".join(check_name(name)) == name


def test_a_folder_is_inspected(browser: Browser) -> None:
    number = browser.post("/api/folders")["id"]
    for k in range(6):
        headers = {"X-Filename": quote(f"photos/{'cats' if k % 2 else 'dogs'}/{k} ä.png")}
        browser.client.post(f"/api/folders/{number}/files", content=encoded(noise(40, 48, k)), headers=headers).raise_for_status()
    again = browser.client.post(f"/api/folders/{number}/files", content=encoded(noise(40, 48)), headers=headers)
    assert again.status_code == 409
    bad = browser.client.post(f"/api/folders/{number}/files", content=b"<svg/>", headers={"X-Filename": "a.svg"})
    assert bad.status_code == 415
    found = browser.post("/api/inspect", folder=number)
    assert (found["name"], found["images"], found["unreadable"]) == ("photos", 6, [])
    assert found["classes"] == ["cats", "dogs"] and found["labels"] == "folder" and found["suggested_size"] == [40, 48]
    assert found["sizes"] == [{"size": [40, 48], "count": 6}]
    assert found["sheet"]["width"] > found["sheet"]["height"]


def test_inspecting_says_what_can_not_be_read(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(encoded(noise()))
    (tmp_path / "it's bad.png").write_bytes(encoded(noise())[:40])
    found = browser.post("/api/inspect", path=str(tmp_path))
    assert found["images"] == 1
    assert [file["name"] for file in found["unreadable"]] == ["it's bad.png"] and found["unreadable"][0]["why"]


def test_only_the_last_images_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unnoise.studio.uploads.KEPT", 2)
    uploads = Uploads(tmp_path)
    numbers = [uploads.add(encoded(noise(seed=k)))[0] for k in range(4)]
    assert len(list(uploads.images.iterdir())) == 2
    assert uploads.path(numbers[-1]).is_file()


def test_folders_that_nobody_trains_on_are_removed_after_a_while(tmp_path: Path) -> None:
    import os

    uploads = Uploads(tmp_path)
    old, used, new = (uploads.folder(uploads.new_folder()) for _ in range(3))
    for folder in (old, used):
        os.utime(folder, (0, 0))
    (uploads.folders / "mine").mkdir()
    os.utime(uploads.folders / "mine", (0, 0))
    uploads.forget([used / "photos"])
    assert sorted(p.name for p in uploads.folders.iterdir()) == sorted(["mine", used.name, new.name])
