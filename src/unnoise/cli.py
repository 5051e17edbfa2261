"""The command: verbs with few options each; every other field of a recipe by its dotted name.

Nothing heavy is imported before a verb has understood its options.
"""

import functools
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional, arg

from unnoise.errors import UserError, nearest

if TYPE_CHECKING:
    from unnoise.model import Model
    from unnoise.recipe import Recipe
    from unnoise.run import Run
    from unnoise.sampler import Sampling

Changes = dict[str, Any]


def say(text: str) -> None:
    print(text, flush=True)


def _value(text: str) -> Any:
    """An option's text: JSON where it is JSON, `a,b` as a list, else itself."""
    try:
        return json.loads(text)
    except ValueError:
        return [_value(t) for t in text.split(",")] if "," in text else text


def _take_dotted(arguments: list[str]) -> tuple[list[str], Changes]:
    """Split off `--part.field value` (or `=value`)."""
    plain: list[str] = []
    dotted: Changes = {}
    rest = iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        if not (name.startswith("--") and "." in name and "/" not in name):
            plain.append(word)
            continue
        found = value if equals else next(rest, None)
        if found is None:
            raise UserError(f"{name} needs a value")
        dotted[name[2:]] = _value(found)
    return plain, dotted


def demo(run: Annotated[Path, arg(help="folder of the run")] = Path("runs/digits")) -> int:
    """Train on 8x8 digits for one minute, then draw 100 of them.

    Example: unnoise demo
    """
    from unnoise.presets import PRESETS

    folder, k = run, 2
    while folder.exists():
        folder, k = run.with_name(f"{run.name}-{k}"), k + 1
    if folder != run:
        say(f"'{run}' is there already, so this goes to '{folder}'.")
    if status := _train(folder, PRESETS["digits"]):
        return status
    sample(folder, n=100, out=folder / "drawn")
    say(f"\nLook at:\n  {folder}/drawn-grid.png   100 digits that your machine drew\n"
        f"  {folder}/strip.png        one digit's way from noise, the model's estimate below\n"
        f"  {folder}/loss.png         how it learned\n\nTry next:\n"
        f"  unnoise sample {folder} -n 1000 --seed 1 --out digits.npz\n"
        "  unnoise train --data YOUR/PICTURES --size 64 --minutes 60")  # fmt: skip
    return 0


