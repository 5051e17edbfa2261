"""Beginning a run with the weights of another."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file

from unnoise.data.dataset import Source
from unnoise.recipe import Recipe
from unnoise.run_folder import RunFolder
from unnoise.runs.settle import with_whole_previews
from unnoise.training.checkpoint import MOMENTS, Tensors
from unnoise.utils.errors import UserError

Say = Callable[[str], None]


def recipe_from(path: Path | str, source: Source | None = None, size: int | tuple[int, int] | None = None) -> Recipe:
    """The recipe of another run for other images (None: its own), at its size unless another is asked for."""
    info = RunFolder.open(path).read_info()
    if info.recipe.training.objective.from_teacher:
        raise UserError(f"'{path}' is a student, which only goes on as one: begin with its teacher, {info.from_run}")
    asked = (size, size) if isinstance(size, int) else size
    data = replace(info.recipe.data, source=source or info.recipe.data.source, size=asked or info.shape[1:])
    return replace(info.recipe, data=data, training=with_whole_previews(info.recipe.training))


def read_weights(path: Path | str, recipe: Recipe, shape: tuple[int, int, int], classes: tuple[str, ...], say: Say) -> Tensors:
    """The averaged weights of another run, for a new one of images of `shape` (C, H, W).

    Those that belong to classes are left out where the classes are others. Raises UserError where the rest does not fit.
    """
    folder = RunFolder.open(path)
    info = folder.read_info()
    if info.shape[0] != shape[0]:
        kinds = {1: "grey", 3: "colour"}
        raise UserError(f"'{path}' was trained on {kinds.get(info.shape[0], info.shape[0])} images, and these are "
                        f"{kinds.get(shape[0], shape[0])}: give images of its kind, or begin without its weights")  # fmt: skip
    if not folder.model.is_file():
        raise UserError(f"'{path}' has no weights yet: give a run that has begun to train")
    weights = {name: value for name, value in load_file(folder.model).items() if not name.startswith(MOMENTS)}
    if info.classes != classes:
        of_classes = _names_of_classes(recipe, shape)
        weights = {name: value for name, value in weights.items() if name not in of_classes}
        if classes and of_classes:
            say(f"the classes are not those of '{path}': what it knows of its own is left out")
    own = recipe.weight_shapes(shape, len(classes))
    other = [name for name, value in weights.items() if own.get(name) != tuple(value.shape)]
    if other or not own.keys() - weights.keys() <= _names_of_classes(recipe, shape):
        raise UserError(f"the weights of '{path}' don't fit the network (the first that differs: "
                        f"{(other or sorted(own.keys() - weights.keys()))[0]}): keep its network and size")  # fmt: skip
    say(f"beginning with the weights of '{path}'")
    return weights


def _names_of_classes(recipe: Recipe, shape: tuple[int, int, int]) -> set[str]:
    """The weights whose number depends on how many classes there are."""
    one, two = recipe.weight_shapes(shape, 1), recipe.weight_shapes(shape, 2)
    return {name for name in two if two[name] != one.get(name)}
