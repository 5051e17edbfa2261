"""Folders of image files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.files import PIXELS, png, write_pngs, write_rejected
from unnoise.data.fit import Fit
from unnoise.data.folder import ImageFolder, usual_size
from unnoise.data.sources import DataConfig
from unnoise.recipe import Recipe, override
from unnoise.registry import from_json, to_json
from unnoise.utils.errors import UserError


def test_nothing_usable_stops(tmp_path: Path) -> None:
    reasons = write_rejected(tmp_path)
    count = sum("not a file" not in r and "No such" not in r and "links" not in r for r in reasons.values())
    with pytest.raises(UserError, match=f"none of the {count} files"):
        ImageFolder(str(tmp_path)).read(Fit((8, 8)))
    with pytest.raises(UserError, match="no images in"):
        ImageFolder(str(tmp_path / "folder.jpg")).read(Fit((8, 8)))
    (tmp_path / "folder.jpg" / "x.psd").write_bytes(b"8BPS")
    with pytest.raises(UserError, match=r"no images in .*left out: Photoshop \(1, e\.g\. 'x\.psd'\): save them as PNG"):
        ImageFolder(str(tmp_path / "folder.jpg")).read(Fit((8, 8)))


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    for k, p in enumerate(PIXELS):
        folder = tmp_path / ("cats", "dogs/small")[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{k}.png").write_bytes(png(p))
    images = ImageFolder(str(tmp_path), subfolders=True).read(Fit())
    assert images.classes == ("cats", "dogs") and images.labels is not None and list(images.labels) == [0, 0, 0, 1, 1, 1]
    assert ImageFolder(str(tmp_path)).read(Fit()).labels is None
    (tmp_path / "stray.png").write_bytes(png(PIXELS[0]))
    with pytest.raises(UserError, match=r"'stray\.png' lies in no sub-folder"):
        ImageFolder(str(tmp_path), subfolders=True).read(Fit())


def test_its_own_size_counts_unless_the_recipe_says_another(tmp_path: Path) -> None:
    """The pixels are those of a folder without a size that is read at the size that counts."""
    path = str(write_pngs(tmp_path / "p", 3, (90, 70)))
    Size = tuple[int, int]
    cases: list[tuple[int | Size, Size | None, Size]] = [
        (64, None, (64, 64)), ((32, 48), None, (32, 48)), (64, (16, 24), (16, 24)),
    ]  # fmt: skip
    for own, asked, expected in cases:
        images = DataConfig(ImageFolder(path, own), size=asked).load()
        assert images.shape == (3, *expected)
        assert np.array_equal(images.pixels, ImageFolder(path).read(Fit(expected)).pixels)
    recipe = override(Recipe(), {"data.source": ImageFolder(path, 64)})
    again = from_json(Recipe, to_json(recipe))
    assert again == recipe and again.data.load().shape == (3, 64, 64)


def test_background_shows_where_an_image_is_transparent(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([PIXELS[0], np.zeros((8, 8), np.uint8)])).save(tmp_path / "clear.png")
    assert DataConfig(ImageFolder(str(tmp_path))).load().pixels.min() == 255
    assert DataConfig(ImageFolder(str(tmp_path)), background="black").load().pixels.max() == 0
    with pytest.raises(UserError, match="did you mean 'black'"):
        DataConfig(background="blak")


@pytest.mark.parametrize(
    ("shape", "resize", "said"),
    [
        ((150, 400), "crop", "cropped to 64x64, which keeps the middle 38% of the usual image, 2.7 times as wide as high: "
                             "data.size 24,64 keeps more"),
        ((400, 150), "crop", "2.7 times as high as wide: data.size 64,24"),
        ((150, 400), "squash", None),
        ((150, 400), "pad", None),
        ((90, 100), "crop", None),
    ],
)  # fmt: skip
def test_what_cropping_cuts_away_is_said(shape: tuple[int, int], resize: str, said: str | None, tmp_path: Path) -> None:
    for k in range(3):
        Image.new("RGB", (shape[1], shape[0]), (10 * k, 0, 0)).save(tmp_path / f"{k}.png")
    notes = " | ".join(ImageFolder(str(tmp_path)).read(Fit((64, 64), resize), tmp_path / "cache").notes)
    assert (said in notes) if said else ("crop" not in notes)


def test_the_usual_size() -> None:
    assert usual_size([]) is None and usual_size([(30, 50)]) == (30, 50)
    assert usual_size([(124, 401), (165, 392), (176, 395), (150, 400), (160, 398)]) == (160, 398)
    assert usual_size([(300, 400), (300, 401), (900, 1200)]) == (300, 300)  # it cuts a quarter
    assert usual_size([(200, 400), (400, 200), (200, 401), (401, 200)]) == (200, 200)  # upright and flat ones
