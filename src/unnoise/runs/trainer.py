"""`Trainer`: a run that is being trained; it logs, samples and saves while it goes.

for record in begin("runs/mine", recipe).train(): ...
"""

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from unnoise import figures
from unnoise.data.dataset import Split
from unnoise.data.pixels import to_uint8
from unnoise.diffusion.denoiser import Denoiser, NetworkDenoiser
from unnoise.diffusion.gaussian import Moments
from unnoise.evaluation.held_out import held_out_loss
from unnoise.evaluation.watch import CopyWatch
from unnoise.model import Model
from unnoise.recipe import RunInfo
from unnoise.run_folder import RunFolder
from unnoise.runs.attempts import Attempts
from unnoise.runs.best import Candidate, stopped_falling
from unnoise.runs.copies import Copies
from unnoise.runs.interrupt import uninterrupted
from unnoise.runs.lock import RunLock
from unnoise.runs.loggers import Logger
from unnoise.runs.settle import measure_moments
from unnoise.runs.snapshots import Snapshots
from unnoise.runs.student import MIN_HELD_OUT, choose_times, load_teacher, with_times
from unnoise.runs.trackers import make_loggers
from unnoise.training import checkpoint
from unnoise.training.distributed import full_state_dict
from unnoise.training.loop import train
from unnoise.training.matching import DistributionMatching
from unnoise.training.records import ReadLater, TrainingRecord
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import Runtime
from unnoise.utils.threads import Threads

SAVE_ATTEMPTS = 3
PREVIEWS = 0.04  # largest fraction of the time that grids and held-out losses may take
FIGURES = 2.0  # seconds that the last figures and files take, beside what is measured
SHORT_DECAY = 0.1  # of the steps done, over which the rate falls when an open training is asked to end
SLOWER = 0.75  # of the steps first expected, from which it is said that the machine has become slower
Say = Callable[[str], None]


