"""`unnoise sample`, `morph` and `figure`: pictures out of a trained model."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, data_changes, progress, sampling_asked, say, to_name
from unnoise.errors import UserError, nearest

if TYPE_CHECKING:
    from unnoise.model import Model
    from unnoise.sampler import Sampling


def sample(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    n: Annotated[int | None, arg(aliases=["-n"], help="how many pictures; 16, or one for each class with --label all")] = None,
    seed: Annotated[int, arg(help="another seed gives other pictures")] = 0,
    label: Annotated[str | None, arg(help="the name of a class, or all: one after the other")] = None,
    guidance: Annotated[float | None, arg(help="strength of guidance: by class, or by the run's early self")] = None,
    out: Annotated[Path | None, arg(help="a folder for PNG files, or one .npz; RUN/drawn (or varied) by default")] = None,
    steps: Annotated[int | None, arg(help="sampling steps; the recipe's by default")] = None,
    sampler: Annotated[str | None, arg(help="dpm++2m, unipc, heun, ddim, ddpm, ...: a wrong name is answered with all")] = None,
    batch: Annotated[int, arg(help="pictures drawn at once")] = 250,
    from_: Annotated[Path | None, arg(name="from", help="a picture to begin from, with --strength")] = None,
    strength: Annotated[float, arg(help="with --from: how far to go, above 0 (the picture) to 1 (a new one)")] = 0.5,
    redraw: Annotated[Path | None, arg(help="a PNG that was drawn with this run: draw it again, bit for bit")] = None,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Draw pictures: one PNG each and a grid beside the folder, or one .npz (uint8, N x H x W x C).

    Stopped, the same command goes on where it was; started by torchrun, processes share the work.

    Examples: unnoise sample runs/digits -n 64 --seed 1 --out new
              unnoise sample runs/digits --label 7 --guidance 2
              unnoise sample runs/digits --label all -n 100
              unnoise sample runs/digits -n 50000 --out digits.npz --sampler.eta 0.5 --sampler ddim
              unnoise sample runs/photos --from picture.png --strength 0.4 -n 8
              unnoise sample runs/photos --redraw runs/photos/drawn/000003.png
    """
    for name, value in (("-n", n), ("--batch", batch)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    from unnoise.gallery import draw_to, plan_drawing
    from unnoise.model import Model
    from unnoise.processes import Processes

    team = Processes.join()
    model = Model.open(run, team.device)
    if redraw is not None:
        return _redraw(model, redraw, out) if team.first else 0
    sampling = sampling_asked(model, steps, sampler, changes, guidance)
    one = None if label is None else -1 if label == "all" and model.info.classes else model.label_of(label)
    out = out or run / ("drawn" if from_ is None else "varied")
    if out.suffix not in ("", ".npz") or not out.name:
        raise UserError(f"--out must be a folder's name or end in .npz, not '{out}'")
    if from_ is not None:
        return _vary(model, from_, strength, range(n or 8), seed, batch, sampling, one, out) if team.first else 0
    count = n or (len(model.info.classes) if one == -1 else 16)
    if team.first:
        how = f"{to_name(sampling.sampler)}, {sampling.steps} steps"
        say(f"drawing {count} pictures: {how}" + (f", {to_name(sampling.guidance)} guidance" if guidance else ""))
    records = draw_to(model, plan_drawing(model, count, seed, batch, sampling, one), out, team)
    begun = time.perf_counter()
    list(progress(records, count, "pictures", shown=team.first))
    if team.first:
        shown = "" if out.suffix == ".npz" else f"/ and {out.with_name(f'{out.name}-grid.png')}"
        say(f"{count} pictures in {time.perf_counter() - begun:.1f} s: {out}{shown}")
    team.leave()
    return 0


def _redraw(model: "Model", picture: Path, out: Path | None) -> int:
    from unnoise import figures
    from unnoise.gallery import redraw

    to = out or picture.with_name(f"{picture.stem}-again.png")
    figures.check_name(to)
    pixels, same = redraw(model, picture)
    figures.save(figures.to_image(pixels), to)
    found = "equal bit for bit" if same else "not equal to the last bit: another machine or torch drew it"
    say(f"{to}: '{picture}' again, {found}")
    return 0


def _vary(model: "Model", picture: Path, strength: float, numbers: range, seed: int, batch: int, sampling: "Sampling",
          one: int | None, out: Path) -> int:  # fmt: skip
    """Pictures like one, a PNG each and a grid that begins with it."""
    import numpy as np
    import torch

    from unnoise import figures

    if out.suffix:
        raise UserError(f"with --from, --out is a folder's name, not '{out}'")
    x = model.read_picture(picture, fitted=True)
    drawn = []
    for first in range(0, len(numbers), batch):
        some = numbers[first : first + batch]
        every = torch.tensor(some, device=model.info.device)
        label = None if one is None else every % len(model.info.classes) if one < 0 else torch.full_like(every, one)
        drawn.append(figures.to_uint8(model.vary(x, strength, some, seed, sampling, label)))
        for k, pixels in zip(some, drawn[-1], strict=True):
            figures.save(figures.to_image(pixels), out / f"{k:06d}.png")
    sheet = out.with_name(f"{out.name}-grid.png")
    figures.save(figures.grid(np.concatenate([figures.to_uint8(x), *drawn])), sheet)
    say(f"{len(numbers)} pictures like '{picture}', strength {strength:g}: {out}/ and {sheet}")
    return 0


def morph(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    ends: Annotated[Positional[tuple[str, ...]], arg(help="two or more: numbers of pictures that it draws, or picture files")],
    n: Annotated[int, arg(aliases=["-n"], help="pictures on the way, ends included")] = 9,
    seed: Annotated[int, arg(help="of the numbered pictures")] = 0,
    label: Annotated[str | None, arg(help="the class of all of them, for a run with labels")] = None,
    steps: Annotated[int, arg(help="sampling steps; pictures need about 100 to come back as they were")] = 100,
    out: Annotated[Path, arg(help="a .png with all of them in a row, or a .gif or .mp4")] = Path("morph.png"),
) -> int:
    """Go from one picture to another through the model's noise, by DDIM.

    A picture file is first taken back to the noise that it comes from.

    Examples: unnoise morph runs/digits 3 8 --label 5
              unnoise morph runs/photos mine.png yours.png -n 24 --out morph.gif
    """
    from dataclasses import replace

    import torch

    from unnoise import figures
    from unnoise.explore import path
    from unnoise.model import Model

    figures.check_name(out, moving=out.suffix in (".gif", ".mp4"))
    model = Model.open(run)
    sampling = replace(model.info.recipe.sampling, steps=steps)
    sampling.times(model.info.recipe.schedule, steps)
    one = None if label is None else torch.tensor([model.label_of(label)], device=model.info.device)
    points = []
    for end in ends:
        if end.isdigit():
            points.append(model.noise_of(int(end), seed))
        else:
            points.append(model.invert(model.read_picture(Path(end), fitted=True), sampling, one)[0])
    noise = path(points, n)
    x = model.follow(noise, sampling, None if one is None else one.expand(n))
    if out.suffix == ".png":
        figures.save(figures.grid(figures.to_uint8(x), columns=n), out)
    else:
        figures.film([figures.grid(p[None]) for p in figures.to_uint8(x)], out)
    say(f"{out}: {n} pictures from {ends[0]} to {ends[-1]}")
    return 0


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
    root: Annotated[str | None, arg(help="the folder that holds a published set")] = None,
    size: Annotated[str | None, arg(help="height and width of data: 64 or 48,64")] = None,
    n: Annotated[int | None, arg(aliases=["-n"], help="pictures in data (20) or in an animation (16)")] = None,
    every: Annotated[int | None, arg(help="of reverse and animation: show each so-manieth step, and the last")] = None,
    seed: Annotated[int, arg(help="of the pictures or the noise")] = 0,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Draw a figure of the data, the schedules or a run.

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
    figures.check_name(to, moving=kind == "animation")
    if FIGURES[kind] == "nothing":
        if what or changes or root or size:
            raise UserError(f"the figure '{kind}' shows every schedule as it is by default: it takes --out alone")
        from unnoise.noise import SCHEDULES

        figures.schedule_curves({name: make() for name, make in SCHEDULES.items()}, to)
    elif FIGURES[kind] == "data":
        _figure_of_data(kind, to, data_changes(what or "digits", root, False, size) | (changes or {}), n or 20, seed)
    elif what is None or root or size:
        raise UserError(f"the figure '{kind}' is of a run and of no other data: unnoise figure {kind} RUN")
    else:
        _figure_of_run(kind, to, Path(what), changes, n or 16, seed, every)
    say(f"{to}")
    return 0


def _figure_of_data(kind: str, to: Path, asked: Changes, n: int, seed: int) -> None:
    from unnoise import draws, figures
    from unnoise.presets import PRESETS
    from unnoise.recipe import override

    # The notebook's schedule, unless another is asked for; its sampling has no part in this.
    recipe = override(PRESETS["notebook"], {"sampling.steps": 1, "target": "velocity", "data.size": None} | asked)
    pictures = recipe.data.load()
    order = draws.stream(seed, "figure").permutation(len(pictures))
    if kind == "data":
        figures.save(figures.grid(pictures.read(order[:n]), columns=4, least=128), to)
        return
    x = pictures.tensor(order[:1])
    figures.forward_strip(recipe.schedule, x, draws.PictureNoise(seed, [0]).normal_like(x), to)


def _figure_of_run(kind: str, to: Path, run: Path, changes: Changes | None, n: int, seed: int, every: int | None) -> None:
    from unnoise import figures
    from unnoise.model import Model
    from unnoise.runs import read_losses

    if every is not None and every < 1:
        raise UserError(f"--every must be at least 1, not {every}")

    if kind == "loss":
        losses = read_losses(run)
        if losses is None or changes:
            raise UserError(f"'{run}' has no metrics.jsonl with steps in it: give the folder of a run that has begun to train"
                            if losses is None else "the figure 'loss' takes no recipe fields")  # fmt: skip
        figures.loss_curve(*losses, to, read_losses(run, "held-out.jsonl"))
        return
    model = Model.open(run)
    sampling = sampling_asked(model, None, None, changes)
    if kind == "reverse":
        stages = figures.stages(model.trajectory([0], seed, sampling), 10, every)
        figures.reverse_strip(stages, model.info.recipe.schedule, to)
    else:
        figures.animation(model.trajectory(range(n), seed, sampling), to, every=every)
