"""Presets: one short file each; its docstring gives command, hardware, minutes and expected result."""

from unnoise.presets import digits, pictures
from unnoise.recipe import Recipe

PRESETS: dict[str, Recipe] = {"digits": digits.recipe, "pictures": pictures.recipe}