class Trainer:
    """Trains a run and keeps its folder up to date. Made by `begin` or `resume` (`unnoise.runs`).

    Of several processes that train one model each has a Trainer, and all call the same methods; only the first one writes.
    """

    def __init__(self, folder: RunFolder, info: RunInfo, split: Split, runtime: Runtime, say: Say,
                 started: float | None = None, weights: checkpoint.Tensors | None = None) -> None:  # fmt: skip
        """`started` is when the clock of `minutes` began to run (`time.perf_counter`), by default when training begins;
        `weights` are some or all to begin with."""
        self.folder, self.info, self.split, self.say, self.started = folder, info, split, say, started
        self.config, self.runtime = info.recipe.training, replace(runtime, bf16=info.bf16)
        self.sharded = self.config.sharded and runtime.world_size > 1
        self.state = info.recipe.build_state(info.shape, len(info.classes), info.device, self.sharded, weights)
        self.lock, self.loggers = RunLock(folder.path), list[Logger]()
        self.threads = Threads(runtime.threads, self.config.is_timed, say)
        self.teacher: Denoiser | None = None
        self.moments: Moments | None = None  # of the training images, or of those of the first process
        self._micro_batches, self._expected = self.config.micro_batches, 0
        self._try, self._unlogged = Attempts(say), ReadLater()
        self.snapshots = Snapshots(self.state, self.config, folder, runtime, self._try)
        self._held_out: list[float] = []  # losses measured since the start of this process
        self.copies = Copies(CopyWatch(split.train, split.held_out, info.recipe.data.flip), say)
        self._samples_are_copies = False  # the same in all processes
        self._best: Candidate | None = None
        if self.config.stop_when == "plateau" and not self._count_held_out():
            raise UserError("no image is held out, whose loss could stop falling: add images, raise data.held_out, "
                            "or leave out training.stop_when")  # fmt: skip

    def start(self) -> None:
        """Called once the state is as it should be before the first step of this process."""
        flip = self.info.recipe.data.flip
        moments = self.runtime.on_first(lambda: _fields(measure_moments(self.split.train, flip)))
        self.moments = Moments(*moments) if moments else None
        best = self.runtime.on_first(lambda: Candidate.read(self.folder))
        self._best = Candidate(*best) if best else None
        self.teacher = load_teacher(self.folder, self.config.objective, self.info.device)
        if note := self.copies.watch.note:
            self.say(note)
        made: list[Logger] = []
        self.runtime.on_first(lambda: made.extend(make_loggers(self.folder, self.state.step, self.info)))
        self.loggers = made  # of the first process alone
        for model in self.state.trained.values():
            if self.info.compiled and isinstance(model, NetworkDenoiser):
                model.compile_network()

    @property
    def is_student(self) -> bool:
        return self.config.objective.from_teacher

    @property
    def model(self) -> Model:
        """The averaged weights as they are now, for use."""
        return Model.of(self.state.average, self.info, self.folder, self.moments)

    def train(self, stop: Callable[[], object] = lambda: False) -> Generator[TrainingRecord, None, None]:
        """Train, logging each step, sampling and saving now and then; saved whenever the loop ends or is left.

        `stop` is asked after each step; where it is true in one of several processes, all end after that step.
        """
        data = self.info.recipe.data
        try:
            with self.runtime.guard():
                self.runtime.on_first(self.lock.acquire)
                took = self._begin() if self.state.step == 0 or self.started is not None else 0.0
                records = train(self.state, self.split.train, self.config, self.runtime, data.flip, data.augment or 0.0,
                                self._deadline(took), self.teacher)  # fmt: skip
                yield from self._follow(uninterrupted(records), stop)
                self.save()
        except BaseException:  # also Ctrl-C, and whatever torch or a part of the user's own raises
            if self.runtime.is_first and not self.sharded and self.state.whole:  # the other processes are asked nothing
                self._write(self._collect())
            raise
        finally:
            self._close_loggers()
            self.lock.release()

    def save(self) -> None:
        """Write a checkpoint, and the averaged weights for use, trying several times.

        Raises UserError if the disk does not take it.
        """
        self._log(self._unlogged.rest())
        contents = self._collect() if self.sharded or self.runtime.is_first else None
        self.runtime.on_first(lambda: self._write(contents))  # type: ignore[arg-type]

    def measure(self) -> None:
        """Log the held-out loss of the averaged weights, by noise level, and the copy rate of the last samples; keep the best."""
        config, levels, loss = self.config, list[float](), None
        if self._count_held_out() and not self.is_student:  # of which a loss under noise says nothing
            levels = held_out_loss(self.state.average, self.split.held_out, config.loss, config.times, config.seed, self.runtime,
                                   config.held_out_count)  # fmt: skip
            loss = sum(levels) / len(levels)
            self._held_out.append(loss)
        rate = None if self.copies.found is None else self.copies.found.rate
        for logger in self.loggers if levels or rate is not None else []:
            self._try("the held-out loss", partial(logger.log_held_out, self.state.step, loss, levels, rate))
        if loss is not None and math.isfinite(loss) and self.state.step:
            self._keep_best(Candidate(self._samples_are_copies, loss, self.state.step))

    def sample_grid(self) -> None:
        """Write the grid of samples from fixed noise at the present step, and look for copies among them.

        Each process makes a part of it.
        """
        count, runtime, step = self.config.sample_count, self.runtime, self.state.step
        each = math.ceil(count / runtime.world_size)
        indices = [(runtime.rank * each + k) % count for k in range(each)]
        label = torch.tensor(indices, device=self.info.device) % len(self.info.classes) if self.info.classes else None
        x = to_uint8(self.model.sample_batch(indices, self.config.seed, label=label))
        pixels = np.concatenate(runtime.gather(x))[:count]
        if runtime.is_first:
            self._try("the grid", lambda: figures.save(figures.grid(pixels), self.folder.grid(step)))
        for logger in self.loggers:
            self._try("the grid", partial(logger.log_grid, step, pixels))
        if step:
            self._samples_are_copies = runtime.on_first(lambda: self.copies.look(pixels, step, self._best))

    def finish(self) -> None:
        """Write the figures of a run: the last grid, a trajectory, the loss curve."""
        if self.is_student and not isinstance(self.config.objective, DistributionMatching):
            self._choose_times()
        recipe = self.info.recipe
        self._evaluate()
        self._close_loggers()
        if not self.runtime.is_first:
            return
        model = Model.load(self.folder.path) if self.sharded else self.model
        records, held_out = figures.select_steps(model.trajectory([0], self.config.seed)), self.folder.read_held_out_losses()
        if self._best is not None and self._best.step < self.state.step:
            self.say(f"the best by held-out loss and copies was step {self._best.step}, kept in best.safetensors: "
                     f"'unnoise average {self.folder.path} --best --out OTHER' makes a run of it")  # fmt: skip
        self._try("the trajectory", lambda: figures.reverse_strip(records, recipe.schedule, self.folder.strip))
        if curve := self.folder.read_losses():
            self._try("the curve", lambda: figures.loss_curve(*curve, self.folder.path / "loss.png", held_out))

    @property
    def is_open(self) -> bool:
        """Whether it is open when the training ends."""
        return self.state.total is None and self.config.is_timed and self.config.minutes is None

    def end_soon(self) -> int:
        """Let the learning rate fall to 0 soon, where the end is open; gives how many steps that takes."""
        self.state.end_soon(SHORT_DECAY)
        assert self.state.total is not None
        self.snapshots.store_guide_afterwards(self.state.total)
        return self.state.total - self.state.step

    def _begin(self) -> float:
        """The grid and the loss before training; gives the seconds that they took."""
        begun = time.perf_counter()
        if self.is_student and not isinstance(self.config.objective, DistributionMatching):
            self._choose_times()
        self._evaluate()
        return time.perf_counter() - begun

    def _choose_times(self) -> None:
        """Find the noise levels between a student's calls and how many calls it makes; kept in the recipe."""
        images = self.split.held_out if len(self.split.held_out) >= MIN_HELD_OUT else self.split.train
        found = choose_times(self.model, images, self.config.held_out_count, self.config.seed)
        self.info = with_times(self.info, self.runtime.on_first(lambda: found))
        if self.runtime.is_first:
            self._try("the recipe", lambda: self.info.save(self.folder.recipe))

    def _deadline(self, evaluation: float) -> float | None:
        """When the last step must be done, so that the last evaluation is ready as the budget ends; None without a clock."""
        if self.started is None or self.config.minutes is None:
            return None
        return self.started + 60 * self.config.minutes - 1.2 * evaluation - FIGURES

    def _follow(self, records: Iterable[TrainingRecord], stop: Callable[[], object]) -> Iterator[TrainingRecord]:
        """The same records, and what is due after each."""
        saved = time.perf_counter()
        sample_at = saved + self.config.sample_every
        for record in records:
            self.threads.after_step()
            self._after_step(record)
            now = time.perf_counter()
            ending = record.total is not None and record.step > 0.95 * record.total
            sample, save = self.runtime.broadcast(now > sample_at and not ending, now - saved > self.config.save_every)
            if sample:
                self._evaluate()
                took = time.perf_counter() - now
                sample_at = now + took + max(self.config.sample_every, took / PREVIEWS)
                self._end_early()
            if save:
                self.save()
                saved = time.perf_counter()
            yield record
            if self.runtime.any(stop()):
                return

    def _end_early(self) -> None:
        """With `stop_when` plateau or `stop_when_copying`, end where the sign is seen."""
        if self.state.ending or self.state.has_fallen(self.config):
            return
        plateau = self.config.stop_when == "plateau" and stopped_falling(self._held_out)
        if plateau or (self.config.stop_when_copying and self._samples_are_copies):
            why = "the held-out loss has stopped falling" if plateau else "samples are copies of training images"
            self.say(f"{why}: the rate falls to 0 over {self.end_soon()} more steps")

    def _keep_best(self, found: Candidate) -> None:
        """Keep the averaged weights where they are better than those kept. All processes call it together."""
        if self._best is not None and self._best <= found:
            return
        self._best, tensors = found, full_state_dict(self.state.average)
        if self.runtime.is_first:
            self._try("the best weights", partial(checkpoint.save_tensors, self.folder.best, tensors, found.facts))

    def _after_step(self, record: TrainingRecord) -> None:
        """Log a step, store averages that are due, and say what is unusual in it."""
        self._log(self._unlogged.add(record))
        if record.total:
            if self.runtime.is_first and record.total != self.info.total_steps:
                self.info = replace(self.info, total_steps=record.total)
                self._try("the number of steps", lambda: self.info.save(self.folder.recipe))
            if record.total < SLOWER * self._expected and not self.state.ending:
                self.say(f"the machine has become slower: {record.total} steps fit in the time instead of {self._expected}")
            if record.total < SLOWER * self._expected or not self._expected:
                self._expected = record.total
        self.snapshots.store(record.total)
        if record.micro_batches > self._micro_batches:
            self._micro_batches = record.micro_batches
            self.say(f"memory ran out: a batch of {self.config.batch} is now split into {record.micro_batches} micro-batches, "
                     "its gradient the same")  # fmt: skip

    def _log(self, records: list[TrainingRecord]) -> None:
        """Write down steps whose numbers are there."""
        for record in records:
            for logger in self.loggers:
                self._try("a line of the log", partial(logger.log_step, record))
            if record.skipped:
                self.say(f"step {record.step} had no finite gradient (loss {record.loss:.3g}) and changed no weight")

    def _count_held_out(self) -> float:
        """Of all processes."""
        return float(self.runtime.sum(torch.tensor(float(len(self.split.held_out)), device=self.runtime.device)))

    def _evaluate(self) -> None:
        self.sample_grid()  # first: the copy rate stands beside the loss
        self.measure()

    def _collect(self) -> checkpoint.Contents:
        return checkpoint.collect(self.state.models, self.state.optimizers)

    def _write(self, contents: checkpoint.Contents) -> None:
        state, config = self.state, self.config
        if not state.step:
            return
        for left in reversed(range(SAVE_ATTEMPTS)):
            try:
                self.folder.recipe.stat()  # where the disk is gone, no other folder is made in its place
                numbers = {name: getattr(state, name) for name in ("step", "total", "decay_from", "rise_from")}
                checkpoint.save(self.folder.checkpoints, contents, numbers, config.keep_last, config.keep_every)
                self.folder.write_model(contents.models["average"], self.moments)
                return
            except OSError as e:
                if not left:
                    raise UserError(f"step {state.step} can't be saved ({e.strerror or e}); the checkpoints before it are whole: "
                                    f"make room, then 'unnoise train --resume {self.folder.path}'")  from e  # fmt: skip
                self.say(f"saving failed ({e.strerror or e}), trying again")
                time.sleep(1)

    def _close_loggers(self) -> None:
        self._log(self._unlogged.rest())
        for logger in self.loggers:
            self._try("the log", logger.close)


def _fields(moments: Moments | None) -> list[Tensor] | None:
    return None if moments is None else list(vars(moments).values())
