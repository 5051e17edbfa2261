"""A run folder: training that writes down what it does."""

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from unnoise import __version__, checkpoint, figures, files, runs
from unnoise.data.pictures import Pictures, Split, split
from unnoise.denoiser import NetworkDenoiser
from unnoise.ema import snapshot_name
from unnoise.errors import UserError
from unnoise.gaussian import Moments
from unnoise.model import Model
from unnoise.processes import ALONE, Processes
from unnoise.recipe import Recipe, RunInfo, load_run
from unnoise.training import TrainingRecord, held_out_loss, train
from unnoise.tuning import tuned

VERSIONS = f"unnoise {__version__}, torch {torch.__version__}"
TRIES = 3
GUIDE = 0.1  # share of the training after which an average is stored that guides the last one (Karras et al. 2024, guiding)
Say = Callable[[str], None]


class Run:
    """A run folder being trained. `for record in Run.begin(...).train(): ...`

    Of several processes that train one model each has a Run, and all call the same methods; only the first one writes.
    """

    def __init__(self, folder: Path, info: RunInfo, parts: Split, say: Say, processes: Processes) -> None:
        self.folder, self.info, self.say = folder, info, say
        self.split, self.processes = parts, processes
        self.sharded = info.recipe.training.sharded and processes.count > 1
        self.training = info.recipe.build_training(info.shape, len(info.classes), info.device, self.sharded)
        self._board: SummaryWriter | None = None
        self._parts, self._guided = info.recipe.training.parts, False

    @classmethod
    def begin(cls, folder: Path, recipe: Recipe, say: Say, strict: bool = False, cache: Path | None = None,
              processes: Processes = ALONE) -> "Run":  # fmt: skip
        """Look at the data, decide what is left to decide, and write the recipe down. Nothing is written on an error.

        `strict` refuses a set with unreadable files; `cache` is where decoded pictures are kept.
        """
        say = say if processes.first else _nothing
        processes.decide(lambda: refuse_existing(folder))
        plan = recipe.training
        if plan.epochs is plan.steps is plan.minutes is None:
            raise UserError("training needs a budget: give --steps or --minutes")
        if recipe.data.labels and not recipe.network.takes_labels:
            recipe = replace(recipe, data=replace(recipe.data, labels=False))
            say("this network takes no labels: training without")
        pictures, fingerprint = load_pictures(recipe, cache, processes)
        if strict and pictures.skipped:
            raise UserError(f"{len(pictures.skipped)} files can't be read, the first {pictures.skipped[0]}: mend or remove them, "
                            "or train without --strict")  # fmt: skip
        parts = split(pictures, recipe.data.held_out)
        info = RunInfo(recipe, pictures.shape, pictures.classes, fingerprint, processes.device,
                       versions=VERSIONS, command=" ".join(sys.argv))  # fmt: skip
        info = processes.decide(lambda: tuned(info, parts.train, say, processes.count))
        run = cls(folder, info, parts, say, processes)
        processes.decide(lambda: run._write_down(pictures))
        run._say_what_was_chosen(pictures)
        run._compile()
        return run

    def _write_down(self, pictures: Pictures) -> None:
        folder = self.folder
        with writing(folder):
            self.info.save(folder)
            if (moments := measure_moments(self.split.train, self.info.recipe.data.flip)) is not None:
                moments.save(folder / "moments.safetensors")
            if pictures.skipped:
                (folder / "skipped.txt").write_text("\n".join(pictures.skipped) + "\n", encoding="utf-8")

    def _say_what_was_chosen(self, pictures: Pictures) -> None:
        recipe, say, (c, h, w), count = self.info.recipe, self.say, self.info.shape, len(self.split.train)
        plan, own = recipe.training, " of each process's own" if pictures.divided else ""
        if pictures.skipped:
            say(f"{len(pictures.skipped)} files can't be read and are left out: {self.folder / 'skipped.txt'} names each; "
                f"the first: {pictures.skipped[0]}")  # fmt: skip
        for note in pictures.notes:
            say(f"files: {note}")
        say(f"{count} pictures{own} of {h}x{w}, {'grey' if c == 1 else 'colour'}, to train on, "
            f"{'mirrored half of the time' if recipe.data.flip else 'never mirrored'}; {len(self.split.held_out)} held out; "
            f"{sum(p.numel() for p in self.training.model.parameters()):,} parameters; batch {plan.batch}; "
            f"{f'{self.processes.count} processes, ' if self.processes.count > 1 else ''}{self.info.device}, "
            f"{torch.get_num_threads()} threads, {'bf16' if self.info.bf16 else 'fp32'}")  # fmt: skip
        if plan.drop_last and not plan.drops_last(count):
            say(f"{count} pictures are fewer than a batch of {plan.batch}: no batch is dropped, they span epochs")

    @classmethod
    def resume(cls, folder: Path, say: Say, cache: Path | None = None, processes: Processes = ALONE) -> "Run":
        """Go on from the newest checkpoint, with as many processes as there are now."""
        say = say if processes.first else _nothing
        info = load_run(folder)
        found = checkpoint.list_checkpoints(folder / "checkpoints")
        if not found and (folder / "model.safetensors").exists():
            raise UserError(f"'{folder}' holds weights but no checkpoint to go on from: begin a new run with another --run")
        pictures, fingerprint = load_pictures(info.recipe, cache, processes)
        if pictures.shape != info.shape or (info.fingerprint and fingerprint != info.fingerprint):
            parted = pictures.divided or "-" in info.fingerprint
            hint = "; divided data also needs as many processes as before" if parted else ""
            raise UserError(f"the data {info.recipe.data.source} is not what '{folder}' was trained on: restore it, "
                            f"or begin a new run{hint}")  # fmt: skip
        info = replace(info, device=processes.device)
        run = cls(folder, info, split(pictures, info.recipe.data.held_out), say, processes)
        t = run.training
        state = checkpoint.load_newest(folder / "checkpoints", t.models, t.optimizer, say)
        if state is not None:
            t.step, t.total = state["step"], state["total"]
        processes.decide(run._tidy)
        say(f"going on from step {run.training.step}" + (f" of {run.training.total}" if run.training.total else ""))
        run._compile()
        return run

    def _compile(self) -> None:
        if self.info.compiled and isinstance(self.training.model, NetworkDenoiser):
            self.training.model.compile_network()

    def _tidy(self) -> None:
        files.sweep(self.folder)
        self._cut_metrics()

    def _cut_metrics(self) -> None:
        """Forget the lines of steps that will be done again."""
        for name in ("metrics.jsonl", "held-out.jsonl"):
            path = self.folder / name
            kept = [r for r in files.read_records(path) if r["step"] <= self.training.step]
            text = "".join(json.dumps(r) + "\n" for r in kept)
            files.write(path, lambda p, text=text: p.write_text(text))  # type: ignore[misc]

    def save(self) -> None:
        """A checkpoint, and the averaged weights for use; tried `TRIES` times. Raises UserError if the disk won't take it."""
        if self.sharded:  # its pieces come from all processes
            self.processes.decide(partial(self._write, self._contents()))
        else:
            self.processes.decide(lambda: self._write(self._contents()))

    def _contents(self) -> checkpoint.Contents:
        return checkpoint.collect(self.training.models, self.training.optimizer)

    def _write(self, contents: checkpoint.Contents) -> None:
        t, plan = self.training, self.info.recipe.training
        state = {"step": t.step, "total": t.total}
        if not t.step:
            return
        for left in reversed(range(TRIES)):
            try:
                checkpoint.save(self.folder / "checkpoints", contents, state, plan.keep_last, plan.keep_every)
                checkpoint.save_tensors(self.folder / "model.safetensors", contents.models["average"])
                return
            except OSError as e:
                if not left:
                    raise UserError(f"step {t.step} can't be saved ({e.strerror or e}); checkpoints before it are whole: make "
                                    f"room, then 'unnoise train --resume {self.folder}'")  from e  # fmt: skip
                self.say(f"saving failed ({e.strerror or e}), trying again")
                time.sleep(1)

    def _store(self, total: int) -> None:
        """Averages for later: an early one, which guides the last when sampling, and those asked for."""
        t, plan, guide = self.training, self.info.recipe.training, self.folder / "guide.safetensors"
        if t.step >= GUIDE * total and not self._guided:
            self._guided = True
            tensors = checkpoint.state_of(t.average)
            if self.processes.first and not guide.exists():
                checkpoint.save_tensors(guide, tensors)
        if t.step * plan.snapshots // total > (t.step - 1) * plan.snapshots // total:
            for width, average in {plan.ema: t.average, **t.more}.items():
                if not width:
                    continue  # the weights themselves are no average to make others from
                tensors = checkpoint.state_of(average)
                if self.processes.first:
                    checkpoint.save_tensors(self.folder / "snapshots" / snapshot_name(t.step, width), tensors)

    def draw_grid(self) -> None:
        """The grid of samples from fixed noise, at the present step; each process draws a part of it."""
        count, classes, step = self.info.recipe.training.sample_count, len(self.info.classes), self.training.step
        each = math.ceil(count / self.processes.count)
        numbers = [(self.processes.rank * each + k) % count for k in range(each)]
        label = torch.tensor(numbers, device=self.info.device) % classes if classes else None
        x = figures.to_uint8(self.model.sample(numbers, self.info.recipe.training.seed, label=label))
        drawn = np.concatenate(self.processes.gather(x))[:count]
        if self.processes.first:
            figures.save(figures.grid(drawn), self.folder / "samples" / f"{step:06d}.png")
            if self._board is not None:
                self._board.add_images("samples", drawn, step, dataformats="NHWC")

    @property
    def model(self) -> Model:
        """The averaged weights as they are now, for use."""
        return Model(self.training.average, self.info, self.folder)

    def measure(self) -> None:
        """The held-out loss of the averaged weights, by noise level, as a line of `held-out.jsonl`."""
        held_out = self.split.held_out
        if not self.processes.sum(torch.tensor(float(len(held_out)), device=self.info.device)):
            return
        plan, info, step = self.info.recipe.training, self.info, self.training.step
        levels = held_out_loss(self.training.average, held_out, plan, info.device, info.bf16, processes=self.processes)
        line = {"step": step, "loss": sum(levels) / len(levels), "levels": levels}
        if self.processes.first:
            with (self.folder / "held-out.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            if self._board is not None:
                self._board.add_scalar("held-out loss", line["loss"], step)
                for k, level in enumerate(levels):
                    self._board.add_scalar(f"held-out loss/level {k}", level, step)

    def train(self, stop: Callable[[], object] = lambda: False) -> Generator[TrainingRecord, None, None]:
        """Train, logging each step, drawing and saving now and then; saved whenever the loop ends or is left.

        `stop` is asked after each step; where one of several processes says so, all end after that step.
        """
        recipe, team = self.info.recipe, self.processes
        records = train(self.training, self.split.train, recipe.training, self.info.device, self.info.bf16, recipe.data.flip,
                        recipe.data.augment, team)  # fmt: skip
        with ExitStack() as stack:
            log = None
            if team.first:
                log = stack.enter_context((self.folder / "metrics.jsonl").open("a", buffering=1))
                self._board = stack.enter_context(SummaryWriter(self.folder / "tensorboard", purge_step=self.training.step + 1))
            try:
                with team.together():
                    yield from self._follow(records, log, stop)
                    self.save()
            except (GeneratorExit, UserError):  # between two steps; the others may be anywhere, so nothing is asked of them
                if team.first and not self.sharded:
                    self._write(self._contents())
                raise

    def _follow(self, records: Iterable[TrainingRecord], log: TextIO | None,
                stop: Callable[[], object]) -> Iterator[TrainingRecord]:  # fmt: skip
        """The same records, and what is due after each."""
        plan, team = self.info.recipe.training, self.processes
        if self.training.step == 0:
            self.say(f"drawing {plan.sample_count} pictures before the first step")
            self._show()
        saved = time.perf_counter()
        draw_at = saved + plan.sample_every
        for record in records:
            self._note(record, log)
            now = time.perf_counter()
            draw, save = team.follow(now > draw_at, now - saved > plan.save_every)
            if draw:
                self._show()
                took = time.perf_counter() - now
                draw_at = now + took + max(plan.sample_every, 9 * took)
            if save:
                self.save()
                saved = time.perf_counter()
            yield record
            if team.any(stop()):
                return

    def _note(self, record: TrainingRecord, log: TextIO | None) -> None:
        """Write a step down and say what is unusual in it."""
        plan = self.info.recipe.training
        if log is not None:
            self._log(record, log)
        if record.total:
            self._store(record.total)
        if record.parts > self._parts:
            self._parts = record.parts
            self.say(f"memory ran out: a batch of {plan.batch} is now taken in {record.parts} parts, its gradient the same")
        if record.skipped:
            self.say(f"step {record.step} had no finite gradient (loss {record.loss:.3g}) and changed nothing")

    def _show(self) -> None:
        self.measure()
        self.draw_grid()

    def _log(self, record: TrainingRecord, log: TextIO) -> None:
        log.write(json.dumps(asdict(record)) + "\n")
        if self._board is not None:
            for name in ("loss", "gradient_norm", "learning_rate", "pictures_per_second"):
                self._board.add_scalar(name, getattr(record, name), record.step)
        if record.total and record.total != self.info.total_steps:
            self.info = replace(self.info, total_steps=record.total)
            self.info.save(self.folder)

    def finish(self) -> None:
        """The figures of a finished or stopped run: the last grid, a strip from noise, the loss curve."""
        plan, sampling = self.info.recipe.training, self.info.recipe.sampling
        self.say(f"drawing {plan.sample_count + 1} pictures in {sampling.steps} steps each")
        self._show()
        if not self.processes.first:
            return
        model = Model.open(self.folder) if self.sharded else self.model
        stages = figures.stages(model.trajectory([0], plan.seed))
        figures.reverse_strip(stages, self.info.recipe.schedule, self.folder / "strip.png")
        if steps_and_losses := runs.read_losses(self.folder):
            figures.loss_curve(*steps_and_losses, self.folder / "loss.png", runs.read_losses(self.folder, "held-out.jsonl"))


def _nothing(_: str) -> None:
    pass


def load_pictures(recipe: Recipe, cache: Path | None, processes: Processes) -> tuple[Pictures, str]:
    """The pictures that this process trains on, and the fingerprint of those of all. Divided ones share their classes' names."""
    pictures = recipe.data.load(cache, processes.rank, processes.count)
    prints = processes.gather(pictures.fingerprint())
    if pictures.divided:
        if pictures.labels is not None:
            names = tuple(sorted(set().union(*processes.gather(pictures.classes))))
            places = np.array([names.index(name) for name in pictures.classes])
            pictures = replace(pictures, labels=places[pictures.labels], classes=names)
        return pictures, "-".join(prints)
    if len(set(prints)) > 1:
        raise UserError(f"process {processes.rank} found other pictures than the first one: give all machines the same --data")
    return pictures, prints[0]


def measure_moments(pictures: Pictures, flip: bool = False, most: int = 2000, most_bytes: int = 2**29) -> Moments | None:
    """Mean and covariance of pictures on [-1, 1] (and their mirror images); None for fewer than two.

    Of large sets a part is measured that is chosen once for all, evenly: at most `most` pictures and `most_bytes` as float32.
    """
    if len(pictures) < 2:
        return None
    count = min(len(pictures), most, max(2, most_bytes // (4 * math.prod(pictures.shape))))
    chosen = np.linspace(0, len(pictures) - 1, count).round().astype(int)
    x = pictures.tensor(chosen)
    return Moments.measure(torch.cat([x, x.flip(3)]) if flip else x)


def refuse_existing(folder: Path) -> None:
    """Raises UserError if a run is there already."""
    if (folder / "recipe.json").exists():
        raise UserError(f"'{folder}' holds a run already: go on with 'unnoise train --resume {folder}' "
                        "or choose another --run")  # fmt: skip


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make the run folder; what can't be written there is the user's to mend."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as e:
        raise UserError(f"can't write to '{folder}' ({e.strerror}): choose another --run") from e


class Stop:
    """Inside it, the first Ctrl-C or SIGTERM only sets `asked`; a second one ends at once."""

    def __enter__(self) -> "Stop":
        self.asked = 0
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = number

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