def train(
    preset: Annotated[Positional[str | None], arg(help="a preset: digits, fashion-mnist, pictures, notebook")] = None,
    data: Annotated[str | None, arg(help="a set's name, a folder of pictures, or an .npz")] = None,
    root: Annotated[str | None, arg(help="the folder that holds a published set, e.g. fgvc-aircraft-2013b")] = None,
    download: Annotated[bool, arg(help="fetch a published set if it is not there")] = False,
    size: Annotated[str | None, arg(help="height and width of the pictures: 64 or 48,64")] = None,
    run: Annotated[Path | None, arg(help="folder to write to; runs/NAME by default")] = None,
    resume: Annotated[Path | None, arg(help="go on with this run; takes no other option")] = None,
    steps: Annotated[int | None, arg(help="train for this many steps")] = None,
    minutes: Annotated[float | None, arg(help="train for this long; the number of steps is measured")] = None,
    batch: Annotated[int | None, arg(help="pictures a step")] = None,
    seed: Annotated[int | None, arg(help="of every random draw")] = None,
    schedule: Annotated[str | None, arg(help="linear, cosine, karras, flow")] = None,
    target: Annotated[str | None, arg(help="noise, picture, velocity, flow, karras")] = None,
    network: Annotated[str | None, arg(help="unet, simple-unet")] = None,
    loss: Annotated[str | None, arg(help="l1, l2, huber")] = None,
    sampler: Annotated[str | None, arg(help="dpm++2m, ddim, ddpm, heun")] = None,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Train a model. Any other field of the recipe goes by its dotted name, e.g. --network.widths 32,64 (see `info`).

    Examples: unnoise train digits --minutes 2
              unnoise train --data my/photos --size 64 --minutes 60
              unnoise train digits --schedule cosine --target velocity --sampling.steps 30
              unnoise train --resume runs/photos
    """
    from unnoise.data.local import Folder
    from unnoise.presets import PRESETS
    from unnoise.recipe import override
    from unnoise.run import Run

    if resume is not None:
        return _follow(Run.resume(resume, say))
    chosen = preset or (data if data in PRESETS else "pictures" if data else "digits")
    if chosen not in PRESETS:
        raise UserError(f"unknown preset '{chosen}': {nearest(chosen, PRESETS)}")
    given = {"training.steps": steps, "training.minutes": minutes, "training.batch": batch,
             "training.seed": seed, "schedule": schedule, "target": target, "network": network,
             "training.penalty": loss, "sampling.sampler": sampler}  # fmt: skip
    asked: Changes = {k: v for k, v in given.items() if v is not None} | _data_changes(data, root, download, size)
    if steps is not None and minutes is None:
        asked["training.minutes"] = None
    recipe = override(PRESETS[chosen], asked | (changes or {}))
    if recipe.data.source == Folder():
        raise UserError(f"the preset '{chosen}' needs pictures: give --data FOLDER")
    name = Path(data).stem if data else None
    return _train(run or Path("runs") / (name or chosen), recipe)


def _data_changes(data: str | None, root: str | None, download: bool, size: str | None) -> Changes:
    """The plain options of data as recipe fields."""
    from unnoise.data.sources import find_source
    from unnoise.recipe import to_json

    asked: Changes = {} if data is None else {"data.source": to_json(find_source(data))}
    if root is not None:
        asked["data.source.root"] = root
    if download:
        asked["data.source.download"] = True
    if size is not None:
        number = _value(size)
        asked["data.size"] = [number, number] if isinstance(number, int) else number
    return asked


def _train(folder: Path, recipe: "Recipe") -> int:
    from unnoise.run import Run

    run = Run.begin(folder, recipe, say)
    if run.skipped:
        say(f"skipped {len(run.skipped)} files that can't be read: " + "; ".join(run.skipped[:5]))
    return _follow(run)


def _follow(run: "Run") -> int:
    """Train with progress; on Ctrl-C keep everything and say how to go on."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from unnoise.run import Stop

    columns = (TextColumn("step {task.completed}"), BarColumn(), TextColumn("{task.fields[facts]}"),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    mean, speed = None, 0.0
    with Progress(*columns) as progress, Stop() as stop:
        task = progress.add_task("train", total=run.training.total, completed=run.training.step, facts="")
        records = run.train()
        for r in records:
            mean = r.loss if mean is None else 0.98 * mean + 0.02 * r.loss
            speed = r.pictures_per_second
            progress.update(task, completed=r.step, total=r.total, facts=f"loss {mean:.4f}  {speed:.0f} pictures/s")
            if stop.asked:
                break
        records.close()  # saves
        asked = stop.asked
    if asked:
        say(f"stopped at step {run.training.step}; all is kept. Go on with: unnoise train --resume {run.folder}")
        return 128 + asked
    run.finish()
    loss = f", loss {mean:.4f}, {speed:.0f} pictures/s" if mean is not None else ""
    say(f"trained {run.training.step} steps{loss}: {run.folder}")
    return 0


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
    sampling = _sampling(model, steps, sampler, changes)
    out = out or run / "drawn"
    begun = time.perf_counter()
    try:
        if out.suffix == ".npz":
            pixels = np.concatenate(list(model.draw(n, seed, batch, sampling)))
            files.write(out, lambda p: np.savez_compressed(p, images=pixels))
            say(f"{n} pictures in {time.perf_counter() - begun:.1f} s: {out}")
            return 0
        if out.suffix:
            raise UserError(f"--out must be a folder or end in .npz, not '{out}'")
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


def _sampling(model: "Model", steps: int | None, sampler: str | None, changes: Changes | None) -> "Sampling":
    """How to draw from this model: its recipe's way, but for what was asked."""
    from unnoise.recipe import override

    asked: Changes = {f"sampling.{k}": v for k, v in (("steps", steps), ("sampler", sampler)) if v is not None}
    asked |= {k if k.startswith("sampling.") else f"sampling.{k}": v for k, v in (changes or {}).items()}
    return override(model.info.recipe, asked).sampling


def data(
    source: Annotated[Positional[str], arg(help="a set's name, a folder, or an .npz")],
    root: Annotated[str | None, arg(help="the folder that holds a published set")] = None,
    download: Annotated[bool, arg(help="fetch a published set if it is not there")] = False,
    size: Annotated[str | None, arg(help="height and width: 64 or 48,64")] = None,
    out: Annotated[Path | None, arg(help="write a sheet of the first 36 pictures here (.png)")] = None,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Read pictures and say what they are. Fields of the recipe's data go by their dotted names.

    Examples: unnoise data my/photos --size 64 --out sheet.png
              unnoise data fgvc-aircraft --root DIR --size 64 --data.source.level family
    """
    from unnoise import figures
    from unnoise.data.pictures import split
    from unnoise.recipe import Recipe, override

    plan = override(Recipe(), _data_changes(source, root, download, size) | (changes or {})).data
    pictures = plan.load()
    parts = split(pictures, plan.held_out)
    c, h, w = pictures.shape
    say(f"{len(pictures)} pictures of {h}x{w}, {'grey' if c == 1 else 'colour'}, {pictures.pixels.nbytes / 2**20:.1f} MiB; "
        f"{len(parts.train)} to train on, {len(parts.held_out)} held out")  # fmt: skip
    scaled = pictures.pixels.astype("float32") / 127.5 - 1
    say(f"pixels on [-1, 1]: mean {scaled.mean():.3f}, standard deviation {scaled.std():.3f} (sigma_data)")
    if pictures.classes:
        say(f"{len(pictures.classes)} classes: {', '.join(pictures.classes[:20])}")
    for reason in pictures.skipped:
        say(f"skipped {reason}")
    if out is not None:
        if out.suffix != ".png":
            raise UserError(f"--out must end in .png, not '{out}'")
        figures.save(figures.grid(pictures.pixels[:36]), out)
    return 0


def info(what: Annotated[Positional[str], arg(help="a run folder or a preset")]) -> int:
    """Print a run's or a preset's whole recipe: every field that an option can change.

    Examples: unnoise info digits
              unnoise info runs/digits
    """
    from unnoise.presets import PRESETS
    from unnoise.recipe import load_run, to_json

    if what not in PRESETS and not Path(what).is_dir():
        raise UserError(f"no run folder or preset '{what}': {nearest(what, PRESETS)}")
    say(json.dumps(to_json(PRESETS[what] if what in PRESETS else load_run(Path(what))), indent=2))
    return 0


def doctor() -> int:
    """Print versions, devices, threads, whether bf16 is fast here (measured), and what will be used."""
    import platform

    import torch
    import torchvision

    from unnoise import __version__
    from unnoise.model import choose_device
    from unnoise.training import bf16_pays

    device = choose_device()
    pays, gain = bf16_pays(device)
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    say(f"unnoise {__version__}, python {platform.python_version()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}\n"
        f"devices: cpu{''.join(', ' + g for g in gpus)}; {torch.get_num_threads()} threads\n"
        f"bf16: {gain:.2f} times the speed of fp32 (measured on a 3x3 convolution)\n"
        f"will use: {device}, {'bf16' if pays else 'fp32'}")  # fmt: skip
    return 0


VERBS: dict[str, Callable[..., int]] = {f.__name__: f for f in (demo, train, sample, data, info, doctor)}

USAGE = "unnoise: train a diffusion model on your own pictures, and draw new ones from it.\n\n" + "\n".join(
    f"  unnoise {name:8}{(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items()
) + "\n\nunnoise VERB --help tells more. Begin with: unnoise demo"  # fmt: skip


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        say(USAGE)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from unnoise import __version__

        say(__version__)
        return 0
    verb = VERBS.get(arguments[0])
    if verb is None:
        raise UserError(f"unknown verb '{arguments[0]}': {nearest(arguments[0], VERBS)}")
    plain, dotted = _take_dotted(arguments[1:])
    if dotted and "changes" not in inspect.signature(verb).parameters:
        raise UserError(f"'{arguments[0]}' takes no recipe fields, but got --{next(iter(dotted))}")
    call = functools.partial(verb, changes=dotted) if dotted else verb
    status: int = tyro.cli(call, args=plain, prog=f"unnoise {arguments[0]}")
    return status


def main() -> None:
    """Run the command and exit: 0 done, 2 something the user can mend, 128 + signal when stopped."""
    try:
        sys.exit(_dispatch(sys.argv[1:]))
    except UserError as e:
        print(f"unnoise: {e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
