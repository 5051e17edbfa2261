"""The report card of a run: what it was trained on, what it makes, how good that is, what it cost. Nothing is computed anew."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open

from unnoise import __version__
from unnoise.data.decode import decode_image
from unnoise.recipe import RunInfo
from unnoise.reports import curves, words
from unnoise.reports.blocks import Block, Code, Curve, Facts, Figure, Page, Section, Stages, Table, Text
from unnoise.reports.evaluations import Found, higher_is_better, read_evaluation
from unnoise.run_folder import Curve as Values
from unnoise.run_folder import RunFolder
from unnoise.training import checkpoint
from unnoise.utils import atomic
from unnoise.utils.errors import UserError

MAX_STAGES = 12
MAX_SIDE = 1200  # pixels of an image on the page
MAX_SECONDS = 1e9  # of a session
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of BatchNorm, beside its parameters
MAX_CLASSES = 40  # that are named
PER_CLASS = {"n": "Samples", "real": "Held out", "recognised": "Recognised", "real_recognised": "Held out, recognised"}
EXAMPLE_LATER = "Not made yet: it takes the run's images, and some seconds."


@dataclass(frozen=True)
class Example:
    """A figure of images restored, the file it was written to and its caption; or the reason why there is none."""

    caption: str
    image: Image.Image | None = None


@dataclass(frozen=True)
class Cost:
    """Of the training: steps, seconds in them, images a second (median) and, where they were recorded, machine and energy."""

    steps: int
    seconds: float
    rate: float
    wall: float | None
    machine: str | None
    joules: float | None


def card(folder: RunFolder, example: Example | None = None) -> Page:
    """The page of a run. Raises UserError where its files are damaged."""
    info, found = folder.read_info(), read_evaluation(folder.evaluation)
    metrics, grids = folder.read_metrics(), folder.grids()
    cost = _cost(folder, info, metrics.get("images_per_second"))
    sections = (
        ("Samples", _samples(folder, info, grids)),
        ("What it was trained on", _data(info)),
        ("Network and recipe", _recipe(folder, info, cost)),
        ("Watch it learn", _stages(folder, grids)),
        ("Loss", _losses(folder, metrics.get("loss"))),
        ("How good it is", _measures(folder, found)),
        ("Does it copy its training images?", _copying(folder, found)),
        ("Restoration, and how sure it is", _example(folder, example)),
        ("Speed and cost", _costs(cost)),
        ("How to repeat it", _repeat(info)),
    )
    kept = tuple(Section(title, blocks) for title, blocks in ((title, tuple(blocks)) for title, blocks in sections) if blocks)
    return Page(
        "Report card of a diffusion model", run_title(folder), _lead(info, cost), kept, f"Written by unnoise {__version__}."
    )


def run_title(folder: RunFolder) -> str:
    """The name of its folder, and no more of the path."""
    return folder.path.resolve().name or "run"


def shown_path(folder: RunFolder) -> str:
    """As it was given, where that says nothing of the machine."""
    return run_title(folder) if folder.path.is_absolute() or ".." in folder.path.parts else folder.path.as_posix()


def number(value: float) -> str:
    """Of a measure: four decimals, or four digits where it is large; with the sign of mathematics."""
    decimals = 4 if not 10 <= abs(value) < math.inf else max(0, 3 - int(math.log10(abs(value))))
    return f"{value:,.{decimals}f}".replace("-", "−")


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def size_of(info: RunInfo) -> str:
    """Height, width and colour."""
    c, h, w = info.shape
    return f"{h}x{w} pixels, {'grey' if c == 1 else 'colour' if c == 3 else f'{c} channels'}"


def read_figure(folder: RunFolder, path: Path, alt: str, caption: str) -> Figure | None:
    """An image of the run folder, None where there is none. Raises UserError for one that can't be read."""
    if not path.is_file():
        return None
    image = decode_image(path)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return Figure(alt, caption, image, path.relative_to(folder.path).as_posix())


def _lead(info: RunInfo, cost: Cost | None) -> str:
    count = f"{info.images:,} images" if info.images else "images"
    classes = f" in {len(info.classes)} classes" if info.classes else ""
    trained = f", in {cost.steps:,} steps" if cost else ", not trained yet"
    return f"Trained from scratch on {count}{classes} of {words.source_title(info.recipe.data.source)}, {size_of(info)}{trained}."


def _samples(folder: RunFolder, info: RunInfo, grids: dict[int, Path]) -> Iterator[Block]:
    if not grids:
        yield Text("There are no samples yet.", notice=True)
        return
    step, path = list(grids.items())[-1]
    how = f"Samples after step {step:,}, not selected: {words.sampling(info)}, seed {info.recipe.training.seed}."
    if figure := read_figure(folder, path, f"Grid of samples that the model generated after step {step:,}", how):
        yield figure


