"""Resuming a run: to the end that was planned, or to another."""

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from unnoise.data.dataset import ImageDataset, Source, Split, split
from unnoise.data.decoders import explain_change
from unnoise.data.hub import Hub
from unnoise.recipe import RunInfo
from unnoise.registry import source_of
from unnoise.run_folder import RunFolder
from unnoise.runs.places import candidates, is_there, move, relation, shown
from unnoise.runs.settle import fit_previews, with_whole_previews
from unnoise.runs.start import Say, load_images, silent
from unnoise.runs.trackers import check_tracker
from unnoise.runs.trainer import Trainer
from unnoise.training import checkpoint
from unnoise.utils import atomic
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import SINGLE, Runtime


def resume(path: Path | str, say: Say = print, cache: Path | None = None, runtime: Runtime = SINGLE, data: Any = None,
           steps: int | None = None, minutes: float | None = None, started: float | None = None) -> Trainer:  # fmt: skip
    """Go on from the newest checkpoint, with as many processes as there are now.

    `steps`, a number in all, or `minutes` from `started` on (`time.perf_counter`, by default now) give the training another end.
    Where the learning rate had begun to fall it rises anew, and falls over the last part of the steps to come; else all is as
    if the new end had been planned from the beginning. The averages go on over all steps either way.

    `data` says where the images are now, or gives again those that were given from Python. Raises UserError where they are not
    what the run was trained on, and where nothing is left to do for `steps`.
    """
    say, folder = say if runtime.is_first else silent, RunFolder.open(path)
    info = folder.read_info()
    check_tracker(info.recipe.training.tracker)
    if not checkpoint.list_checkpoints(folder.checkpoints) and folder.model.exists():
        raise UserError(f"'{path}' holds weights but no checkpoint to go on from: begin a new run with them, "
                        f"'unnoise train IMAGES --from-run {path}'")  # fmt: skip
    images, info = find_images(folder, info, data, say, cache, runtime)
    extended = steps is not None or minutes is not None
    if extended:
        info = _with_end(folder, info, steps, minutes, say)
        started = time.perf_counter() if started is None else started
    info = replace(info, device=runtime.device)
    trainer = Trainer(folder, info, split(images, info.recipe.data.held_out), runtime, say, started if extended else None)
    runtime.on_first(trainer.lock.acquire)
    with ExitStack() as failing:
        failing.callback(trainer.lock.release)
        _load(trainer)
        if extended:
            _extend(trainer)
        if extended or data is not None:
            runtime.on_first(lambda: trainer.info.save(folder.recipe))
        runtime.on_first(folder.sweep)
        total = trainer.state.total or steps
        say(f"going on from step {trainer.state.step}" + (f" of {total}" if total else ""))
        trainer.start()
        failing.pop_all()
    return trainer


def _with_end(folder: RunFolder, info: RunInfo, steps: int | None, minutes: float | None, say: Say) -> RunInfo:
    """With another end of the training, and previews that suit it."""
    config = with_whole_previews(replace(info.recipe.training, steps=steps, minutes=minutes, epochs=None))
    records = atomic.read_records(folder.metrics)
    if minutes is not None and records:
        config = fit_previews(config, info.recipe.sampling.calls, records[-1]["images_per_second"], 60 * minutes, say)
    return replace(info, recipe=replace(info.recipe, training=config))


def _load(trainer: Trainer) -> None:
    """The newest checkpoint; of an end that was given after it was written only recipe.json knows."""
    state, info = trainer.state, trainer.info
    saved = checkpoint.load_newest(trainer.folder.checkpoints, state.models, state.optimizers, trainer.say)
    if saved is None:
        if info.from_run and not trainer.is_student:
            raise UserError(
                f"'{trainer.folder.path}' ended before its first checkpoint, and has not the weights of '{info.from_run}' that "
                "it began with: begin another, 'unnoise train IMAGES --from-run RUN'"
            )
        for model in state.models.values() if trainer.is_student else ():
            checkpoint.load_model(trainer.folder.teacher.model, model)
        return
    state.step, state.total, state.decay_from = saved["step"], saved["total"], saved["decay_from"]
    state.rise_from = saved.get("rise_from", 0)
    if info.extended_at and state.step <= info.extended_at:
        state.total, state.decay_from, state.rise_from = None, None, min(info.rise_from, state.step)
    elif trainer.config.minutes is not None:
        state.total = info.total_steps or state.total  # a budget's number of steps changes between checkpoints


def _extend(trainer: Trainer) -> None:
    """Give the training another end, as the configuration says. Raises UserError where it lies behind."""
    state, config = trainer.state, trainer.config
    if config.steps is not None and config.steps <= state.step:
        raise UserError(f"'{trainer.folder.path}' has done {state.step} steps already: `steps` is the number in all, give a "
                        "larger one, or `minutes` to go on for")  # fmt: skip
    if state.open_end(config):
        trainer.say("the learning rate had begun to fall: it rises again, and falls at the new end")
    trainer.info = replace(trainer.info, extended_at=state.step, rise_from=state.rise_from, total_steps=None)


def find_images(folder: RunFolder, info: RunInfo, data: Any, say: Say, cache: Path | None,
                runtime: Runtime) -> tuple[ImageDataset, RunInfo]:  # fmt: skip
    """The images that the run was trained on, and its information with where they are now, if that was given."""
    stored = info.recipe.data.source
    sources = candidates(stored, folder.path, info.data_path) if data is None else [_given(stored, data)]
    if data is None and not is_there(sources[0]):
        raise UserError(f"the images of '{folder.path}' are not where they were, in {shown(sources[0])}: say where they are with "
                        "`data`")  # fmt: skip
    for source in sources:
        recipe = replace(info.recipe, data=replace(info.recipe.data, source=source))
        images, fingerprint = load_images(recipe, cache, runtime, whole=True)
        if images.shape == info.shape and (not info.fingerprint or fingerprint == info.fingerprint):
            if data is not None:
                return images, replace(info, recipe=recipe, data_path=relation(source, folder.path))
            if source is not sources[0] or source != stored:
                say(f"images found in {shown(source)}")
            return images, info
    why = explain_change(source, images, recipe.data.fit, info.fingerprint)
    per_process = images.per_process or "-" in info.fingerprint
    hint = "; data read per process also needs as many processes as before" if per_process else ""
    where = f"the data {shown(source)} is not what '{folder.path}' was trained on"
    raise UserError(f"{where}: {why or 'say where that is with `data`'}, or begin a new run, "
                    f"'unnoise train IMAGES --from-run {folder.path}'{hint}")  # fmt: skip


def find_local_images(folder: RunFolder, info: RunInfo, cache: Path | None = None) -> Split:
    """The images that the run was trained on and those held out, where they can be had without the network. Raises UserError."""
    recipe = info.recipe
    if isinstance(recipe.data.source, Hub):
        raise UserError(f"the images of '{folder.path}' are on the hub, and nothing is fetched here")
    if getattr(recipe.data.source, "download", False):
        source = replace(recipe.data.source, download=False)  # type: ignore[type-var]
        info = replace(info, recipe=replace(recipe, data=replace(recipe.data, source=source)))
    return split(find_images(folder, info, None, silent, cache, SINGLE)[0], recipe.data.held_out)


def _given(stored: Source, data: Any) -> Source:
    """The source of images that are given again, or that lie at another place."""
    moved = move(stored, data) if isinstance(data, str | Path) else None
    return moved if moved is not None else source_of(data)
