"""Report cards of runs: `un.report`, `unnoise report`, and at the end of a training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from unnoise import figures
from unnoise.data.dataset import ImageDataset
from unnoise.data.hub import Hub
from unnoise.data.pixels import HALF_RANGE, to_uint8
from unnoise.model import Model
from unnoise.reports.card import Example, card
from unnoise.reports.render import check_name, write
from unnoise.restoration.undo import psnr
from unnoise.run_folder import RunFolder
from unnoise.runs.evaluate import Advance, evaluate
from unnoise.runs.resume import find_local_images
from unnoise.runs.trainer import Trainer
from unnoise.utils import rng
from unnoise.utils.errors import UserError

IMAGES, SAMPLES, STEPS = 4, 6, 6  # of the example, images one after the other in rows
SIGMA = 50  # of its noise, of 255
SHORT = 0.5  # seconds that the example may take at the end of a training
PASS = 0.8  # of a step of training on as many images, that a call of the network takes in a small batch, measured


def report(
    run: Model | Path | str, evaluated: bool = False, on_progress: Advance | None = None, cache: Path | None = None
) -> Path:
    """Write the report card of a run, report.html and report.md in its folder, as `unnoise report` does; gives the first's path.

    With `evaluated` the run is first evaluated as `un.evaluate` does by default, unless it has been. An example of restoration is
    computed where the run's images are found. Raises UserError for a damaged file of the run, and where another's has the name.
    """
    folder = RunFolder.open(run) if not isinstance(run, Model) else run.folder
    if folder is None:
        raise UserError("only a model with a run folder has a report card: un.load(RUN)")
    _check(folder)
    if evaluated and not folder.evaluation.is_file():
        evaluate(folder.path, on_progress=on_progress, cache=cache)
    return _write(folder, _found_example(folder, cache))


def report_training(trainer: Trainer, images_per_second: float) -> None:
    """Write the report card of a run whose training has ended at this speed; where that fails it is said, as of a log."""
    if not trainer.runtime.is_first:
        return
    try:
        _check(trainer.folder)
        short = SHORT * images_per_second > IMAGES * SAMPLES * STEPS * PASS
        _write(trainer.folder, _example(trainer.model, trainer.split.held_out) if short and not trainer.sharded else None)
    except Exception as e:  # a sampler or network of the user's own may raise anything, and the training is done
        trainer.say(f"the report card can't be written ({e}): 'unnoise report {trainer.folder.path}' writes it")


def _check(folder: RunFolder) -> None:
    for path in (folder.report, folder.report.with_suffix(".md")):
        check_name(path)
    figures.check_name(folder.example)


def _write(folder: RunFolder, example: Example | None) -> Path:
    if example is not None and example.image is not None:
        figures.save(example.image, folder.example)
    page = card(folder, example)
    for path in (folder.report.with_suffix(".md"), folder.report):
        write(page, path)
    return folder.report


def _found_example(folder: RunFolder, cache: Path | None) -> Example | None:
    """With images that are found where the recipe says; else the reason why there is none."""
    if not folder.model.is_file():
        return Example("There are no weights yet.")
    model = Model.load(folder.path)
    if isinstance(model.info.recipe.data.source, Hub):
        return Example("No example: the run's images are on the hub, and a report fetches nothing.")
    try:
        held_out = find_local_images(folder, model.info, cache).held_out
    except UserError:
        return Example("No example: the run's images are not where they were, and it takes some that were held out.")
    return _example(model, held_out)


def _example(model: Model, held_out: ImageDataset) -> Example:
    """Held-out images denoised: a row each of the image, the image with noise, the mean and the standard deviation of samples."""
    if not len(held_out):
        return Example("No example: no image was held out.")
    chosen = np.linspace(0, len(held_out) - 1, min(IMAGES, len(held_out))).round().astype(int)
    x, count = held_out.tensor(chosen, "cpu"), len(chosen)
    y = x + SIGMA / HALF_RANGE * rng.normal(rng.stream(0, "report example"), x.shape)
    label = None
    if held_out.labels is not None and not model.info.recipe.training.label_dropout:
        label = torch.from_numpy(held_out.labels[chosen]).to(model.info.device).repeat(SAMPLES)
    model = model.mean_model
    restorer = model.restorer(replace(model.info.restoring(), steps=STEPS))
    try:
        found = restorer.sample_denoised(y.repeat(SAMPLES, 1, 1, 1), SIGMA / HALF_RANGE, 1, label=label)  # in one batch
    except UserError as e:
        return Example(f"No example: {e}.")
    mean = found.mean.unflatten(0, (SAMPLES, count)).mean(0)
    std = found.samples[0].unflatten(0, (SAMPLES, count)).std(0).mean(1, keepdim=True).expand_as(x)
    brightest = float(std.max()) or 1.0
    columns = (x, y.clamp(-1, 1), mean, 2 * std / brightest - 1)
    rows = np.stack([to_uint8(column) for column in columns], 1).reshape(-1, *x.shape[2:], x.shape[1])
    before, after = (psnr(z, x) for z in (y, mean))
    caption = (f"Each row, from the left: an image that was held out; with noise of sigma {SIGMA} of 255; the mean of {SAMPLES} "
               f"restorations by {STEPS} steps each; their standard deviation, the doubt (black is none, white "
               f"{brightest * HALF_RANGE:.0f} of 255). PSNR {before:.1f} dB before, {after:.1f} dB after.")  # fmt: skip
    return Example(caption, figures.grid(rows, len(columns), min_side=96))
