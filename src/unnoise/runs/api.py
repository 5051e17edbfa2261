"""The functions of the front door, `import unnoise as un`: train, resume, load, and images from and to files."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from unnoise import figures
from unnoise.data.decode import decode_image
from unnoise.data.fit import Fit
from unnoise.data.pixels import from_uint8, to_pil, to_uint8
from unnoise.model import Model
from unnoise.presets import recipe_for
from unnoise.recipe import Recipe, override
from unnoise.registry import source_of
from unnoise.run_folder import RunFolder
from unnoise.runs.distil import begin_student
from unnoise.runs.places import run_name
from unnoise.runs.progress import follow
from unnoise.runs.resume import resume as resume_run
from unnoise.runs.start import begin
from unnoise.runs.trainer import Trainer
from unnoise.runs.warm_start import recipe_from
from unnoise.utils.errors import UserError, nearest
from unnoise.utils.names import PARTS
from unnoise.utils.runtime import Runtime

KEYWORDS = PARTS | {"guidance": "sampling.guidance", "batch": "training.batch", "seed": "training.seed", "labels": "data.labels",
                    "tracker": "training.tracker"}  # fmt: skip


def train(
    data: Any,
    *,
    size: int | tuple[int, int] | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    out: Path | str | None = None,
    preset: str | None = None,
    from_run: Path | str | None = None,
    progress: bool = True,
    **parts: Any,
) -> Trainer:
    """Train a model on images and write a run folder, as `unnoise train` does.

    `data` is a folder or other path, the name of a published data set, a uint8 array (N, H, W) or (N, H, W, C), a source, or a
    torch Dataset; `size` is a side or (height, width), by default the images' own, but 64 at most. Give `minutes` or `steps`,
    else the preset's budget is taken; that for images of your own has none and goes on until Ctrl-C. `out` is runs/NAME by
    default. `from_run` is a run whose weights and recipe this one begins with. Further keywords change the recipe: a part
    (`schedule`, `target`, `network`, `loss`, `sampler`, `guidance`, `resize`) or a few fields (`batch`, `seed`, `labels`,
    `tracker`) by their names, any other field by its dotted name, as in `**{"network.widths": [32, 64]}`. A value is a name, a
    plain value, or a part of your own.

    Ctrl-C ends training and keeps everything. Gives the run, whose `model` samples. Raises UserError for whatever can't be.
    """
    started = time.perf_counter()
    runtime = Runtime.join()
    source = source_of(data)
    recipe = _recipe(source, preset, size, from_run, _changes(minutes, steps, parts))
    run = Path(out) if out is not None else Path("runs") / (run_name(data) if isinstance(data, str | Path) else "images")
    with runtime.guard():
        trainer = begin(run, recipe, runtime=runtime, started=started, from_run=from_run)
        follow(trainer, progress)
    return trainer


def resume(run: Path | str, *, steps: int | None = None, minutes: float | None = None, data: Any = None,
           progress: bool = True) -> Trainer:  # fmt: skip
    """Go on with a run that stopped, as `unnoise train --resume` does, or train it on, to `steps` in all or for `minutes`.

    `data` says where the images are now, or gives again those that Python gave.
    """
    started, runtime = time.perf_counter(), Runtime.join()
    with runtime.guard():
        trainer = resume_run(run, runtime=runtime, data=data, steps=steps, minutes=minutes, started=started)
        follow(trainer, progress)
    return trainer


def distill(model: Model | Path | str, *, minutes: float | None = None, steps: int | None = None, out: Path | str | None = None,
            guidance: float | None = None, method: str = "matching", data: Any = None,
            progress: bool = True) -> Trainer:  # fmt: skip
    """Train a student of a model that has a run folder, which samples in one or two calls, as `unnoise distill` does.

    Give `minutes` or `steps`. `out` is RUN-fast by default; `guidance` is the strength of guidance that the student learns, by
    default that with which the run samples; 1 is none. `method` is matching or consistency (docs/distill.md); `data` says where
    the images are now, or gives again those that Python gave. Gives the student's run. Raises UserError for a model without a
    folder, a student, and whatever else can't be.
    """
    started, runtime = time.perf_counter(), Runtime.join()
    folder = RunFolder(Path(model)) if not isinstance(model, Model) else model.folder
    if folder is None:
        raise UserError("only a model with a run folder is distilled, since its images are named there: un.load(RUN)")
    with runtime.guard():
        trainer = begin_student(folder.path, out, minutes, steps, guidance, runtime=runtime, data=data, started=started,
                                method=method)  # fmt: skip
        follow(trainer, progress)
    return trainer


def load(run: Path | str, device: str | None = None) -> Model:
    """A trained model from its run folder; the device is the fastest by default."""
    return Model.load(run, device)


def read_image(path: Path | str, range: tuple[float, float] | None = None, bands: tuple[int, ...] | None = None) -> Tensor:
    """An image file as float32 (1, C, H, W) on [-1, 1], grey or colour. Raises UserError if it can't be read.

    `range` are the values that are black and white, by default all that 8 or 16 bits hold; `bands`, counted from 1, are those
    taken as red, green and blue, or as grey.
    """
    image = decode_image(Path(path), Fit(range=range, bands=bands))
    return from_uint8(np.asarray(image).reshape(1, image.height, image.width, -1))


def write_image(x: Tensor, path: Path | str, overwrite: bool = False) -> None:
    """Write x (C, H, W) or (1, C, H, W) on [-1, 1] as a PNG.

    Raises UserError for another shape or name and, unless `overwrite`, for a file that this program did not write.
    """
    x = x[None] if x.ndim == 3 else x
    if x.ndim != 4 or len(x) != 1 or x.shape[1] not in (1, 3):
        raise UserError(f"one image (1, C, H, W) of 1 or 3 channels is written, not {tuple(x.shape)}")
    figures.save(to_pil(to_uint8(x)[0]), Path(path), overwrite=overwrite)


def _recipe(source: Any, preset: str | None, size: int | tuple[int, int] | None, from_run: Path | str | None,
            changes: dict[str, Any]) -> Recipe:  # fmt: skip
    if from_run is None:
        return override(recipe_for(source, preset, size)[1], changes)
    if preset is not None:
        raise UserError(f"`preset` and `from_run` both give a recipe: leave out one of '{preset}' and '{from_run}'")
    return override(recipe_from(from_run, source, size), changes)


def _changes(minutes: float | None, steps: int | None, parts: dict[str, Any]) -> dict[str, Any]:
    """What keywords change of a recipe, by dotted names."""
    changes: dict[str, Any] = {}
    if steps is not None or minutes is not None:
        changes = {"training.steps": steps, "training.minutes": minutes}
    for name, value in parts.items():
        if "." not in name and name not in KEYWORDS:
            raise UserError(f"unknown keyword '{name}': {nearest(name, KEYWORDS)} Any other field goes by its dotted name.")
        changes[KEYWORDS.get(name, name)] = list(value) if isinstance(value, tuple) else value
    return changes