def _data(info: RunInfo) -> Iterator[Block]:
    data = info.recipe.data
    rows = [
        ("Images", words.source_title(data.source)),
        ("Trained on", f"{info.images:,}" if info.images else "number not recorded"),
    ]
    if info.images:
        rows.append(("Held out", f"{info.held_out:,}, never trained on" if info.held_out else "none"))
    rows.append(("Size", size_of(info)))
    if info.classes:
        more = f" and {len(info.classes) - MAX_CLASSES} more" if len(info.classes) > MAX_CLASSES else ""
        rows.append((f"Classes ({len(info.classes)})", ", ".join(info.classes[:MAX_CLASSES]) + more))
    else:
        rows.append(("Classes", "none: trained without labels"))
    mirrored = "mirrored half of the time" if data.flip else "never mirrored"
    rows.append(("Augmentation", mirrored + (f", others with probability {data.augment:g}" if data.augment else "")))
    yield Facts((*rows, ("Fingerprint", info.fingerprint or "none")))


def _recipe(folder: RunFolder, info: RunInfo, cost: Cost | None) -> Iterator[Block]:
    yield Facts((*words.recipe(info, _parameters(folder), cost.steps if cost else None), ("Sampler", words.sampling(info))))


def _parameters(folder: RunFolder) -> int | None:
    """By the header of the weights."""
    if not folder.model.is_file():
        return None
    try:
        with safe_open(folder.model, "pt") as file:
            names = [name for name in file.keys() if not (name.startswith(checkpoint.MOMENTS) or name.endswith(STATISTICS))]  # noqa: SIM118
            return sum(int(np.prod(file.get_slice(name).get_shape(), dtype=object)) for name in names)
    except Exception as e:  # safetensors raises its own kinds
        raise UserError(f"'{folder.model}' is damaged ({str(e).splitlines()[0]}): restore it from a copy") from e


def _stages(folder: RunFolder, grids: dict[int, Path]) -> Iterator[Block]:
    if len(grids) < 2:
        return
    steps = list(grids)
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(MAX_STAGES, len(steps))).round().astype(int))
    found = [(f"Step {s:,}", read_figure(folder, grids[s], f"Samples from the same noise after step {s:,}", ""))
             for s in (steps[k] for k in chosen)]  # fmt: skip
    yield Stages("The same noise at each stage: what the model made of it at that step, and what it makes of it at the end.",
                 tuple((name, figure) for name, figure in found if figure))  # fmt: skip


def _losses(folder: RunFolder, loss: Values | None) -> Iterator[Block]:
    measured = folder.read_held_out()
    held_out, rates = measured.get("loss"), measured.get("copy_rate")
    if loss is None:
        return
    text = f"Loss of {len(loss[1]):,} steps, {np.mean(loss[1][-50:]):.4f} over the last {min(50, len(loss[1]))}."
    if held_out:
        text += f" On held-out images: {held_out[1][-1]:.4f} at the end, {min(held_out[1]):.4f} at best (the averaged weights)."
    image = folder.path / "loss.png"
    yield Curve(f"Curve of the loss. {text}", text, curves.loss_svg(loss, held_out), image.name if image.is_file() else None)
    if rates:
        text = f"Copies of training images among the samples made during training: {percent(rates[1][-1])} at the end."
        yield Curve(f"Curve of the copy rate. {text}", text, curves.rate_svg(rates), None) if len(rates[0]) > 1 else Text(text)


def _measures(folder: RunFolder, found: Found | None) -> Iterator[Block]:
    if found is None:
        yield Text("Not evaluated yet, so nothing is said of it here. This does, and writes this page anew:", notice=True)
        yield Code(f"unnoise report {shown_path(folder)} --evaluate")
        return
    yield Text(f"{found.n:,} samples against {found.real:,} images that the run never saw, in features of {found.features}, seed "
               f"{found.seed}. The floor is the value of as many training images in place of the samples: real images score no "
               "better. The interval says nothing of training again.")  # fmt: skip
    if found.measures:
        better = {True: ", higher is better", False: ", lower is better", None: ""}
        rows = ((name.removesuffix(f" ({found.features})") + better[higher_is_better(name)],  # the text above names them
                 number(v.value), interval(v.low, v.high), number(v.floor)) for name, v in found.measures.items())  # fmt: skip
        yield Table("Measures, each beside its floor", ("Measure", "Value", "95 % interval", "Floor"), tuple(rows))
    if "bits_per_dim" in found.bits:
        yield Text(_bits(found.bits))
    if found.per_class:
        yield _classes(found)
    yield from (Text(f"{note[:1].upper()}{note[1:]}.") for note in found.notes)


