"""The law of scaling, behind `network auto`: the loss of the U-Net over its width, its training and other choices.

    python benchmarks/scaling.py train DATA trials.jsonl --width 16,32,64 --tflop 0.5,2,8
    python benchmarks/scaling.py fit benchmarks/scaling-trials.jsonl --attention 64 --out docs/scaling.png
    python benchmarks/scaling.py check DATA check.jsonl --size 48,64 --seconds 60

`train` trains a network for each combination of the values given, and appends a line for each to a file; what is there is not
measured again. Compute is that of forward and backward passes, in TFLOP, so that it means the same on every machine. The loss is
that of validation images, a tenth of all: neither trained on, nor those that a run holds out, which stay unseen by any choice.
`fit` prints the constants of `unnoise.training.scaling`, the error of each trial under them, and what the other choices gave.
`check` trains runs of the same seconds, with the network that auto chooses and with eight picked by hand, and gives the loss of
each on the images held out, at most 1,024.
"""

import argparse
import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from unnoise.data.arrays import InMemory
from unnoise.data.dataset import ImageDataset, Split, split
from unnoise.evaluation.held_out import held_out_loss
from unnoise.networks.unet import AutoUNet, UNetConfig
from unnoise.presets import recipe_for
from unnoise.recipe import Recipe, override
from unnoise.registry import source_of
from unnoise.runs.settle import fit_to_images
from unnoise.runs.start import begin
from unnoise.training import scaling
from unnoise.training.loop import train
from unnoise.utils.precision import bf16_pays
from unnoise.utils.runtime import Runtime

VALIDATION, MAX_VALIDATION = 0.1, 1024  # of the images that are not held out: a fraction, and at most so many
LAW_RATE = 0.5  # of the learning rate, which was found to be better twice as high when the law stood
NOISES = 4  # draws of noise that the loss is a mean of
AXES: dict[str, Any] = {"width": 32, "blocks": 1, "patch": 0, "attention": 0, "batch": 32, "rate": 1.0, "dropout": 0.0,
                        "augment": 0.0, "decay": 0.4, "optimizer": "muon", "images": 0, "seed": 0, "tflop": 1.0}  # fmt: skip
Trial = dict[str, Any]


def read_images(recipe: Recipe, count: int) -> Split:
    """Images to train on, at most `count` (0: all), and those for validation."""
    images = split(recipe.data.load(), recipe.data.held_out).train
    chosen = np.random.default_rng(0).permutation(len(images))
    validation = np.zeros(len(images), dtype=bool)
    validation[chosen[: max(1, min(MAX_VALIDATION, int(len(images) * VALIDATION)))]] = True
    validation |= np.isin(images.hashes, images.hashes[validation])  # copies too
    to_train = np.zeros(len(images), dtype=bool)
    to_train[[k for k in chosen if not validation[k]][: count or None]] = True
    return Split(images.subset(to_train), images.subset(validation))


def recipe_of(trial: Trial, base: Recipe, size: tuple[int, int]) -> Recipe:
    """`rate` is a factor to the learning rate that the law gives."""
    network = AutoUNet(blocks=trial["blocks"], patch=trial["patch"], attention_tokens=trial["attention"])
    rate = trial["rate"] * scaling.learning_rate(trial["width"], trial["optimizer"])
    changes = {"network": network.of_width(trial["width"], size), "network.style.dropout": trial["dropout"],
               "training.minutes": None, "training.steps": 1, "training.learning_rate": rate, "data.augment": trial["augment"],
               **{f"training.{name}": trial[name] for name in ("batch", "seed", "decay", "optimizer")}}  # fmt: skip
    return override(base, changes)


