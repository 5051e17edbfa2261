"""`unnoise train`."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, data_changes, say, say_of_run, whole_number
from unnoise.utils.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from unnoise.recipe import Recipe
    from unnoise.runs.trainer import Trainer
    from unnoise.utils.runtime import Runtime


def train(
    what: Annotated[
        Positional[str | None],
        arg(help="images (a folder, an .npz, a data set's name), or a preset: digits, fashion-mnist, cifar10, images, notebook"),
    ] = None,
    data: Annotated[str | None, arg(help="images for a preset: a folder, an .npz, or a data set's name")] = None,
    root: Annotated[str | None, arg(help="the folder that holds a published data set, e.g. fgvc-aircraft-2013b")] = None,
    download: Annotated[bool, arg(help="fetch a published data set if it is not there")] = False,
    size: Annotated[str | None, arg(help="height and width: 64 or 48,64; the images' own by default, 64 at most")] = None,
    run: Annotated[Path | None, arg(help="folder to write to; runs/NAME by default")] = None,
    resume: Annotated[Path | None, arg(help="go on with this run; with --steps or --minutes also beyond its end")] = None,
    from_run: Annotated[Path | None, arg(help="begin with the weights and the recipe of this run, on other images, say")] = None,
    fast: Annotated[bool, arg(help="then distil it, in the same time: RUN-fast samples in one or two calls")] = False,
    steps: Annotated[int | None, arg(help="train for this many steps in all")] = None,
    minutes: Annotated[float | None, arg(help="be done, last samples included, after this long")] = None,
    stop_when: Annotated[str | None, arg(help="plateau: end when the held-out loss has stopped falling")] = None,
    stop_when_copying: Annotated[bool, arg(help="end when samples become copies of training images")] = False,
    batch: Annotated[str | None, arg(help="images per step; auto: chosen for images and machine")] = None,
    seed: Annotated[int | None, arg(help="of all random numbers")] = None,
    tracker: Annotated[str | None, arg(help="wandb, trackio or mlflow: numbers and grids go there too")] = None,
    labels: Annotated[str | None, arg(help="folder: the first sub-folder is the class; none: train without")] = None,
    range: Annotated[str | None, arg(help="values that become black and white: 0,4095; all of 8 or 16 bits by default")] = None,
    bands: Annotated[str | None, arg(help="the bands that are red, green and blue, or grey, from 1: 1,2,3 or 4")] = None,
    strict: Annotated[bool, arg(help="stop if a file can't be read, instead of leaving it out")] = False,
    cache: Annotated[Path | None, arg(help="where decoded images are kept; the user's cache folder by default")] = None,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Train a model on images, or go on with a run that stopped.

    Without --steps or --minutes images of your own train until Ctrl-C, which ends with a short fall of the learning rate (again:
    at once). The network is chosen by measurement: for the speed of this machine, the time and the size of the images.

    Parts go by --schedule, --target, --network, --loss, --sampler and --resize (a wrong name is answered with the valid ones; a
    part of your own is package.module:Class), any other field of the recipe by its dotted name, e.g. --network.widths 32,64;
    `unnoise info PRESET` shows them all.

    Examples: unnoise train my/photos
              unnoise train my/photos --size 64 --minutes 60
              unnoise train my/photos --minutes 60 --fast
              unnoise train digits --schedule cosine --target velocity --sampling.steps 30
              unnoise train --resume runs/photos
              unnoise train --resume runs/photos --minutes 30
              unnoise train other/photos --from-run runs/photos
    """
    given = {name for name, value in locals().items() if value not in (None, False)}
    started = time.perf_counter()  # before anything heavy is imported
    from unnoise.data.folder import ImageFolder
    from unnoise.recipe import override

    if resume is not None:
        _refuse_with_resume(resume, given, changes or {})
        return _go_on(resume, started, cache, data or root, steps, minutes)
    changes_of = partial(data_changes, root=root, download=download, size=size, labels=labels, value_range=range, bands=bands)
    chosen, name, recipe = _recipe(what, data, changes_of, from_run)
    batch_size = 0 if batch == "auto" else None if batch is None else whole_number(batch, "--batch is auto or a number")
    numbers = {"training.steps": steps, "training.minutes": minutes, "training.batch": batch_size, "training.seed": seed,
               "training.stop_when": stop_when, "training.stop_when_copying": stop_when_copying or None,
               "training.tracker": tracker}  # fmt: skip
    asked: Changes = {k: v for k, v in numbers.items() if v is not None}
    if steps is not None and minutes is None:
        asked["training.minutes"] = None
    recipe = override(recipe, asked | (changes or {}))
    if recipe.data.source == ImageFolder():
        raise UserError(f"the preset '{chosen}' needs images: give --data FOLDER")
    if chosen and what != chosen:
        say(f"the preset '{chosen}' ('unnoise info {chosen}' shows it)")
    return _run(recipe, run or Path("runs") / name, started, strict, cache, from_run, fast)


