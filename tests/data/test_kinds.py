"""Image files by their first bytes, whatever they are called: read, or left out by name with what to do."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from tests.data.files import encoded, tiled, write_tar
from unnoise import figures
from unnoise.data.decode import decode_image
from unnoise.data.fit import Fit
from unnoise.data.folder import ImageFolder
from unnoise.data.kinds import BY_EXTENSION, KINDS, is_generated, kind_of
from unnoise.data.tar import TarShards
from unnoise.utils.errors import UserError

AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
READ = ["JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", pytest.param("AVIF", marks=AVIF)]  # Pillow's names
EXACT = {"PNG", "BMP", "TIFF", "PPM"}
BIG = b"\0\0\0\x18ftyp"
LEFT_OUT = [  # the file's name, its first bytes, words of the note
    ("a.heic", BIG + b"heic\0\0\0\0mif1heic", r"HEIC .*pip install 'unnoise\[heif\]'"),
    ("a.jpg", BIG + b"heic\0\0\0\0mif1heic", r"HEIC .*pip install 'unnoise\[heif\]'"),  # as phones send them
    ("a", BIG + b"mif1\0\0\0\0mif1heic", r"HEIC .*pip install"),
    ("a.CR2", b"II*\0\x10\0\0\0CR\2\0", "camera raw .*export them as TIFF or JPEG"),
    ("a", b"II*\0\x10\0\0\0CR\2\0", "camera raw"),
    ("a.cr3", BIG + b"crx \0\0\0\1crx isom", "camera raw"),
    ("a.NEF", b"MM\0*\0\0\0\x08", "camera raw"),
    ("a.dng", b"II*\0\x08\0\0\0", "camera raw"),
    ("a.RAF", b"FUJIFILMCCD-RAW 0201", "camera raw"),
    ("a.orf", b"IIRO\x08\0\0\0", "camera raw"),
    ("a.rw2", b"IIU\0\x18\0\0\0", "camera raw"),
    ("a.psd", b"8BPS\0\1", "Photoshop .*save them as PNG"),
    ("a.txt", b"8BPS\0\1", "Photoshop"),
    ("a.svg", b"<?xml version='1.0'?>\n<!-- by hand -->\n<svg xmlns=''>", "SVG .*save them as PNG"),
    ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 .*save them as PNG"),
    ("a.j2k", b"\xff\x4f\xff\x51", "JPEG 2000"),
    ("a.jxl", b"\xff\x0a\xfa", "JPEG XL"),
    ("a.jxl", b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
    ("a.exr", b"v/1\x01", "OpenEXR .*save them as TIFF"),
    ("a.dcm", bytes(128) + b"DICM", "DICOM"),
    ("a.tga", b"\0\0\2", "Targa"),
    ("a.ico", b"\0\0\1\0\1\0\x10\x10\0\0\0\0\x20\0", "icon"),
    ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0", "EPS"),
]
NO_IMAGES = [
    ("notes.txt", b"P1 is a grid of BMW"), ("a.json", b"{}"), ("v.mp4", BIG + b"isom\0\0\0\0isomavc1"),
    ("IMG_1.MOV", BIG + b"qt  \0\0\0\0qt  "), ("Thumbs.db", b"\xd0\xcf\x11\xe0"), (".DS_Store", b"\0\0\0\1Bud1"),
    ("README", b"BM"), ("a.pdf", b"%PDF-1.4"), ("page.html", b"<html><svg></svg></html>"), ("sound.wav", b"RIFF    WAVE"),
    ("IMG_1.AAE", b"<?xml version='1.0'?><plist>"), ("empty", b""),
]  # fmt: skip


@pytest.mark.parametrize("name", ["x", "x.jpg", "x.png", "x.HEIC", "x.txt", "x.PNG"])
@pytest.mark.parametrize("format", READ)
def test_the_content_says_what_a_file_is(tmp_path: Path, format: str, name: str) -> None:
    """Each format is read under any name, in folders, tar files and alone, with the pixels that Pillow reads from it."""
    data = encoded(tiled(0), format)
    (tmp_path / name).write_bytes(data)
    write_tar(tmp_path / "shards.tar", [(name, data)])
    truth = np.asarray(Image.open(tmp_path / name).convert("RGB"))
    assert format not in EXACT or np.array_equal(truth, tiled(0))
    shards = TarShards(str(tmp_path / "shards.tar"))
    for pixels in (ImageFolder(str(tmp_path)).read(Fit()).pixels[0], shards.read(Fit()).pixels[0],
                   np.asarray(decode_image(tmp_path / name).convert("RGB"))):  # fmt: skip
        assert np.array_equal(pixels, truth)


@pytest.mark.parametrize(("name", "head", "words"), LEFT_OUT, ids=[f"{n} {h[:12]!r}" for n, h, _ in LEFT_OUT])
def test_other_kinds_are_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, head: bytes, words: str
) -> None:
    """They count as left out, not as damaged; a file that a user names is refused with the same words."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / name).write_bytes(head + bytes(200))
    (tmp_path / "good.png").write_bytes(encoded(tiled(0), "PNG"))
    images = ImageFolder(str(tmp_path)).read(Fit())
    note = next(n for n in images.notes if n.startswith("left out"))
    assert len(images) == 1 and not images.skipped
    assert re.search(words, note) and repr(name) in note
    with pytest.raises(UserError, match=words.partition(" .*")[2] or words.partition(" ")[0]):
        decode_image(tmp_path / name)


