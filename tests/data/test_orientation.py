"""EXIF orientation: every format, in training, in headers and alone, against Pillow's own transposition."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.data.files import tiled, write_tar
from unnoise.data.decode import decode, decode_image, read_header
from unnoise.data.fit import Fit
from unnoise.data.folder import ImageFolder
from unnoise.data.tar import TarShards
from unnoise.data.wide import read_wide
from unnoise.restoration.files import read_file

FORMATS = {"JPEG": ".jpg", "MPO": ".mpo", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "AVIF": ".avif"}
MODES = ["RGB", "L", "RGBA", "P", "1", "CMYK", "I;16"]
HOLDS = {"JPEG": "RGB L CMYK", "MPO": "RGB L", "PNG": "RGB L RGBA P 1 I;16", "WEBP": "RGB RGBA", "AVIF": "RGB RGBA",
         "TIFF": "RGB L RGBA P 1 CMYK I;16"}  # fmt: skip
CASES = [(f, m) for f in FORMATS for m in MODES if m in HOLDS[f].split()]
SIZE = (24, 40)  # height and width as stored


def write(folder: Path, format: str, mode: str, orientation: int) -> Path:
    """A file whose pixels are stored as they are and are to be turned."""
    if format == "AVIF" and "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow writes no AVIF")
    image = Image.fromarray(tiled(1, SIZE))
    if mode == "I;16":
        image = Image.fromarray(tiled(1, SIZE)[..., 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"tiffinfo": {0x0112: orientation}} if format == "TIFF" else {"exif": exif}
    path = folder / f"a{FORMATS[format]}"
    image.save(path, format, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("format", "mode"), CASES, ids=[f"{f}-{m}" for f, m in CASES])
def test_every_format_and_mode_is_upright(tmp_path: Path, format: str, mode: str, orientation: int) -> None:
    path = write(tmp_path, format, mode, orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(path.read_bytes())))  # by name Pillow scrambles TIFFs that it maps
    if mode == "I;16":
        truth = np.round(np.asarray(upright) / 257).astype(np.uint8)
    else:
        truth = np.asarray(upright.convert("L" if mode in ("L", "1") else "RGB"))
    h, w = SIZE if orientation < 5 else SIZE[::-1]
    header = read_header(path)
    assert truth.shape[:2] == (h, w) == (header.height, header.width)
    write_tar(tmp_path / "a.tar", [(path.name, path.read_bytes())])
    read = [decode(path), decode_image(path)]
    read += [Image.fromarray(s.read(Fit()).pixels[0].squeeze()) for s in (ImageFolder(str(tmp_path)),
                                                                           TarShards(str(tmp_path / "a.tar")))]  # fmt: skip
    for image in read:
        assert np.array_equal(np.asarray(image), truth)
    crops: list[Image.Image] = []
    decode(path, Fit((8, 8)), lambda image: crops.append(image) or image)  # type: ignore[func-returns-value]
    assert np.array_equal(np.asarray(crops[0]), truth)
    for fit in (Fit((12, 10), "squash"), Fit((12, 10) if h == SIZE[0] else (10, 12), "pad"), Fit((9, 12))):
        small, whole = (np.asarray(image).astype(int) for image in (decode(path, fit), fit(Image.fromarray(truth))))
        assert small.shape == whole.shape and np.abs(small - whole).mean() < 2, fit


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_with_more_than_pillow_holds_is_upright(tmp_path: Path, orientation: int) -> None:
    """Pillow reads its planes of 16 bits wrongly, and where it is asked for a range it would cut to 8."""
    tifffile = pytest.importorskip("tifffile")
    values = tiled(2, SIZE).astype(np.uint16) * 257
    for planar, stored in (("contig", values), ("separate", values.transpose(2, 0, 1))):
        path = tmp_path / f"{planar}.tif"
        tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar, extratags=[(274, 3, 1, orientation, True)])
        assert read_wide(path, None).orientation == (1 if planar == "contig" else orientation)  # what is still to be applied
        plain = tmp_path / "plain.tif"
        Image.fromarray(tiled(2, SIZE)).save(plain, tiffinfo={0x0112: orientation})
        truth = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(plain.read_bytes()))))
        assert np.array_equal(np.asarray(decode(path, Fit(range=(0, 65535)))), truth)
        assert np.array_equal(np.asarray(decode(path)), truth)
        assert np.array_equal(read_file(path, bits=16).values, truth * np.uint16(257))
        header = read_header(path, Fit(range=(0, 65535)))
        assert (header.height, header.width) == truth.shape[:2]


@pytest.mark.parametrize("value", [0, 9, 65535])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_an_orientation_that_there_is_not(tmp_path: Path, format: str, value: int) -> None:
    path = write(tmp_path, format, "RGB", value)
    assert np.array_equal(np.asarray(decode(path)), np.asarray(Image.open(path)))