WITH_RESUME = {"resume", "steps", "minutes", "data", "root", "cache", "changes"}  # options that go with --resume


def _refuse_with_resume(run: Path, given: set[str], changes: Changes) -> None:
    """Raises UserError for what a run that goes on can't change any more."""
    other = [*sorted(given - WITH_RESUME), *changes]
    if other:
        name = f"'{other[0]}'" if other[0] == "what" else f"--{other[0].replace('_', '-')}"
        raise UserError(f"--resume goes on with the recipe of '{run}', so it can't take {name}, only --steps, --minutes, --data "
                        f"and --cache: a new run with its weights can, 'unnoise train --from-run {run}'")  # fmt: skip


def _recipe(what: str | None, data: str | None, changes_of: "Callable[[str | None], Changes]",
            from_run: Path | None) -> "tuple[str, str, Recipe]":  # fmt: skip
    """The preset's name, a name for the run, and the recipe, from what to train (images or a preset) and where the images are.

    Without a preset where the recipe is that of `from_run`. `changes_of` gives the other options of data as fields.
    """
    from unnoise.presets import find_preset, recipe_for
    from unnoise.recipe import override
    from unnoise.runs.places import run_name
    from unnoise.runs.warm_start import recipe_from

    what, data = _what_and_data(what, data)
    given = changes_of(data)
    source, asked = given.pop("data.source", None), given.get("data.size")
    fitted = tuple(asked) if asked else None
    name = what or "digits" if source is None else run_name(str(data))
    if from_run is not None:
        source = find_preset(what).data.source if source is None and what is not None else source
        recipe = recipe_from(from_run, source, fitted)
        return what or "", name if source is not None else run_name(str(from_run)) + "-more", override(recipe, given)
    if source is None:
        return name, name, override(find_preset(name), given)
    chosen, recipe = recipe_for(source, what, fitted)
    return chosen, name, override(recipe, given)


def _what_and_data(what: str | None, data: str | None) -> tuple[str | None, str | None]:
    """A preset, and images, from the positional argument and --data."""
    from unnoise.data.folder import ImageFolder
    from unnoise.data.sources import names
    from unnoise.presets import PRESETS, find_preset

    if what is not None and what not in PRESETS:
        if data is not None:
            find_preset(what)  # refuses it
        if not (what in names() or Path(what).exists() or set(what) & set("/\\:{*.")):  # nor a path or hf:NAME
            raise UserError(f"'{what}' is neither images nor a preset: {nearest(what, {*PRESETS, *names()})}")
        return None, what
    if what is not None and data is None and Path(what).is_dir():
        if find_preset(what).data.source == ImageFolder():
            return what, what  # a folder that is called `images`
        say(f"'{what}' is the preset, not the folder: --data ./{what} takes the images in it")
    return what, data


def begin_run(folder: Path, recipe: "Recipe") -> int:
    """Train a new run to the end, or until it is stopped; gives the exit code."""
    return _run(recipe, folder, time.perf_counter())


def _run(recipe: "Recipe", folder: Path, started: float, strict: bool = False, cache: Path | None = None,
         from_run: Path | None = None, fast: bool = False) -> int:  # fmt: skip
    """A new run, whose clock runs since `started`; `fast`: and its student, for which a part of the budget is kept."""
    from unnoise.runs.distil import begin_student, divide_budget, student_folder
    from unnoise.runs.start import begin

    budget = None
    if fast:
        student_folder(folder).refuse_existing()
        recipe, budget = divide_budget(recipe)
    makes = [lambda runtime: begin(folder, recipe, say_of_run, strict, cache, runtime, started, from_run)]
    if budget is not None:
        makes.append(lambda runtime: begin_student(folder, None, *budget, say=say_of_run, runtime=runtime))
    return follow_trainings(*makes)


def _go_on(folder: Path, started: float, cache: Path | None, data: str | None, steps: int | None, minutes: float | None) -> int:
    """A run that is resumed."""
    from unnoise.runs.resume import resume

    return follow_trainings(lambda runtime: resume(folder, say_of_run, cache, runtime, data, steps, minutes, started))


def follow_trainings(*makes: "Callable[[Runtime], Trainer]") -> int:
    """Train one after the other to the end, or until one is stopped; gives the exit code."""
    from unnoise.runs.progress import follow
    from unnoise.utils.runtime import Runtime, device_note

    runtime = Runtime.join()
    if runtime.world_size == 1 and (note := device_note()):
        say(note)
    with runtime.guard():
        for make in makes:
            if signal := follow(make(runtime)):
                return 128 + signal
        runtime.leave()
    return 0
