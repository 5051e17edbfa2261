"""Beginning a run: what stands before the first step."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from unnoise import __version__
from unnoise.data.dataset import ImageDataset, split
from unnoise.data.stats import describe_classes
from unnoise.diffusion.samplers import Consistency
from unnoise.recipe import Recipe, RunInfo, command_line
from unnoise.registry import check_reopens, from_json, to_json
from unnoise.run_folder import RunFolder
from unnoise.runs.lock import creating
from unnoise.runs.places import relation
from unnoise.runs.settle import settle
from unnoise.runs.trackers import check_tracker
from unnoise.runs.trainer import Trainer
from unnoise.runs.warm_start import read_weights
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import SINGLE, Runtime

VERSIONS = f"unnoise {__version__}, torch {torch.__version__}"
Say = Callable[[str], None]


def begin(path: Path | str, recipe: Recipe, say: Say = print, strict: bool = False, cache: Path | None = None,
          runtime: Runtime = SINGLE, started: float | None = None, from_run: Path | str | None = None) -> Trainer:  # fmt: skip
    """Read the data, decide what is left to decide, and write the recipe down. Nothing is written on an error.

    `strict` refuses data with unreadable files; `cache` is where decoded images are kept. The clock of `minutes` runs from
    `started`, a time of `time.perf_counter`, by default from now. The weights are those of the run `from_run`, else random.
    """
    started = time.perf_counter() if started is None else started
    say, folder = say if runtime.is_first else silent, RunFolder(Path(path))
    runtime.on_first(folder.refuse_existing)
    check_reopens(recipe)
    check_tracker(recipe.training.tracker)
    if recipe.training.objective.from_teacher and (from_run is None or not isinstance(recipe.sampling.sampler, Consistency)):
        raise UserError("this training.objective is for students of another run: 'unnoise distill RUN' makes one")
    if recipe.data.labels and not recipe.network.takes_labels:
        recipe = replace(recipe, data=replace(recipe.data, labels=False))
        say("this network takes no labels: training without")
    images, fingerprint = load_images(recipe, cache, runtime)
    if strict and images.skipped:
        raise UserError(f"{len(images.skipped)} files can't be read, the first {images.skipped[0]}: mend or remove them, "
                        "or train without `strict`")  # fmt: skip
    parts = split(images, recipe.data.held_out)
    counts = [sum(runtime.gather(len(p))) if images.per_process else len(p) for p in (parts.train, parts.held_out)]

    def choose() -> RunInfo:
        settled, bf16, compiled = settle(recipe, parts.train, runtime, say, started)
        return RunInfo(settled, images.shape, images.classes, fingerprint, runtime.device, bf16, compiled, versions=VERSIONS,
                       command=command_line(), data_path=relation(recipe.data.source, folder.path),
                       from_run="" if from_run is None else Path(from_run).resolve().name,
                       images=counts[0], held_out=counts[1])  # fmt: skip

    info = replace(_agree(choose, recipe, runtime), device=runtime.device)
    weights = None if from_run is None else read_weights(from_run, info.recipe, info.shape, info.classes, say)
    trainer = Trainer(folder, info, parts, runtime, say, started, weights)
    runtime.on_first(lambda: _create(trainer, images, from_run))
    _describe(trainer, images)
    trainer.start()
    return trainer


def load_images(recipe: Recipe, cache: Path | None, runtime: Runtime, whole: bool = False) -> tuple[ImageDataset, str]:
    """The images that this process trains on, and the fingerprint of those of all. Class names are those of all processes.

    `whole` reads every pixel for it, also of images that were decoded before.
    """
    images = recipe.data.load(cache, runtime.rank, runtime.world_size)
    images = replace(images, known_hashes=None) if whole else images
    fingerprints = runtime.gather(images.fingerprint())
    if images.per_process:
        if images.labels is not None:
            names = tuple(sorted(set().union(*runtime.gather(images.classes))))
            index = np.array([names.index(name) for name in images.classes])
            images = replace(images, labels=index[images.labels], classes=names)
        return images, "-".join(fingerprints)
    if len(set(fingerprints)) > 1:
        raise UserError(f"process {runtime.rank} found other images than the first one: give all machines the same data")
    return images, fingerprints[0]


def _agree(choose: Callable[[], RunInfo], recipe: Recipe, runtime: Runtime) -> RunInfo:
    """What the first process chose, in every process; each keeps the images that it was given itself."""
    found: RunInfo = from_json(RunInfo, runtime.on_first(lambda: to_json(choose())), "run")
    return replace(found, recipe=replace(found.recipe, data=replace(found.recipe.data, source=recipe.data.source)))


def silent(_: str) -> None:
    pass


def _create(trainer: Trainer, images: ImageDataset, from_run: Path | str | None) -> None:
    """Write what a run folder holds before the first step."""
    folder = trainer.folder
    with creating(folder, trainer.lock):
        if from_run is not None and trainer.is_student:
            RunFolder(Path(from_run)).copy_to(folder.teacher)
        trainer.info.save(folder.recipe)
        if images.skipped:
            (folder.path / "skipped.txt").write_text("\n".join(images.skipped) + "\n", encoding="utf-8")


def _describe(trainer: Trainer, images: ImageDataset) -> None:
    """Say what was found and chosen."""
    say, recipe, count, runtime = trainer.say, trainer.info.recipe, len(trainer.split.train), trainer.runtime
    config, (c, h, w) = recipe.training, trainer.info.shape
    if images.skipped:
        say(f"{len(images.skipped)} files can't be read and are left out: {trainer.folder.path / 'skipped.txt'} names each; "
            f"the first: {images.skipped[0]}")  # fmt: skip
    for note in images.notes:
        say(f"files: {note}")
    if images.labels is not None:
        for name, text in describe_classes(images.labels, images.classes):
            say(f"{name}: {text}")
    own = " of each process's own" if images.per_process else ""
    say(f"{count} images{own} of {h}x{w}, {'grey' if c == 1 else 'colour'}, to train on, "
        f"{'mirrored half of the time' if recipe.data.flip else 'never mirrored'}; {len(trainer.split.held_out)} held out; "
        f"{sum(p.numel() for p in trainer.state.model.parameters()):,} parameters; batch {config.batch}; "
        f"{f'{runtime.world_size} processes, ' if runtime.world_size > 1 else ''}{runtime.device}, "
        f"{torch.get_num_threads()} threads, {'bf16' if runtime.bf16 else 'fp32'}")  # fmt: skip
    if trainer.is_open:
        say("training until Ctrl-C, which ends it with a short fall of the learning rate"
            + (", or until the held-out loss has stopped falling" if config.stop_when == "plateau" else "")
            + (", or until samples are copies" if config.stop_when_copying else ""))  # fmt: skip
    if config.drop_last and not config.drops_last(count):
        say(f"{count} images are fewer than a batch of {config.batch}: no batch is dropped, they span epochs")
