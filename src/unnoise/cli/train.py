"""`unnoise train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, data_changes, say, whole_number
from unnoise.utils.errors import UserError

if TYPE_CHECKING:
    from unnoise.recipe import Recipe


def train(
    preset: Annotated[Positional[str | None], arg(help="a preset: digits, fashion-mnist, images, notebook")] = None,
    data: Annotated[str | None, arg(help="a data set's name, a folder of images, or an .npz")] = None,
    root: Annotated[str | None, arg(help="the folder that holds a published data set, e.g. fgvc-aircraft-2013b")] = None,
    download: Annotated[bool, arg(help="fetch a published data set if it is not there")] = False,
    size: Annotated[str | None, arg(help="height and width of the images: 64 or 48,64")] = None,
    run: Annotated[Path | None, arg(help="folder to write to; runs/NAME by default")] = None,
    resume: Annotated[Path | None, arg(help="go on with this run; takes no other option")] = None,
    steps: Annotated[int | None, arg(help="train for this many steps")] = None,
    minutes: Annotated[float | None, arg(help="train for this long; the number of steps is measured")] = None,
    batch: Annotated[str | None, arg(help="images per step; auto: the size that trains fastest, measured before")] = None,
    seed: Annotated[int | None, arg(help="of all random numbers")] = None,
    labels: Annotated[str | None, arg(help="folder: the first sub-folder is the class; none: train without")] = None,
    strict: Annotated[bool, arg(help="stop if a file can't be read, instead of leaving it out")] = False,
    cache: Annotated[Path | None, arg(help="where decoded images are kept; the user's cache folder by default")] = None,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Train a model on images, or go on with a run that stopped.

    Parts go by --schedule, --target, --network, --loss, --sampler and --resize (a wrong name is answered with the valid ones; a
    part of your own is package.module:Class), any other field of the recipe by its dotted name, e.g. --network.widths 32,64;
    `unnoise info PRESET` shows them all.

    Examples: unnoise train digits --minutes 2
              unnoise train --data my/photos --size 64 --minutes 60
              unnoise train digits --schedule cosine --target velocity --sampling.steps 30
              unnoise train --resume runs/photos
    """
    from unnoise.data.folder import ImageFolder
    from unnoise.presets import find_preset, preset_for
    from unnoise.recipe import override

    if resume is not None:
        return _run(None, resume, cache=cache)
    given = data_changes(data, root, download, size)
    chosen = preset or (preset_for(given["data.source"]) if data else "digits")
    recipe = find_preset(chosen)
    batch_size = 0 if batch == "auto" else None if batch is None else whole_number(batch, "--batch is auto or a number")
    numbers = {"training.steps": steps, "training.minutes": minutes, "training.batch": batch_size, "training.seed": seed}
    asked: Changes = {k: v for k, v in numbers.items() if v is not None} | given
    if labels == "folder":
        asked["data.source.subfolders"] = True
    elif labels == "none":
        asked["data.labels"] = False
    elif labels is not None:
        raise UserError(f"--labels is folder or none, not '{labels}'")
    if steps is not None and minutes is None:
        asked["training.minutes"] = None
    recipe = override(recipe, asked | (changes or {}))
    if recipe.data.source == ImageFolder():
        raise UserError(f"the preset '{chosen}' needs images: give --data FOLDER")
    if preset is None:
        say(f"the preset '{chosen}' ('unnoise info {chosen}' shows it)")
    name = Path(data).stem if data else None
    return _run(recipe, run or Path("runs") / (name or chosen), strict, cache)


def begin_run(folder: Path, recipe: "Recipe") -> int:
    """Train a new run to the end, or until it is stopped; gives the exit code."""
    return _run(recipe, folder)


def _run(recipe: "Recipe | None", folder: Path, strict: bool = False, cache: Path | None = None) -> int:
    """Without a recipe the run is resumed."""
    from unnoise.runs.progress import follow
    from unnoise.runs.start import begin, resume
    from unnoise.utils.runtime import Runtime

    runtime = Runtime.join()
    with runtime.guard():
        trainer = resume(folder, say, cache, runtime) if recipe is None else begin(folder, recipe, say, strict, cache, runtime)
        if signal := follow(trainer):
            return 128 + signal
        runtime.leave()
    return 0