def forward_flops(recipe: Recipe, images: ImageDataset) -> float:
    """Of one image, in the forward pass."""
    denoiser = recipe.build_denoiser(images.shape, len(images.classes))
    label = None if images.labels is None else torch.zeros(1, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        denoiser(images.tensor(slice(0, 1)), torch.full((1,), 0.5), label)
    return float(counter.get_total_flops())


def measure(trial: Trial, base: Recipe, parts: Split, runtime: Runtime) -> Trial:
    images = parts.train
    recipe = fit_to_images(recipe_of(trial, base, images.shape[1:]), images, print)
    flops = forward_flops(recipe, images)
    steps = max(1, round(trial["tflop"] * 1e12 / (3 * flops * trial["batch"])))
    config = override(recipe, {"training.steps": steps}).training
    state = recipe.build_state(images.shape, len(images.classes))
    begun = time.perf_counter()
    losses = [record.loss for record in train(state, images, config, runtime, recipe.data.flip, recipe.data.augment)]
    seconds = time.perf_counter() - begun
    found = [held_out_loss(state.average, parts.held_out, config.loss, config.times, seed, runtime, MAX_VALIDATION)
             for seed in range(NOISES)]  # fmt: skip
    return {"loss": float(np.mean(found)), "train_loss": float(np.mean(losses[-max(1, steps // 10) :])), "steps": steps,
            "learning_rate": config.learning_rate, "epochs": steps * trial["batch"] / len(images), "flops": flops,
            "parameters": sum(p.numel() for p in state.model.parameters()), "seconds": seconds, "bf16": runtime.bf16}  # fmt: skip


def run_trials(options: argparse.Namespace) -> None:
    _, base = recipe_for(source_of(options.data), None, options.size)
    base = override(base, {"data.source.root": options.root} if options.root else {})
    bf16 = bf16_pays("cpu")[0] if options.precision == "auto" else options.precision == "bf16"
    done = [json.loads(line)["trial"] for line in options.file.read_text().splitlines()] if options.file.exists() else []
    axes = [[type(default)(v) for v in getattr(options, name).split(",")] for name, default in AXES.items()]
    for values in itertools.product(*axes):
        trial = {"data": options.name or Path(options.data).stem, **dict(zip(AXES, values, strict=True))}
        parts = read_images(base, trial["images"])
        trial["side"] = max(parts.train.shape[1:])
        if trial in done:
            continue
        found = {"trial": trial, **measure(trial, base, parts, Runtime("cpu", bf16))}
        with options.file.open("a") as file:
            file.write(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in found.items()}) + "\n")
        print(
            {k: v for k, v in trial.items() if v != AXES.get(k)}, {k: found[k] for k in ("loss", "steps", "seconds")}, flush=True
        )


def hand_picked(auto: AutoUNet, size: tuple[int, int]) -> dict[str, AutoUNet]:
    """Eight networks of given widths, by what they are."""

    def fix(width: int, **changes: int) -> AutoUNet:
        changed = replace(auto, **changes)
        return replace(changed, widths=changed.of_width(width, size).widths)

    patch = auto.of_width(32, size).patch
    return {f"width {width}": fix(width) for width in (16, 32, 48, 64, 96)} | {
        "width 32, 2 blocks": fix(32, blocks=2),
        "width 32, twice the patch": fix(32, patch=2 * patch),
        "width 32, 2 blocks, twice the patch": fix(32, blocks=2, patch=2 * patch),
    }


def check(options: argparse.Namespace) -> None:
    """A line of JSON for each network: the loss on all images held out after the same seconds, start included."""
    source = source_of(options.data)
    base = recipe_for(source, None, options.size)[1]
    base = override(base, {"data.source.root": options.root} if options.root else {})
    if options.images:
        base = replace(base, data=replace(base.data, source=InMemory(few(base, options.images))))
    changes = {"training.minutes": options.seconds / 60, "training.precision": options.precision, "training.sample_every": 1e6}
    base = override(base, changes)
    _, *size = base.data.load().shape
    assert isinstance(base.network, AutoUNet)
    for name, network in {**hand_picked(base.network, (size[0], size[1])), "auto": base.network}.items():  # its start warm too
        with tempfile.TemporaryDirectory() as folder:
            trainer = begin(Path(folder) / "run", replace(base, network=network))
            for _ in trainer.train():
                pass
            config, state = trainer.config, trainer.state
            found = [held_out_loss(state.average, trainer.split.held_out, config.loss, config.times, seed, trainer.runtime,
                                   MAX_VALIDATION) for seed in range(NOISES)]  # fmt: skip
        chosen = trainer.info.recipe.network
        assert isinstance(chosen, UNetConfig)
        line = {"data": options.name or Path(options.data).stem, "size": size, "images": len(trainer.split.train),
                "seconds": options.seconds, "precision": options.precision, "threads": torch.get_num_threads(),
                "network": name, "widths": chosen.widths, "patch": chosen.patch, "steps": state.step,
                "loss": round(float(np.mean(found)), 5)}  # fmt: skip
        with options.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)


def few(recipe: Recipe, count: int) -> ImageDataset:
    """Of the images that the recipe trains on `count`, and those that it holds out."""
    parts = split(recipe.data.load(), recipe.data.held_out)
    chosen = np.linspace(0, len(parts.train) - 1, count).round().astype(int)
    pixels = np.concatenate([parts.train.read(chosen), parts.held_out.pixels])
    return ImageDataset(pixels, test=np.arange(len(pixels)) >= count)


def fit(options: argparse.Namespace) -> None:
    """Least squares of the logarithm of the loss; exponents are shared, E and B are each data set's own."""
    from scipy.optimize import least_squares

    rows = [json.loads(line) for line in options.file.read_text().splitlines()]
    base = AXES | {"rate": LAW_RATE, "attention": options.attention}
    plain = [r for r in rows if is_plain(r["trial"], base)]
    names = list(dict.fromkeys(r["trial"]["data"] for r in plain))
    sides = {r["trial"]["data"]: r["trial"]["side"] for r in plain}
    loss = np.array([r["loss"] for r in plain])

    def predicted(p: np.ndarray) -> np.ndarray:
        """p: log E and log B of each set, then R, q, a, b."""
        found = []
        for r in plain:
            k, trial = names.index(r["trial"]["data"]), r["trial"]
            ratio = p[-4] * (trial["side"] / 8) ** p[-3] * (trial["width"] / 32) ** -p[-2]
            found.append(math.exp(p[2 * k]) + math.exp(p[2 * k + 1]) * (ratio + (r["steps"] / 1000) ** -p[-1]))
        return np.array(found)

    begin = np.array([-2.0, -3.0] * len(names) + [0.5, 0.5, 0.8, 0.7])
    p = least_squares(lambda p: np.log(predicted(p) / loss), begin, loss="soft_l1", f_scale=0.02).x
    print("R {:.2f}, q {:.2f}, a {:.2f}, b {:.2f}".format(*p[-4:]))
    for k, name in enumerate(names):
        print(f"{name}: E {math.exp(p[2 * k]):.3f}, B {math.exp(p[2 * k + 1]):.4f}")
    errors = predicted(p) / loss - 1
    print("\n| data | width | compute, TFLOP | steps | validation loss | of the law |\n|---|---|---|---|---|---|")
    for r, error in zip(plain, errors, strict=True):
        t = r["trial"]
        print(f"| {t['data']} | {t['width']} | {t['tflop']:g} | {r['steps']} | {r['loss']:.4f} | {100 * error:+.1f} % |")
    print(f"\nerror: {100 * np.abs(errors).mean():.1f} % in the mean, {100 * np.abs(errors).max():.1f} % at most\n")
    print("| data | TFLOP | what is other | steps | validation loss | without it | steps |\n|---|---|---|---|---|---|---|")
    for r in rows:
        print_beside(r, rows, base)
    if options.out:
        plot(plain, names, sides, lambda width, steps, name: curve(p, names.index(name), sides[name], width, steps), options.out)


def is_plain(trial: Trial, base: Trial) -> bool:
    """Whether only width and compute differ from `base`."""
    return all(trial[name] == value for name, value in base.items() if name not in ("width", "tflop"))


def print_beside(row: Trial, rows: list[Trial], base: Trial) -> None:
    """A trial in which something else was changed, beside the same without it."""
    trial = row["trial"]
    if is_plain(trial, base):
        return
    same = [r for r in rows if is_plain(r["trial"], base) and all(r["trial"][k] == trial[k] for k in ("data", "width", "tflop"))]
    changed = [k for k, v in base.items() if k not in ("width", "tflop") and trial[k] != v]
    other = ", ".join(f"{k} {trial[k]}" for k in ("width", *changed))
    beside = f"{same[0]['loss']:.4f} | {same[0]['steps']}" if same else "| "
    print(f"| {trial['data']} | {trial['tflop']:g} | {other} | {row['steps']} | {row['loss']:.4f} | {beside} |")


def curve(p: np.ndarray, k: int, side: int, width: int, steps: np.ndarray) -> np.ndarray:
    ratio = p[-4] * (side / 8) ** p[-3] * (width / 32) ** -p[-2]
    found: np.ndarray = np.exp(p[2 * k]) + np.exp(p[2 * k + 1]) * (ratio + (steps / 1000) ** -p[-1])
    return found


def plot(rows: list[Trial], names: list[str], sides: dict[str, int], law: Callable[[int, np.ndarray, str], np.ndarray],
         path: Path) -> None:  # fmt: skip
    """The loss over compute, a curve a width: where they cross the larger network becomes the better one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(names), 3.8), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        mine = [r for r in rows if r["trial"]["data"] == name]
        for width in sorted({r["trial"]["width"] for r in mine}):
            points = sorted((r["trial"]["tflop"], r["loss"], r["steps"]) for r in mine if r["trial"]["width"] == width)
            x = np.geomspace(min(p[0] for p in points) / 1.5, max(p[0] for p in points) * 1.5, 50)
            (line,) = axes.plot(x, law(width, x * points[0][2] / points[0][0], name), linewidth=1)
            axes.plot([p[0] for p in points], [p[1] for p in points], "o", color=line.get_color(), label=f"width {width}")
        axes.set(title=f"{name}, {sides[name]}x{sides[name]}", xlabel="compute, TFLOP", xscale="log", yscale="log")
        axes.legend(frameon=False, fontsize=8)
    figure.axes[0].set_ylabel("validation loss")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    trials = verbs.add_parser("train")
    trials.set_defaults(call=run_trials)
    trials.add_argument("data")
    trials.add_argument("file", type=Path)
    trials.add_argument("--size", type=int)
    trials.add_argument("--root", help="of a published data set")
    trials.add_argument("--name")
    trials.add_argument("--precision", default="auto")
    for axis, value in AXES.items():
        trials.add_argument(f"--{axis}", default=str(value))
    checking = verbs.add_parser("check")
    checking.set_defaults(call=check)
    checking.add_argument("data")
    checking.add_argument("file", type=Path)
    checking.add_argument("--size", type=lambda text: tuple(int(side) for side in text.split(",")), metavar="HEIGHT,WIDTH")
    checking.add_argument("--root", help="of a published data set")
    checking.add_argument("--name")
    checking.add_argument("--images", type=int, help="train on this many")
    checking.add_argument("--seconds", type=float, default=60.0)
    checking.add_argument("--precision", default="auto")
    fitting = verbs.add_parser("fit")
    fitting.set_defaults(call=fit)
    fitting.add_argument("file", type=Path)
    fitting.add_argument("--out", type=Path)
    fitting.add_argument("--attention", type=int, default=AXES["attention"], help="that of the trials that the law is fitted to")
    options = parser.parse_args()
    options.call(options)


if __name__ == "__main__":
    main()
