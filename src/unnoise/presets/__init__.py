"""Presets: one short file each; its docstring gives command, hardware, minutes and expected result."""

from unnoise.presets import digits, fashion_mnist, notebook, pictures
from unnoise.recipe import Recipe

PRESETS: dict[str, Recipe] = {
    "digits": digits.recipe,
    "fashion-mnist": fashion_mnist.recipe,
    "pictures": pictures.recipe,
    "notebook": notebook.recipe,
}
