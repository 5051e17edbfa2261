"""`unnoise figure`."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, data_changes, say
from unnoise.utils.errors import UserError, nearest

FIGURES = {  # what each is of
    "data": "data",
    "forward": "data",
    "schedules": "nothing",
    "reverse": "a run",
    "loss": "a run",
    "animation": "a run",
}


def figure(
    kind: Annotated[Positional[str], arg(help="data, forward, schedules, reverse, loss, animation")],
    what: Annotated[Positional[str | None], arg(help="data for data and forward, a run for reverse, loss, animation")] = None,
    out: Annotated[Path | None, arg(help="the file to write: KIND.png, or animation.gif (.mp4 with the extra `video`)")] = None,
    overwrite: Annotated[bool, arg(help="replace a file of that name that this program did not write")] = False,
    root: Annotated[str | None, arg(help="the folder that holds a published data set")] = None,
    size: Annotated[str | None, arg(help="height and width of data: 64 or 48,64")] = None,
    n: Annotated[int | None, arg(aliases=["-n"], help="images in data (20) or in an animation (16)")] = None,
    every: Annotated[int | None, arg(help="of reverse and animation: show every N-th step, and the last")] = None,
    seed: Annotated[int, arg(help="of the images or the noise")] = 0,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Make a figure of the data, the schedules or a run.

    Fields of the recipe go by their dotted names: data and schedule, or sampling of a run.

    Examples: unnoise figure data fgvc-aircraft --root DIR --size 64
              unnoise figure forward fgvc-aircraft --root DIR --size 64
              unnoise figure forward digits --schedule cosine
              unnoise figure schedules
              unnoise figure reverse runs/digits --sampling.steps 50
              unnoise figure animation runs/digits --out digits.gif -n 16
    """
    from unnoise import figures

    if kind not in FIGURES:
        raise UserError(f"unknown figure '{kind}': {nearest(kind, FIGURES)}")
    if n is not None and n < 1:
        raise UserError(f"-n must be at least 1, not {n}")
    to = out or Path("animation.gif" if kind == "animation" else f"{kind}.png")
    figures.check_name(to, kind == "animation", overwrite)
    if FIGURES[kind] == "nothing":
        if what or changes or root or size:
            raise UserError(f"the figure '{kind}' shows every schedule as it is by default: it takes --out alone")
        from unnoise.diffusion.schedules import SCHEDULES

        figures.schedule_curves({name: make() for name, make in SCHEDULES.items()}, to, overwrite)
    elif FIGURES[kind] == "data":
        _of_data(kind, to, data_changes(what or "digits", root, False, size) | (changes or {}), n or 20, seed, overwrite)
    elif what is None or root or size:
        raise UserError(f"the figure '{kind}' is of a run and of no other data: unnoise figure {kind} RUN")
    else:
        _of_run(kind, to, Path(what), changes, n or 16, seed, every, overwrite)
    say(f"{to}")
    return 0


def _of_data(kind: str, to: Path, asked: Changes, n: int, seed: int, overwrite: bool) -> None:
    from unnoise import figures
    from unnoise.presets import PRESETS
    from unnoise.recipe import override
    from unnoise.utils.rng import BatchRng, stream

    # The notebook's schedule, unless another is asked for; its training and sampling have no part in this.
    ignored = {"sampling.steps": 1, "target": "velocity", "training.times": "uniform", "data.size": None}
    recipe = override(PRESETS["notebook"], ignored | asked)
    images = recipe.data.load()
    order = stream(seed, "figure").permutation(len(images))
    if kind == "data":
        figures.save(figures.grid(images.read(order[:n]), columns=4, min_side=128), to, overwrite=overwrite)
        return
    x = images.tensor(order[:1])
    figures.forward_strip(recipe.schedule, x, BatchRng(seed, [0]).normal_like(x), to, overwrite=overwrite)


def _of_run(kind: str, to: Path, run: Path, changes: Changes | None, n: int, seed: int, every: int | None,
            overwrite: bool) -> None:  # fmt: skip
    from unnoise import figures
    from unnoise.hub import local
    from unnoise.model import Model
    from unnoise.run_folder import RunFolder

    if every is not None and every < 1:
        raise UserError(f"--every must be at least 1, not {every}")
    if kind == "loss":
        folder = RunFolder(local(run))
        losses = folder.read_losses()
        if losses is None or changes:
            raise UserError(f"'{run}' has no metrics.jsonl with steps in it: give the folder of a run that has begun to train"
                            if losses is None else "the figure 'loss' takes no recipe fields")  # fmt: skip
        figures.loss_curve(*losses, to, folder.read_held_out_losses(), overwrite)
        return
    model = Model.load(run)
    sampling = model.info.sampling(changes=changes)
    if kind == "reverse":
        records = figures.select_steps(model.trajectory([0], seed, sampling), 10, every)
        figures.reverse_strip(records, model.info.recipe.schedule, to, overwrite)
    else:
        figures.animation(model.trajectory(range(n), seed, sampling), to, every, overwrite)
