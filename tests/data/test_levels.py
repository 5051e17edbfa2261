"""Values of any kind to 8 bits: ranges and bands, given or not, and what is said where they are in doubt."""

import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.files import encoded, png16
from unnoise.data.arrays import InMemory
from unnoise.data.fit import Fit
from unnoise.data.folder import ImageFolder
from unnoise.data.levels import to_levels
from unnoise.data.sources import DataConfig
from unnoise.recipe import Recipe, override
from unnoise.registry import from_json, to_json
from unnoise.restoration.files import read_file
from unnoise.utils.errors import UserError

tifffile = pytest.importorskip("tifffile")
RNG = np.random.default_rng(0)
SIZE = (10, 12)


def values(kind: str, bands: int = 1, low: float = 0, high: float = 4095) -> np.ndarray:
    """(H, W, C) of this type, both ends of the range among them."""
    made = RNG.random((*SIZE, bands)) * (high - low) + low
    made.flat[0], made.flat[1] = low, high
    return made.astype(kind)


def tiff(path: Path, pixels: np.ndarray, planar: bool = False, **options: Any) -> None:
    """A TIFF of (H, W, C), stored band by band with `planar`."""
    bands = pixels.shape[2]
    if bands == 1:
        tifffile.imwrite(path, pixels[..., 0], **options)
        return
    stored = pixels.transpose(2, 0, 1) if planar else pixels
    options = {"photometric": "rgb" if bands in (3, 4) else "minisblack"} | options
    tifffile.imwrite(path, stored, planarconfig="separate" if planar else "contig", **options)


