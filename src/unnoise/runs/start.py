"""Beginning a run and resuming one: what stands before the first step."""

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unnoise import __version__
from unnoise.data.dataset import ImageDataset, split
from unnoise.data.stats import describe_classes
from unnoise.recipe import Recipe, RunInfo
from unnoise.registry import check_reopens, source_of
from unnoise.run_folder import RunFolder
from unnoise.runs.settle import settle
from unnoise.runs.trainer import Trainer
from unnoise.training import checkpoint
from unnoise.utils import atomic
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import SINGLE, Runtime

VERSIONS = f"unnoise {__version__}, torch {torch.__version__}"
Say = Callable[[str], None]


def begin(path: Path | str, recipe: Recipe, say: Say = print, strict: bool = False, cache: Path | None = None,
          runtime: Runtime = SINGLE, started: float | None = None) -> Trainer:  # fmt: skip
    """Read the data, decide what is left to decide, and write the recipe down. Nothing is written on an error.

    `strict` refuses data with unreadable files; `cache` is where decoded images are kept. The clock of `minutes` runs from
    `started`, a time of `time.perf_counter`, by default from now.
    """
    started = time.perf_counter() if started is None else started
    say, folder = say if runtime.is_first else _silent, RunFolder(Path(path))
    runtime.on_first(folder.refuse_existing)
    check_reopens(recipe)
    if recipe.data.labels and not recipe.network.takes_labels:
        recipe = replace(recipe, data=replace(recipe.data, labels=False))
        say("this network takes no labels: training without")
    images, fingerprint = load_images(recipe, cache, runtime)
    if strict and images.skipped:
        raise UserError(f"{len(images.skipped)} files can't be read, the first {images.skipped[0]}: mend or remove them, "
                        "or train without `strict`")  # fmt: skip
    parts = split(images, recipe.data.held_out)

    def choose() -> RunInfo:
        settled, bf16, compiled = settle(recipe, parts.train, runtime, say, started)
        return RunInfo(settled, images.shape, images.classes, fingerprint, runtime.device, bf16, compiled,
                       versions=VERSIONS, command=" ".join(sys.argv))  # fmt: skip

    info = replace(runtime.on_first(choose), device=runtime.device)
    trainer = Trainer(folder, info, parts, runtime, say, started)
    runtime.on_first(lambda: _create(folder, info, images))
    _describe(trainer, images)
    trainer.start()
    return trainer


def resume(path: Path | str, say: Say = print, cache: Path | None = None, runtime: Runtime = SINGLE, data: Any = None) -> Trainer:
    """Go on from the newest checkpoint, with as many processes as there are now.

    `data` gives images again that were given from Python. Raises UserError where the data is not what the run was trained on.
    """
    say, folder = say if runtime.is_first else _silent, RunFolder.open(path)
    info = folder.read_info()
    if not checkpoint.list_checkpoints(folder.checkpoints) and folder.model.exists():
        raise UserError(f"'{path}' holds weights but no checkpoint to go on from: begin a new run in another folder")
    recipe = info.recipe if data is None else replace(info.recipe, data=replace(info.recipe.data, source=source_of(data)))
    images, fingerprint = load_images(recipe, cache, runtime)
    if images.shape != info.shape or (info.fingerprint and fingerprint != info.fingerprint):
        per_process = images.per_process or "-" in info.fingerprint
        hint = "; data read per process also needs as many processes as before" if per_process else ""
        raise UserError(f"the data {recipe.data.source} is not what '{path}' was trained on: restore it, "
                        f"or begin a new run{hint}")  # fmt: skip
    info = replace(info, device=runtime.device)
    trainer = Trainer(folder, info, split(images, info.recipe.data.held_out), runtime, say)
    state = trainer.state
    saved = checkpoint.load_newest(folder.checkpoints, state.models, state.optimizers, say)
    if saved is not None:
        state.step, state.total, state.decay_from = saved["step"], saved["total"], saved["decay_from"]
    runtime.on_first(lambda: atomic.sweep(folder.path))
    say(f"going on from step {state.step}" + (f" of {state.total}" if state.total else ""))
    trainer.start()
    return trainer


def load_images(recipe: Recipe, cache: Path | None, runtime: Runtime) -> tuple[ImageDataset, str]:
    """The images that this process trains on, and the fingerprint of those of all. Class names are those of all processes."""
    images = recipe.data.load(cache, runtime.rank, runtime.world_size)
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


class Interrupt:
    """Inside it, the first Ctrl-C or SIGTERM only sets `signal`; a second one ends at once."""

    def __enter__(self) -> "Interrupt":
        self.signal = 0
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number: int, frame: object) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _silent(_: str) -> None:
    pass


def _create(folder: RunFolder, info: RunInfo, images: ImageDataset) -> None:
    """Write what a run folder holds before the first step."""
    with folder.creating():
        info.save(folder.recipe)
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
            + (", or until the held-out loss has stopped falling" if config.stop_when == "plateau" else ""))  # fmt: skip
    if config.drop_last and not config.drops_last(count):
        say(f"{count} images are fewer than a batch of {config.batch}: no batch is dropped, they span epochs")
