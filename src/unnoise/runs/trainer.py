"""`Trainer`: a run that is being trained; it logs, samples and saves while it goes.

for record in begin("runs/mine", recipe).train(): ...
"""

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch

from unnoise import figures
from unnoise.data.dataset import Split
from unnoise.data.pixels import to_uint8
from unnoise.diffusion.denoiser import NetworkDenoiser
from unnoise.evaluation.held_out import held_out_loss
from unnoise.model import Model
from unnoise.recipe import RunInfo
from unnoise.run_folder import RunFolder
from unnoise.runs.loggers import LOGGERS, Logger
from unnoise.training import checkpoint
from unnoise.training.distributed import full_state_dict
from unnoise.training.ema import snapshot_name
from unnoise.training.loop import TrainingRecord, train
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import Runtime

SAVE_ATTEMPTS = 3
GUIDE = 0.1  # fraction of the training after which the average for autoguidance is stored (Karras et al. 2024, guiding)
Say = Callable[[str], None]


class Trainer:
    """Trains a run and keeps its folder up to date. Made by `begin` or `resume` (`unnoise.runs.start`).

    Of several processes that train one model each has a Trainer, and all call the same methods; only the first one writes.
    """

    def __init__(self, folder: RunFolder, info: RunInfo, split: Split, runtime: Runtime, say: Say) -> None:
        self.folder, self.info, self.split, self.say = folder, info, split, say
        self.config, self.runtime = info.recipe.training, replace(runtime, bf16=info.bf16)
        self.sharded = self.config.sharded and runtime.world_size > 1
        self.state = info.recipe.build_state(info.shape, len(info.classes), info.device, self.sharded)
        self.loggers: list[Logger] = []
        self._micro_batches, self._guide_stored = self.config.micro_batches, False

    def start(self) -> None:
        """Called once the state is as it should be before the first step of this process."""
        made: list[Logger] = []
        self.runtime.on_first(lambda: made.extend(logger(self.folder, self.state.step) for logger in LOGGERS))
        self.loggers = made  # of the first process alone
        if self.info.compiled and isinstance(self.state.model, NetworkDenoiser):
            self.state.model.compile_network()

    @property
    def model(self) -> Model:
        """The averaged weights as they are now, for use."""
        return Model.of(self.state.average, self.info, self.folder)

    def train(self, stop: Callable[[], object] = lambda: False) -> Generator[TrainingRecord, None, None]:
        """Train, logging each step, sampling and saving now and then; saved whenever the loop ends or is left.

        `stop` is asked after each step; where it is true in one of several processes, all end after that step.
        """
        data = self.info.recipe.data
        records = train(self.state, self.split.train, self.config, self.runtime, data.flip, data.augment)
        try:
            with self.runtime.guard():
                yield from self._follow(records, stop)
                self.save()
        except (GeneratorExit, UserError):  # between two steps; the other processes may be anywhere and are asked nothing
            if self.runtime.is_first and not self.sharded:
                self._write(self._collect())
            raise
        finally:
            self._close_loggers()

    def save(self) -> None:
        """Write a checkpoint, and the averaged weights for use, trying several times.

        Raises UserError if the disk does not take it.
        """
        contents = self._collect() if self.sharded or self.runtime.is_first else None
        self.runtime.on_first(lambda: self._write(contents))  # type: ignore[arg-type]

    def measure(self) -> None:
        """Log the held-out loss of the averaged weights, by noise level."""
        held_out, config = self.split.held_out, self.config
        if not self.runtime.sum(torch.tensor(float(len(held_out)), device=self.runtime.device)):
            return
        levels = held_out_loss(self.state.average, held_out, config.loss, config.times, config.seed, self.runtime)
        for logger in self.loggers:
            logger.log_held_out(self.state.step, sum(levels) / len(levels), levels)

    def sample_grid(self) -> None:
        """Write the grid of samples from fixed noise at the present step; each process makes a part of it."""
        count, runtime, step = self.config.sample_count, self.runtime, self.state.step
        each = math.ceil(count / runtime.world_size)
        indices = [(runtime.rank * each + k) % count for k in range(each)]
        label = torch.tensor(indices, device=self.info.device) % len(self.info.classes) if self.info.classes else None
        x = to_uint8(self.model.sample_batch(indices, self.config.seed, label=label))
        pixels = np.concatenate(runtime.gather(x))[:count]
        if runtime.is_first:
            figures.save(figures.grid(pixels), self.folder.grid(step))
        for logger in self.loggers:
            logger.log_grid(step, pixels)

    def finish(self) -> None:
        """Write the figures of a run: the last grid, a trajectory, the loss curve."""
        recipe = self.info.recipe
        self.say(f"sampling {self.config.sample_count + 1} images in {recipe.sampling.steps} steps each")
        self._evaluate()
        self._close_loggers()
        if not self.runtime.is_first:
            return
        model = Model.load(self.folder.path) if self.sharded else self.model
        records = figures.select_steps(model.trajectory([0], self.config.seed))
        figures.reverse_strip(records, recipe.schedule, self.folder.path / "strip.png")
        if curve := self.folder.read_losses():
            figures.loss_curve(*curve, self.folder.path / "loss.png", self.folder.read_held_out_losses())

    def _follow(self, records: Iterable[TrainingRecord], stop: Callable[[], object]) -> Iterator[TrainingRecord]:
        """The same records, and what is due after each."""
        if self.state.step == 0:
            self.say(f"sampling {self.config.sample_count} images before the first step")
            self._evaluate()
        saved = time.perf_counter()
        sample_at = saved + self.config.sample_every
        for record in records:
            self._after_step(record)
            now = time.perf_counter()
            sample, save = self.runtime.broadcast(now > sample_at, now - saved > self.config.save_every)
            if sample:
                self._evaluate()
                took = time.perf_counter() - now
                sample_at = now + took + max(self.config.sample_every, 9 * took)
            if save:
                self.save()
                saved = time.perf_counter()
            yield record
            if self.runtime.any(stop()):
                return

    def _after_step(self, record: TrainingRecord) -> None:
        """Log a step, store averages that are due, and say what is unusual in it."""
        for logger in self.loggers:
            logger.log_step(record)
        if record.total:
            if self.runtime.is_first and record.total != self.info.total_steps:
                self.info = replace(self.info, total_steps=record.total)
                self.info.save(self.folder.recipe)
            self._store_averages(record.total)
        if record.micro_batches > self._micro_batches:
            self._micro_batches = record.micro_batches
            self.say(f"memory ran out: a batch of {self.config.batch} is now split into {record.micro_batches} micro-batches, "
                     "its gradient the same")  # fmt: skip
        if record.skipped:
            self.say(f"step {record.step} had no finite gradient (loss {record.loss:.3g}) and changed nothing")

    def _evaluate(self) -> None:
        self.measure()
        self.sample_grid()

    def _store_averages(self, total: int) -> None:
        """An early average for autoguidance, and snapshots from which other averages are made."""
        step, config = self.state.step, self.config
        if step >= GUIDE * total and not self._guide_stored:
            self._guide_stored = True
            tensors = full_state_dict(self.state.average)
            if self.runtime.is_first and not self.folder.guide.exists():
                checkpoint.save_tensors(self.folder.guide, tensors)
        if step * config.snapshots // total > (step - 1) * config.snapshots // total:
            for width, average in {config.ema: self.state.average, **self.state.extra_averages}.items():
                if not width:
                    continue  # the weights themselves are no average to make others from
                tensors = full_state_dict(average)
                if self.runtime.is_first:
                    checkpoint.save_tensors(self.folder.snapshots / snapshot_name(step, width), tensors)

    def _collect(self) -> checkpoint.Contents:
        return checkpoint.collect(self.state.models, self.state.optimizers)

    def _write(self, contents: checkpoint.Contents) -> None:
        state, config = self.state, self.config
        if not state.step:
            return
        for left in reversed(range(SAVE_ATTEMPTS)):
            try:
                numbers = {"step": state.step, "total": state.total}
                checkpoint.save(self.folder.checkpoints, contents, numbers, config.keep_last, config.keep_every)
                checkpoint.save_tensors(self.folder.model, contents.models["average"])
                return
            except OSError as e:
                if not left:
                    raise UserError(f"step {state.step} can't be saved ({e.strerror or e}); the checkpoints before it are whole: "
                                    f"make room, then 'unnoise train --resume {self.folder.path}'")  from e  # fmt: skip
                self.say(f"saving failed ({e.strerror or e}), trying again")
                time.sleep(1)

    def _close_loggers(self) -> None:
        for logger in self.loggers:
            logger.close()
