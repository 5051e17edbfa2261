"""Presets: one short file each; its docstring gives command, hardware, minutes and expected result."""

from unnoise.data.arrays import Digits, InMemory
from unnoise.data.dataset import Source
from unnoise.data.torchvision_sets import Cifar10, FashionMnist, FgvcAircraft, Mnist
from unnoise.presets import digits, fashion_mnist, images, notebook
from unnoise.recipe import Recipe
from unnoise.utils.errors import UserError, nearest

PRESETS: dict[str, Recipe] = {
    "digits": digits.recipe,
    "fashion-mnist": fashion_mnist.recipe,
    "images": images.recipe,
    "notebook": notebook.recipe,
}
# Small square images, in which text may not be mirrored, are alike enough to share a preset.
FOR_SOURCES = {Digits: "digits", FashionMnist: "fashion-mnist", Mnist: "fashion-mnist", Cifar10: "fashion-mnist",
               FgvcAircraft: "images"}  # fmt: skip
MAX_SIDE = {"digits": 16, "fashion-mnist": 32}


def find_preset(name: str) -> Recipe:
    """Raises UserError naming the nearest preset."""
    if name not in PRESETS:
        raise UserError(f"unknown preset '{name}': {nearest(name, PRESETS)}")
    return PRESETS[name]


def preset_for(source: Source, size: int | tuple[int, int] | None = None) -> str:
    """The preset whose images are most like those of a source; for images in memory, by `size` or their own."""
    if isinstance(source, InMemory):
        sides = source.first_size if size is None else (size, size) if isinstance(size, int) else size
        side = max(sides)
        return next((name for name, largest in MAX_SIDE.items() if side <= largest), "images")
    return FOR_SOURCES.get(type(source), "images")
