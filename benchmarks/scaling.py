"""Held-out loss of the U-Net over its size, compute and number of images: the measurements behind `network auto`.

    python benchmarks/scaling.py DATA --to trials.jsonl --widths 16,32,64 --tflop 0.5,2,8

trains a network for each combination of the values given, and appends a line for each to a file; a line that is there is not
measured again. Compute is that of forward and backward passes, in TFLOP, so that it means the same on every machine. The loss is
that of validation images, a tenth of all: neither trained on, nor those that a run holds out, which stay unseen by this choice.
"""

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from unnoise.data.dataset import ImageDataset, Split, split
from unnoise.evaluation.held_out import held_out_loss
from unnoise.presets import find_preset, preset_for
from unnoise.recipe import Recipe, override
from unnoise.registry import source_of
from unnoise.training.loop import TrainState, compute_gradients, train
from unnoise.training.batches import Batches
from unnoise.utils.precision import bf16_pays
from unnoise.utils.runtime import Runtime

VALIDATION = 0.1  # of the images that are not held out
NOISES = 4  # draws of noise that the loss is a mean of
AXES = {"width": "32", "blocks": "1", "patch": "0", "levels": "0", "attention": "64", "batch": "32", "rate": "1", "dropout": "0",
        "augment": "0", "images": "0", "seed": "0", "mean": "nan", "ema": "0.1", "decay": "0.4", "optimizer": "muon", "tflop": "1"}  # fmt: skip


def read_images(recipe: Recipe, count: int) -> Split:
    """Images to train on, at most `count` (0: all), and those for validation."""
    images = split(recipe.data.load(), recipe.data.held_out).train
    chosen = np.random.default_rng(0).permutation(len(images))
    validation = chosen[: max(1, min(1024, int(len(images) * VALIDATION)))]
    mask = np.zeros(len(images), dtype=bool)
    mask[validation] = True
    mask |= np.isin(images.hashes, images.hashes[mask])
    rest = [k for k in chosen if not mask[k]][: count or None]
    train_mask = np.zeros(len(images), dtype=bool)
    train_mask[rest] = True
    return Split(images.subset(train_mask), images.subset(mask))


def recipe_of(trial: dict, base: Recipe) -> Recipe:
    side = max(base.data.size or (28, 28)) if base.data.size else trial["side"]
    patch = trial["patch"] or (1 if side <= 16 else 2 if side <= 64 else 4)
    levels = trial["levels"] or (2 if side // patch <= 16 else 3)
    widths = [trial["width"] * k for k in (1, 2, 3, 4)[:levels]]
    rate = 2e-3 * (32 / trial["width"]) ** 0.5 * trial["rate"]
    changes = {"network.widths": widths, "network.blocks": trial["blocks"], "network.patch": patch,
               "network.attention_tokens": trial["attention"], "network.style.dropout": trial["dropout"],
               "training.batch": trial["batch"], "training.learning_rate": rate, "training.seed": trial["seed"],
               "training.ema": trial["ema"], "training.decay": trial["decay"], "training.optimizer": trial["optimizer"],
               "data.augment": trial["augment"]}  # fmt: skip
    if not math.isnan(trial["mean"]):
        changes["training.times.mean"] = trial["mean"]
    return override(base, changes)


def forward_flops(state: TrainState, recipe: Recipe, images: ImageDataset) -> float:
    """Of one image, in the forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        x = images.tensor(slice(0, 1))
        label = None if images.labels is None else torch.zeros(1, dtype=torch.long)
        state.model(x, torch.full((1,), 0.5), label)
    return float(counter.get_total_flops())


def measure(trial: dict, base: Recipe, parts: Split, bf16: bool) -> dict:
    recipe = recipe_of(trial, base)
    images, runtime = parts.train, Runtime("cpu", bf16)
    state = recipe.build_state(images.shape, len(images.classes))
    flops = forward_flops(state, recipe, images)
    steps = max(1, round(trial["tflop"] * 1e12 / (3 * flops * trial["batch"])))
    config = override(recipe, {"training.steps": steps, "training.minutes": None,
                               "training.warmup": min(100, math.ceil(0.03 * steps))}).training  # fmt: skip
    start, losses = time.perf_counter(), []
    for record in train(state, images, config, runtime, recipe.data.flip, recipe.data.augment):
        losses.append(record.loss)
    seconds = time.perf_counter() - start
    levels = np.mean([held_out_loss(state.average, parts.held_out, config.loss, config.times, seed, runtime, 1024)
                      for seed in range(NOISES)], axis=0)  # fmt: skip
    seen = steps * trial["batch"]
    return {"loss": round(float(levels.mean()), 6), "train_loss": round(float(np.mean(losses[-max(1, steps // 10) :])), 6),
            "levels": [round(float(v), 6) for v in levels], "parameters": sum(p.numel() for p in state.model.parameters()),
            "flops": flops, "steps": steps, "seen": seen, "epochs": round(seen / len(images), 3), "train_images": len(images),
            "learning_rate": config.learning_rate, "seconds": round(seconds, 1), "bf16": bf16}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--size", default=None)
    parser.add_argument("--name", default=None)
    parser.add_argument("--precision", default="auto")
    for axis, value in AXES.items():
        parser.add_argument(f"--{axis}", default=value)
    options = parser.parse_args()
    source = source_of(options.data)
    changes = {"data.source": source}
    if options.size:
        size = [int(v) for v in options.size.split(",")]
        changes["data.size"] = size * 2 if len(size) == 1 else size
    base = find_preset(preset_for(source))
    base = override(base, changes)
    bf16 = options.precision == "bf16" or (options.precision == "auto" and bf16_pays("cpu")[0])
    done = {}
    if options.to.exists():
        done = {json.dumps(r["trial"], sort_keys=True) for r in map(json.loads, options.to.read_text().splitlines())}
    kinds = {"width": int, "blocks": int, "patch": int, "levels": int, "attention": int, "batch": int, "images": int, "seed": int,
             "optimizer": str}  # fmt: skip
    axes = [[kinds.get(a, float)(v) for v in getattr(options, a).split(",")] for a in AXES]
    name = options.name or Path(options.data).stem
    read: dict[int, Split] = {}
    for values in itertools.product(*axes):
        trial = {"data": name, **dict(zip(AXES, values, strict=True))}
        if trial["images"] not in read:
            read[trial["images"]] = read_images(base, trial["images"])
        parts = read[trial["images"]]
        h, w = parts.train.shape[1:]
        trial |= {"side": max(h, w)}
        if math.isnan(trial["mean"]):
            trial["mean"] = base.training.times.mean
        if json.dumps(trial, sort_keys=True) in done:
            continue
        found = {"trial": trial, **measure(trial, base, parts, bf16)}
        with options.to.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print({k: v for k, v in trial.items() if str(v) != AXES.get(k)}, {k: found[k] for k in ("loss", "train_loss", "steps", "epochs", "seconds", "parameters")}, flush=True)


if __name__ == "__main__":
    main()