@pytest.mark.parametrize(("name", "content"), NO_IMAGES, ids=[n for n, _ in NO_IMAGES])
def test_what_is_no_image_is_not_spoken_of(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "good.png").write_bytes(encoded(tiled(0), "PNG"))
    images = ImageFolder(str(tmp_path)).read(Fit())
    assert len(images) == 1 and not images.skipped and not any("left out" in note for note in images.notes)


@pytest.mark.parametrize("name", ["birme-512x512.zip", "a.tar.gz", "b/c.7z"])
def test_archives_are_said(tmp_path: Path, name: str) -> None:
    """What they hold is not looked at."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match=rf"no images in .* or below; left out: archives \(1, e\.g\. '{name}'\): unpack them"):
        ImageFolder(str(tmp_path)).read(Fit())


def test_heic_is_read_by_the_extra(tmp_path: Path) -> None:
    """Beside other images, and under the name of a JPEG."""
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    for k, name in enumerate(["a.heic", "b.jpg"]):
        (tmp_path / name).write_bytes(encoded(tiled(k, (48, 64)), "HEIF", quality=95))
    (tmp_path / "c.png").write_bytes(encoded(tiled(2, (48, 64)), "PNG"))
    images = ImageFolder(str(tmp_path)).read(Fit())
    truth = np.stack([tiled(k, (48, 64)) for k in range(3)])
    assert len(images) == 3 and np.abs(images.pixels.astype(int) - truth).mean() < 8


def test_a_kind_that_this_pillow_can_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL._avif", None)
    (tmp_path / "a.avif").write_bytes(BIG + b"avif\0\0\0\0mif1avif" + bytes(99))
    with pytest.raises(UserError, match=r"AVIF \(1, e\.g\. 'a\.avif'\): pip install -U pillow"):
        ImageFolder(str(tmp_path)).read(Fit())


def test_each_extension_is_of_one_kind() -> None:
    assert sum(len(kind.extensions.split()) for kind in KINDS) == len({e for kind in KINDS for e in kind.extensions.split()})
    assert {".jfif", ".jpe", ".dib", ".pbm", ".tiff"} <= {extension for extension, kind in BY_EXTENSION.items() if kind.module}
    assert kind_of(b"", ".JPG") is kind_of(b"\xff\xd8\xff\xe0", "")


def test_all_that_this_program_writes_is_known_as_its_own(tmp_path: Path) -> None:
    """Figures, films and PNGs with and without text; and what another program made of the same pixels is not."""
    image = Image.fromarray(tiled(0))
    figures.save(image, tmp_path / "plain.png")
    figures.save(image, tmp_path / "text.png", {"unnoise": "{}", "other": "ü ✈"})
    figures.loss_curve([1, 2], [3.0, 2.0], tmp_path / "curve.png")
    figures.film([image, Image.fromarray(tiled(1))], tmp_path / "film.gif")
    for path in tmp_path.iterdir():
        assert is_generated(path.read_bytes()[:1024]), path.name
    assert Image.open(tmp_path / "plain.png").info["Software"] == "unnoise"
    assert Image.open(tmp_path / "text.png").info["other"] == "ü ✈"
    for format in ("PNG", "GIF", "JPEG"):
        assert not is_generated(encoded(tiled(0), format, comment=b"not unnoise"))