def _bits(bits: dict[str, float]) -> str:
    """The bound with its interval, its terms, and that of training images."""
    terms = [f"{name} {number(bits[name])}" for name in ("prior", "diffusion", "reconstruction") if name in bits]
    text = f"Bits per dimension of held-out images: at most {number(bits['bits_per_dim'])}"
    text += f" ({interval(bits['low'], bits['high'])})" if {"low", "high"} <= bits.keys() else ""
    text += f", of it {', '.join(terms)}" if terms else ""
    return text + (f"; {number(bits['training'])} of as many training images." if "training" in bits else ".")


def _classes(found: Found) -> Table:
    """A row a class, a column for each number that any has."""
    names = list(dict.fromkeys(k for values in found.per_class.values() for k in values))
    rows = [(name, *(_of_class(k, values.get(k)) for k in names)) for name, values in list(found.per_class.items())[:MAX_CLASSES]]
    more = f", the first {MAX_CLASSES} of {len(found.per_class)}" if len(found.per_class) > MAX_CLASSES else ""
    return Table(f"By class{more}", ("Class", *(PER_CLASS.get(k, k) for k in names)), tuple(rows))


def _of_class(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return percent(value) if "recognised" in name else f"{value:,.0f}" if name in PER_CLASS else number(value)


def interval(low: float, high: float) -> str:
    return f"{number(low)} to {number(high)}"


def _copying(folder: RunFolder, found: Found | None) -> Iterator[Block]:
    if found is None:
        yield Text("Not looked at yet: the evaluation does.", notice=True)
        return
    yield Text(found.verdict[:1].upper() + found.verdict[1:] + ".", notice=not found.verdict.startswith("no sign"))
    caption = "The samples most like one training image, the most suspicious first; each stands left of that image."
    alt = "Pairs of a sample and its nearest training image"
    if figure := read_figure(folder, folder.evaluation_nearest, alt, caption):
        yield figure


def _example(folder: RunFolder, example: Example | None) -> Iterator[Block]:
    if example is None:
        yield Text(EXAMPLE_LATER)
        yield Code(f"unnoise report {shown_path(folder)}")
    elif example.image is None:
        yield Text(example.caption)
    else:
        alt = "Held-out images, the same with noise, restored, and the doubt of that"
        yield Figure(alt, example.caption, example.image, folder.example.name)


def _cost(folder: RunFolder, info: RunInfo, rates: Values | None) -> Cost | None:
    """From the images per second of each step; None before the first."""
    if rates is None:
        return None
    sessions = [
        s for s in atomic.read_records(folder.cost) if isinstance(s.get("seconds"), float) and 0 <= s["seconds"] < MAX_SECONDS
    ]
    joules: list[Any] = [s.get("joules") for s in sessions]
    machines = dict.fromkeys(str(s.get("machine"))[:200] for s in sessions)
    values = np.asarray(rates[1])
    seconds = float((info.recipe.training.batch / values[values > 0]).sum())
    known = all(isinstance(j, int | float) for j in joules) and bool(joules)
    return Cost(rates[0][-1], seconds, float(np.median(values)), sum(s["seconds"] for s in sessions) if sessions else None,
                "; ".join(machines) or None, float(sum(joules)) if known else None)  # fmt: skip


def _costs(cost: Cost | None) -> Iterator[Block]:
    if cost is None:
        return
    rows = [
        ("Time in steps", f"{duration(cost.seconds)} for {cost.steps:,} steps"),
        ("Speed", f"{cost.rate:,.0f} images/s (median)"),
    ]
    if cost.wall is not None:
        rows.append(("Time in all", f"{duration(cost.wall)}, samples and checkpoints included"))
    rows.append(("Machine", cost.machine or "not recorded"))
    unknown = "not recorded" if cost.wall is None else "not measured: this machine does not tell"
    energy = unknown if cost.joules is None else f"{cost.joules / 3600:.2f} Wh of the processor"
    yield Facts((*rows, ("Energy", energy)))


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _repeat(info: RunInfo) -> Sequence[Block]:
    command = info.command.replace("__main__.py", "unnoise", 1)
    if not command.startswith("unnoise "):
        return (Text("It was trained from Python; recipe.json in the run folder has all of it. The command was:"), Code(command))
    steps = info.total_steps if info.recipe.training.minutes is not None else None
    budget = f" Another machine does another number of steps in --minutes; --steps {steps} does as many." if steps else ""
    return (Code(command), Text(f"By {info.versions}; recipe.json in the run folder has every number.{budget}"))
