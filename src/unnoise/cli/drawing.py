"""`unnoise sample`, `figure` and `restore`: what a trained model is good for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, data_changes, sampling_asked, say
from unnoise.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from unnoise.model import Model
    from unnoise.sampler import Sampling


def sample(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    n: Annotated[int, arg(aliases=["-n"], help="how many pictures")] = 16,
    seed: Annotated[int, arg(help="another seed gives other pictures")] = 0,
    out: Annotated[Path | None, arg(help="a folder for PNG files, or one .npz; RUN/drawn by default")] = None,
    steps: Annotated[int | None, arg(help="sampling steps; the recipe's by default")] = None,
    sampler: Annotated[str | None, arg(help="dpm++2m, ddim, ddpm, heun")] = None,
    batch: Annotated[int, arg(help="pictures drawn at once")] = 250,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Draw pictures: one PNG each and a grid beside the folder, or one .npz (uint8, N x H x W x C).

    Examples: unnoise sample runs/digits -n 64 --seed 1 --out new
              unnoise sample runs/digits -n 1000 --out digits.npz --sampler.eta 0.5 --sampler ddim
    """
    for name, value in (("-n", n), ("--batch", batch)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    import time

    import numpy as np

    from unnoise import figures, files
    from unnoise.model import Model

    model = Model.open(run)
    sampling = sampling_asked(model, steps, sampler, changes)
    out = out or run / "drawn"
    if out.suffix not in ("", ".npz") or not out.name:
        raise UserError(f"--out must be a folder's name or end in .npz, not '{out}'")
    begun = time.perf_counter()
    try:
        if out.suffix == ".npz":
            pixels = np.concatenate(list(model.draw(n, seed, batch, sampling)))
            files.write(out, lambda p: np.savez_compressed(p, images=pixels))
            say(f"{n} pictures in {time.perf_counter() - begun:.1f} s: {out}")
            return 0
        out.mkdir(parents=True, exist_ok=True)
        first: list[Any] = []
        for pictures in model.draw(n, seed, batch, sampling):
            for k, picture in enumerate(pictures):
                figures.save(figures.to_image(picture), out / f"{len(first) + k:06d}.png")
            first += list(pictures)
        sheet = out.with_name(f"{out.name}-grid.png")
        figures.save(figures.grid(np.stack(first[:100])), sheet)
    except OSError as e:
        raise UserError(f"can't write to '{out}' ({e.strerror or e}): choose another --out") from e
    say(f"{n} pictures in {time.perf_counter() - begun:.1f} s: {out}/ and {sheet}")
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
        _figure_of_run(kind, to, Path(what), changes, n or 16, seed)
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


def _figure_of_run(kind: str, to: Path, run: Path, changes: Changes | None, n: int, seed: int) -> None:
    from unnoise import figures
    from unnoise.model import Model
    from unnoise.run import read_losses

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
        stages = figures.stages(model.trajectory([0], seed, sampling))
        figures.reverse_strip(stages, model.info.recipe.schedule, to)
    else:
        figures.animation(model.trajectory(range(n), seed, sampling), to)


def restore(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    pictures: Annotated[Positional[tuple[Path, ...]], arg(help="one or more pictures")],
    task: Annotated[str, arg(help="denoise")] = "denoise",
    sigma: Annotated[float | None, arg(help="the noise's standard deviation in 1/255; estimated if not given")] = None,
    mode: Annotated[str, arg(help="mean: least squared error; sample: a sharper draw")] = "mean",
    add_noise: Annotated[float | None, arg(help="try it out: first add noise of this sigma, then say the PSNR")] = None,
    out: Annotated[Path, arg(help="folder for the results")] = Path("restored"),
    seed: Annotated[int, arg(help="of added noise and of samples")] = 0,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Clean noisy pictures with a trained model.

    Examples: unnoise restore runs/photos noisy.png
              unnoise restore runs/photos noisy.png --sigma 25 --mode sample
              unnoise restore runs/photos clean.png --add-noise 25
    """
    from unnoise.model import Model

    for name, value, valid in (("task", task, ("denoise",)), ("mode", mode, ("mean", "sample"))):
        if value not in valid:
            raise UserError(f"unknown {name} '{value}': {nearest(value, valid)}")
    for option, level in (("--sigma", sigma), ("--add-noise", add_noise)):
        if level is not None and not 0 < level < float("inf"):
            raise UserError(f"{option} must be greater than 0, not {level}")
    if changes and mode != "sample":
        raise UserError(f"--{next(iter(changes))} is about sampling: add --mode sample")
    if not pictures:
        raise UserError("give at least one picture to restore")
    targets = [out / f"{p.stem}{end}.png" for p in pictures for end in ([""] if add_noise is None else ["", "-noisy"])]
    places = [p.resolve() for p in (*targets, *pictures)]
    if len(set(places)) < len(places):
        twice = next(p for p in places if places.count(p) > 1)
        raise UserError(f"'{twice.name}' would be written over: choose another --out, or restore pictures of one name apart")
    model = Model.open(run)
    sampling = sampling_asked(model, None, None, changes) if mode == "sample" else None
    read = [model.read_picture(path) for path in pictures]  # all of them, before anything is written
    for number, (path, clean) in enumerate(zip(pictures, read, strict=True)):
        _denoise_one(model, path, clean, sigma, add_noise, sampling, out, seed, number)
    return 0


LEAST_SIGMA = 1e-3  # on [-1, 1]: an eighth of a grey level is no noise


def _denoise_one(
    model: "Model", path: Path, clean: "Tensor", sigma: float | None, add_noise: float | None, sampling: "Sampling | None",
    out: Path, seed: int, number: int,
) -> None:  # fmt: skip
    from skimage.metrics import peak_signal_noise_ratio

    from unnoise import figures
    from unnoise.draws import PictureNoise
    from unnoise.restore.noise_level import estimate_sigma

    noisy = clean
    if add_noise is not None:
        noisy = clean + add_noise / 127.5 * PictureNoise(seed, [number], "added").normal_like(clean)
        sigma = sigma or add_noise
    level = sigma / 127.5 if sigma else estimate_sigma(noisy[0])
    said = f"sigma {127.5 * level:.1f} of 255" + ("" if sigma else " (estimated)")
    if not level > LEAST_SIGMA:
        raise UserError(f"no noise to speak of in '{path}' (sigma {127.5 * level:.2g} of 255): say how much with --sigma")
    x = model.denoise(noisy, level, sampling, seed)
    try:
        figures.save(figures.to_image(figures.to_uint8(x)[0]), out / f"{path.stem}.png")
        if add_noise is not None:
            figures.save(figures.to_image(figures.to_uint8(noisy)[0]), out / f"{path.stem}-noisy.png")
            before, after = (peak_signal_noise_ratio(clean.numpy(), y.clamp(-1, 1).numpy(), data_range=2) for y in (noisy, x))
            said += f"; PSNR {before:.2f} dB before, {after:.2f} dB after"
    except OSError as e:
        raise UserError(f"can't write to '{out}' ({e.strerror or e}): choose another --out") from e
    say(f"{out / path.stem}.png: {said}")