def expected(pixels: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    low, high = value_range
    levels: np.ndarray = np.round((np.clip(pixels.astype(float), low, high) - low) * 255 / (high - low)).astype(np.uint8)
    return levels


TYPES = [("uint8", 0, 200), ("uint16", 0, 4095), ("int16", -1000, 3000), ("uint32", 0, 3e9), ("int32", -5, 10**6),
         ("float32", 0, 1), ("float64", -1, 1)]  # fmt: skip


@pytest.mark.parametrize(("bands", "planar"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize(("kind", "low", "high"), TYPES, ids=[t[0] for t in TYPES])
def test_a_range_is_black_to_white(tmp_path: Path, kind: str, low: float, high: float, bands: int, planar: bool) -> None:
    """Every kind of number, grey and colour, band after band or pixel after pixel."""
    pixels = values(kind, bands, low, high)
    tiff(tmp_path / "a.tif", pixels, planar)
    found = DataConfig(ImageFolder(str(tmp_path)), range=(low, high)).load()
    assert not found.skipped and np.abs(found.pixels[0].astype(int) - expected(pixels, (low, high))).max() <= (kind == "float32")
    assert found.pixels.min() == 0 and found.pixels.max() == 255
    restored = read_file(tmp_path / "a.tif", Fit(range=(low, high)), 16)
    exact = (np.clip(pixels.astype(float), low, high) - low) * (1 if kind == "uint8" else 257) * 255 / (high - low)
    assert np.abs(restored.values - exact).max() <= 0.51 + (kind == "float32")
    assert restored.notes == (f"values {low:.12g} to {high:.12g} are black to white",)


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_a_range_of_png(tmp_path: Path, bands: int) -> None:
    """Of 16 bits, which Pillow cuts to 8 in colour; alpha keeps its own range."""
    pixels = values("uint16", bands)
    if bands in (2, 4):
        pixels[..., -1] = 65535
    (tmp_path / "a.png").write_bytes(png16(pixels))
    found = ImageFolder(str(tmp_path)).read(Fit(range=(0, 4095))).pixels[0]
    truth = expected(pixels[..., : 1 if bands < 3 else 3], (0, 4095))
    assert np.array_equal(found, truth if bands != 2 else np.repeat(truth, 3, axis=2))  # Pillow has it as colour
    restored = read_file(tmp_path / "a.png", Fit(range=(0, 4095)))
    assert np.array_equal(restored.values, truth) and (restored.alpha is None) == (bands in (1, 3))
    assert restored.alpha is None or restored.alpha.min() == 255


def test_a_range_of_a_turned_png(tmp_path: Path) -> None:
    """Colours of 16 bits are turned as those of 8 are, in training and restoring."""
    pixels, exif = values("uint16", 3), Image.Exif()
    exif[0x0112] = 6
    plain, tag = png16(pixels), encoded(pixels.astype(np.uint8), "PNG", exif=exif)
    start, end = tag.index(b"eXIf") - 4, tag.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(plain[:33] + tag[start:end] + plain[33:])
    upright = np.rot90(expected(pixels, (0, 4095)), -1)
    fit = Fit(range=(0, 4095))
    assert np.array_equal(ImageFolder(str(tmp_path)).read(fit).pixels[0], upright)
    assert np.array_equal(read_file(tmp_path / "a.png", fit).values, upright)


def test_without_a_range_all_of_the_type_is_meant(tmp_path: Path) -> None:
    wide = values("uint16", 1, 0, 65535)
    tiff(tmp_path / "a.tif", wide)
    tiff(tmp_path / "b.tif", values("uint8", 1, 0, 255))
    assert np.array_equal(ImageFolder(str(tmp_path)).read(Fit()).pixels[0], np.round(wide / 257))
    colour = values("uint16", 3, 0, 65535)
    tiff(tmp_path / "a.tif", colour, planar=True)
    assert np.array_equal(ImageFolder(str(tmp_path)).read(Fit()).pixels[0], np.round(colour / 257))


REFUSED = [  # what is in the file, how it is read, words of the reason
    ("float32", 1, {}, r"floating-point values, 0 to 4095 here, have no known range: give data\.range, e\.g\. 0,5000"),
    ("float64", 3, {}, r"floating-point values.* give data\.range"),
    ("uint32", 1, {"high": 70000}, r"beyond 16 bits, 0 to 70000 here, .* give data\.range, e\.g\. 0,70000"),
    ("int16", 1, {"low": -9}, r"have no known range: give data\.range"),
    ("uint8", 5, {"high": 200}, r"5 bands, and it does not say which are colours: give data\.bands, e\.g\. 1,2,3"),
    ("uint16", 13, {}, r"13 bands"),
    ("uint16", 2, {}, r"2 bands"),
]


@pytest.mark.parametrize(("kind", "bands", "how", "words"), REFUSED, ids=[f"{r[0]}-{r[1]}" for r in REFUSED])
def test_what_has_no_known_meaning_is_refused_with_the_way(
    tmp_path: Path, kind: str, bands: int, how: dict[str, float], words: str
) -> None:
    tiff(tmp_path / "a.tif", values(kind, bands, **how))
    with pytest.raises(UserError, match=words):
        ImageFolder(str(tmp_path)).read(Fit())


def test_numbers_that_are_none_and_ranges_of_other_bits(tmp_path: Path) -> None:
    holed = values("float32", 1, 0, 1)
    holed[3, 3] = np.nan
    tiff(tmp_path / "a.tif", holed)
    with pytest.raises(UserError, match="NaN"):
        ImageFolder(str(tmp_path)).read(Fit(range=(0, 1)))
    (tmp_path / "a.tif").write_bytes(encoded(values("uint8", 3, 0, 255), "TIFF"))
    with pytest.raises(UserError, match="8 bits, for which the range 0,4095 is not meant"):
        ImageFolder(str(tmp_path)).read(Fit(range=(0, 4095)))
    with pytest.raises(ValueError, match="no known range"):
        to_levels(np.array([np.nan, np.inf]), None)


BANDS = [(kind, n, planar) for kind in ("uint8", "uint16", "float32") for n in (4, 5, 13) for planar in (False, True)]


@pytest.mark.parametrize(("kind", "count", "planar"), BANDS)
def test_bands_are_chosen_by_number(tmp_path: Path, kind: str, count: int, planar: bool) -> None:
    """Three as red, green and blue in the order given, or one as grey."""
    pixels = values(kind, count, 0, 200)
    tiff(tmp_path / "a.tif", pixels, planar, photometric="minisblack")
    for bands in ((4, 2, 1), (3,)):
        found = ImageFolder(str(tmp_path)).read(Fit(bands=bands, range=(0, 200))).pixels[0]
        assert np.array_equal(read_file(tmp_path / "a.tif", Fit(bands=bands, range=(0, 200))).values, found)
        assert np.abs(found.astype(int) - expected(pixels[..., [b - 1 for b in bands]], (0, 200))).max() <= (kind == "float32")
    with pytest.raises(UserError, match=f"it has {count} bands, none of number 14"):
        ImageFolder(str(tmp_path)).read(Fit(bands=(14,), range=(0, 200)))


def test_bands_of_ordinary_images(tmp_path: Path) -> None:
    """Of RGBA the colours, without the background; of RGB one; pages as bands where there are so many."""
    rgba = RNG.integers(0, 256, (*SIZE, 4), dtype=np.uint8)
    for format in ("PNG", "TIFF", "WEBP"):
        (tmp_path / "a").write_bytes(encoded(rgba, format, **({"lossless": True, "exact": True} if format == "WEBP" else {})))
        for bands in ((1, 2, 3), (3, 2, 1), (4,)):
            found = ImageFolder(str(tmp_path)).read(Fit(bands=bands)).pixels[0]
            assert np.array_equal(found, rgba[..., [b - 1 for b in bands]]), (format, bands)
    pages = values("uint16", 3, 0, 65535)
    tifffile.imwrite(tmp_path / "a", pages.transpose(2, 0, 1), photometric="minisblack")  # as numpy's axes first
    assert np.array_equal(ImageFolder(str(tmp_path)).read(Fit()).pixels[0], np.round(pages[..., :1] / 257))
    assert np.array_equal(ImageFolder(str(tmp_path)).read(Fit(bands=(3, 1, 2))).pixels[0], np.round(pages[..., [2, 0, 1]] / 257))


@pytest.mark.parametrize("said", [None, 0, 1, 2])
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_a_fourth_band_is_alpha_where_the_file_says_so(tmp_path: Path, kind: str, said: int | None) -> None:
    """Where it says nothing (or that it is unspecified), the colours count alone."""
    pixels = values(kind, 4, 0, np.iinfo(kind).max)
    path, tag = tmp_path / "a.tif", struct.pack("<HHI", 338, 3, 1)
    tiff(path, pixels, planar=kind == "uint16", extrasamples=(said or 0,))
    assert path.read_bytes().count(tag) == 1
    if said is None:
        path.write_bytes(path.read_bytes().replace(tag, struct.pack("<HHI", 65338, 3, 1)))  # a tag that nobody knows
    colours = expected(pixels[..., :3], (0, np.iinfo(kind).max)).astype(int)
    found = ImageFolder(str(tmp_path)).read(Fit()).pixels[0]
    assert (np.abs(found - colours).max() <= 1) == (said in (None, 0))


def note(folder: Path, fit: Fit | None = None) -> str:
    return "\n".join(ImageFolder(str(folder)).read(fit or Fit()).notes)


DULL = [  # type, bands, lowest and highest value, words of the note, None for no note
    ("uint16", 1, 0, 4095, r"16 bits, but values from 0 to 4095 only.*dark: give data\.range, e\.g\. 0,4095"),
    ("uint16", 3, 0, 4095, r"come out dark: give data\.range, e\.g\. 0,4095"),
    ("uint16", 1, 3, 1023, r"data\.range, e\.g\. 0,1023"),
    ("uint16", 1, 29000, 31000, r"come out flat: give data\.range, e\.g\. 29000,31000"),
    ("uint16", 1, 0, 65000, None),
    ("uint16", 3, 100, 40000, None),
    ("uint8", 1, 0, 1, r"8 bits, but values from 0 to 1 only.*data\.range, e\.g\. 0,1"),
    ("uint8", 1, 0, 200, None),
    ("uint8", 3, 0, 200, None),
]


@pytest.mark.parametrize(("kind", "bands", "low", "high", "words"), DULL)
def test_a_range_in_doubt_is_said(tmp_path: Path, kind: str, bands: int, low: int, high: int, words: str | None) -> None:
    for k in range(3):
        tiff(tmp_path / f"{k}.tif", values(kind, bands, low, high))
    found = note(tmp_path)
    assert re.search(words, found) if words else "data.range" not in found
    assert "data.range" not in note(tmp_path, Fit(range=(low, high)))


def test_a_fourth_band_that_does_not_look_like_alpha_is_said(tmp_path: Path) -> None:
    """Near infrared that was saved as RGBA; and real transparency, which is mostly all or nothing."""
    rgba = RNG.integers(40, 200, (*SIZE, 4), dtype=np.uint8)
    (tmp_path / "a.tif").write_bytes(encoded(rgba, "TIFF"))
    assert "near infrared, give data.bands 1,2,3" in note(tmp_path)
    assert "data.bands" not in note(tmp_path, Fit(bands=(1, 2, 3)))
    rgba[..., 3] = np.where(rgba[..., 0] > 100, 255, 0)
    (tmp_path / "a.tif").write_bytes(encoded(rgba, "TIFF"))
    assert "data.bands" not in note(tmp_path)


def test_without_tifffile_the_way_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0\0\0")
    with pytest.raises(UserError, match=r"pip install 'unnoise\[tiff\]'"):
        ImageFolder(str(tmp_path)).read(Fit())


def test_they_are_part_of_the_recipe_and_of_the_cache(tmp_path: Path) -> None:
    recipe = override(Recipe(), {"data.source": ImageFolder(str(tmp_path)), "data.range": [0, 4095], "data.bands": [1]})
    assert from_json(Recipe, to_json(recipe)) == recipe and recipe.data.fit.range == (0, 4095) and recipe.data.fit.bands == (1,)
    tiff(tmp_path / "a.tif", values("uint16"))
    dark, bright = (ImageFolder(str(tmp_path)).read(Fit(range=r)).pixels for r in (None, (0.0, 4095.0)))
    assert dark.max() == 16 and bright.max() == 255  # not the first one's cache
    for wrong in ({"range": (5, 5)}, {"range": (0, np.inf)}, {"bands": ()}, {"bands": (1, 2)}, {"bands": (0,)}):
        with pytest.raises(UserError, match=r"data\.(range|bands)"):
            DataConfig(**wrong)


def test_arrays_take_them_too() -> None:
    pixels = RNG.integers(0, 16, (3, *SIZE, 3), dtype=np.uint8)
    found = InMemory(pixels).read(Fit(range=(0, 15), bands=(2,))).pixels
    assert np.array_equal(found, expected(pixels[..., 1:2], (0, 15)))
    with pytest.raises(UserError, match="none of number 4"):
        InMemory(pixels).read(Fit(bands=(4,)))


def test_the_values_of_a_palette_are_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(RNG.integers(0, 100, (*SIZE, 3), dtype=np.uint8)).quantize(16)
    image.save(tmp_path / "a.png")
    found = ImageFolder(str(tmp_path)).read(Fit(range=(0, 100))).pixels[0]
    assert np.array_equal(found, expected(np.asarray(image.convert("RGB")), (0, 100)))
