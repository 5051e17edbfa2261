"""Presets: one short file each; its docstring gives command, hardware, minutes and expected result."""

from dataclasses import replace

from unnoise.data.dataset import Source
from unnoise.data.sources import NOT_BY_NAME
from unnoise.presets import cifar10, digits, fashion_mnist, images, notebook
from unnoise.recipe import Recipe
from unnoise.utils.errors import UserError, nearest

PRESETS: dict[str, Recipe] = {
    "digits": digits.recipe,
    "fashion-mnist": fashion_mnist.recipe,
    "cifar10": cifar10.recipe,
    "images": images.recipe,
    "notebook": notebook.recipe,
}
MAX_SIDE = {"digits": 16, "fashion-mnist": 32}  # small images of any kind are alike enough to share one
DEFAULT_SIDE = 64  # of images that may be larger: what an ordinary machine can learn in an hour
MULTIPLES = {32: 4, 2**30: 8}  # of which the sides are multiples, by the largest side


def find_preset(name: str) -> Recipe:
    """Raises UserError naming the nearest preset."""
    if name not in PRESETS:
        raise UserError(f"unknown preset '{name}': {nearest(name, PRESETS)}")
    return PRESETS[name]


def recipe_for(source: Source, preset: str | None = None, size: int | tuple[int, int] | None = None) -> tuple[str, Recipe]:
    """The preset for a source, and its recipe with that source at `size`, a side or (height, width).

    Without a size it is the source's or the preset's or, of other images, their own, but 64 at most. Without a preset it is the
    one for images of about that size, and for images that are no published data set the end of the training is open.
    """
    asked, said = (((s, s) if isinstance(s, int) else s) for s in (size, source.size))
    own = None if asked or said else source.own_size()
    fitted = asked or said or (fit_size(own) if own else (DEFAULT_SIDE, DEFAULT_SIDE))
    name = preset or next((name for name, side in MAX_SIDE.items() if max(fitted) <= side), "images")
    recipe = find_preset(name)
    chosen = asked or (None if said else recipe.data.size or fitted)
    recipe = replace(recipe, data=replace(recipe.data, source=source, size=chosen))
    if preset is None and isinstance(source, NOT_BY_NAME):
        recipe = replace(recipe, training=replace(recipe.training, minutes=None))
    return name, recipe


def fit_size(own: tuple[int, int], limit: int = DEFAULT_SIDE) -> tuple[int, int]:
    """(height, width) of images of this size in training: no side above `limit`, and such that networks can halve them."""
    scale = min(1.0, limit / max(own))
    h, w = (round(scale * side) for side in own)
    multiple = next(m for largest, m in MULTIPLES.items() if max(h, w) <= largest)
    h, w = (max(multiple, side // multiple * multiple) for side in (h, w))
    return h, w
