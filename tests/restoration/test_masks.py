"""Masks of every kind that editors write, against the hole that was painted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch.nn import functional

from unnoise.restoration.masks import read_mask
from unnoise.restoration.tasks import Inpaint
from unnoise.utils.errors import UserError

SIZE = (48, 64)


def disc(scale: int = 1) -> Image.Image:
    """White in black, (64, 48) pixels times `scale`."""
    image = Image.new("L", (SIZE[1] * scale, SIZE[0] * scale))
    ImageDraw.Draw(image).ellipse([14 * scale, 10 * scale, 40 * scale, 36 * scale], fill=255)
    return image


def antialiased() -> Image.Image:
    return disc(8).resize((SIZE[1], SIZE[0]), Image.Resampling.BOX)


def paint(colour: str, alpha: Image.Image, below: str = "black") -> Image.Image:
    """`colour` where alpha is, as editors export a layer."""
    image = Image.composite(Image.new("RGB", alpha.size, colour), Image.new("RGB", alpha.size, below), alpha)
    image.putalpha(alpha)
    return image


def opaque(image: Image.Image) -> Image.Image:
    image = image.convert("RGB")
    image.putalpha(255)
    return image


SHARP, SOFT = np.asarray(disc()) > 0, np.asarray(antialiased()) > 0
KINDS: dict[str, tuple[Callable[[], Image.Image], np.ndarray, str, bool]] = {  # how made, the hole, ending, inverted
    "black and white": (disc, SHARP, "png", False),
    "of one bit": (lambda: disc().convert("1"), SHARP, "png", False),
    "antialiased": (antialiased, SOFT, "png", False),
    "of values 0 and 1": (lambda: disc().point(lambda v: v // 255), SHARP, "png", False),
    "palette": (lambda: disc().convert("RGB").quantize(2), SHARP, "png", False),
    "colour on black": (lambda: Image.composite(Image.new("RGB", (64, 48), "blue"), Image.new("RGB", (64, 48)), disc()),
                        SHARP, "png", False),
    "red paint on transparency": (lambda: paint("red", antialiased()), SOFT, "png", False),
    "black paint on transparency": (lambda: paint("black", antialiased(), "white"), SOFT, "png", False),
    "palette and transparency": (lambda: paint("red", disc()).quantize(8), SHARP, "png", False),
    "paint on transparency, WebP": (lambda: paint("red", antialiased()), SOFT, "webp", False),
    "opaque alpha": (lambda: opaque(disc()), SHARP, "png", False),
    "16 bits": (lambda: Image.fromarray(np.asarray(antialiased()).astype(np.uint16) * 257), SOFT, "png", False),
    "TIFF": (disc, SHARP, "tif", False),
    "inverted": (lambda: disc().point(lambda v: 255 - v), SHARP, "png", True),
    "inverted, antialiased": (lambda: antialiased().point(lambda v: 255 - v), SOFT, "png", True),
    "an erased hole": (lambda: paint("green", antialiased().point(lambda v: 255 - v)), SOFT, "png", True),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_hole_is_found(tmp_path: Path, kind: str) -> None:
    """Exactly, edges painted in part among it; with its fraction, and no question where it is as it should be."""
    make, hole, ending, inverted = KINDS[kind]
    path = tmp_path / f"mask.{ending}"
    make().save(path)
    found = read_mask(path, inverted)
    assert np.array_equal(found.known.numpy() == 0, hole)
    assert f"{100 * hole.mean():.3g} % of the pixels are missing" in found.said and "?" not in found.said


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("make", [disc, antialiased], ids=["sharp", "antialiased"])
def test_a_compressed_mask(tmp_path: Path, make: Callable[[], Image.Image], quality: int) -> None:
    """Nothing of the hole is left out, and nothing more than 2 pixels from it is taken."""
    make().save(tmp_path / "mask.jpg", quality=quality)
    found = read_mask(tmp_path / "mask.jpg").known.numpy() == 0
    hole = np.asarray(make()) > 0
    near = functional.max_pool2d(torch.from_numpy(hole).float()[None], 5, stride=1, padding=2)[0].numpy() > 0
    assert found[hole].all() and not found[~near].any()


@pytest.mark.parametrize(("kind", "what"), [("inverted", "black"), ("an erased hole", "transparent")])
def test_what_looks_inverted_is_asked_about(tmp_path: Path, kind: str, what: str) -> None:
    """With what to give; many missing pixels alone are no reason."""
    KINDS[kind][0]().save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").said.endswith(f"is it {what} where pixels are missing? then give --invert-mask")
    many = (np.random.default_rng(0).random(SIZE) < 0.8).astype(np.uint8) * 255
    Image.fromarray(many).save(tmp_path / "many.png")
    assert "?" not in read_mask(tmp_path / "many.png").said


@pytest.mark.parametrize(
    ("image", "hint"),
    [
        (Image.new("L", (8, 8)), "no pixel is missing in the mask .* make it white where pixels are missing"),
        (Image.new("L", (8, 8), 255), "all pixels are missing in the mask .* and exactly black elsewhere"),
        (Image.new("L", (8, 8), 5), "all pixels are missing"),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "no pixel is missing"),
        (Image.new("RGBA", (8, 8), (255, 0, 0, 255)), "all pixels are missing"),
    ],
)
def test_a_mask_that_means_nothing(tmp_path: Path, image: Image.Image, hint: str) -> None:
    image.save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=hint):
        read_mask(tmp_path / "mask.png")


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    disc().save(tmp_path / "mask.png")
    with pytest.raises(UserError, match="the mask has 48x64 pixels and the image 64x48: make them the same size"):
        Inpaint(read_mask(tmp_path / "mask.png").known).check(1, (64, 48))
