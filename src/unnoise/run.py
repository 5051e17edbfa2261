"""A run folder: training that writes down what it does."""

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unnoise import __version__, checkpoint, figures, files
from unnoise.data.pictures import Pictures, Split, split
from unnoise.errors import UserError
from unnoise.gaussian import Moments
from unnoise.model import Model, choose_device
from unnoise.precision import bf16_pays
from unnoise.recipe import Recipe, RunInfo, load_run
from unnoise.training import TrainingRecord, held_out_loss, train

VERSIONS = f"unnoise {__version__}, torch {torch.__version__}"
TRIES = 3
Say = Callable[[str], None]


class Run:
    """A run folder being trained. `for record in Run.begin(...).train(): ...`"""

    def __init__(self, folder: Path, info: RunInfo, parts: Split, say: Say) -> None:
        self.folder, self.info, self.say = folder, info, say
        self.split = parts
        self.training = info.recipe.build_training(info.shape, len(info.classes), info.device)

    @classmethod
    def begin(cls, folder: Path, recipe: Recipe, say: Say, strict: bool = False, cache: Path | None = None) -> "Run":
        """Look at the data, decide what is left to decide, and write the recipe down. Nothing is written on an error.

        `strict` refuses a set with unreadable files; `cache` is where decoded pictures are kept.
        """
        refuse_existing(folder)
        plan = recipe.training
        if plan.epochs is plan.steps is plan.minutes is None:
            raise UserError("training needs a budget: give --steps or --minutes")
        if recipe.data.labels and not recipe.network.takes_labels:
            recipe = replace(recipe, data=replace(recipe.data, labels=False))
            say("this network takes no labels: training without")
        pictures = recipe.data.load(cache)
        if strict and pictures.skipped:
            raise UserError(f"{len(pictures.skipped)} files can't be read, the first {pictures.skipped[0]}: mend or remove them, "
                            "or train without --strict")  # fmt: skip
        device = choose_device()
        bf16, gain = (plan.precision == "bf16", None) if plan.precision != "auto" else bf16_pays(device)
        info = RunInfo(recipe, pictures.shape, pictures.classes, pictures.fingerprint(), device, bf16,
                       versions=VERSIONS, command=" ".join(sys.argv))  # fmt: skip
        parts = split(pictures, recipe.data.held_out)
        run = cls(folder, info, parts, say)
        with writing(folder):
            info.save(folder)
            if (moments := measure_moments(parts.train, recipe.data.flip)) is not None:
                moments.save(folder / "moments.safetensors")
            if pictures.skipped:
                (folder / "skipped.txt").write_text("\n".join(pictures.skipped) + "\n", encoding="utf-8")
        run._say_what_was_chosen(pictures, gain)
        return run

    def _say_what_was_chosen(self, pictures: Pictures, gain: float | None) -> None:
        recipe, say, (c, h, w) = self.info.recipe, self.say, self.info.shape
        count, batch = len(self.split.train), recipe.training.batch
        if pictures.skipped:
            say(f"{len(pictures.skipped)} files can't be read and are left out: {self.folder / 'skipped.txt'} names each; "
                f"the first: {pictures.skipped[0]}")  # fmt: skip
        for note in pictures.notes:
            say(f"files: {note}")
        measured = f" (bf16 measured {gain:.1f} times as fast as fp32)" if gain else ""
        say(f"{count} pictures of {h}x{w}, {'grey' if c == 1 else 'colour'}, to train on, "
            f"{'mirrored half of the time' if recipe.data.flip else 'never mirrored'}; {len(self.split.held_out)} held out; "
            f"{sum(p.numel() for p in self.training.model.parameters()):,} parameters; "
            f"{self.info.device}, {torch.get_num_threads()} threads, "
            f"{'bf16' if self.info.bf16 else 'fp32'}{measured}")  # fmt: skip
        if recipe.training.drop_last and not recipe.training.drops_last(count):
            say(f"{count} pictures are fewer than a batch of {batch}: no batch is dropped, they span epochs")

    @classmethod
    def resume(cls, folder: Path, say: Say, cache: Path | None = None) -> "Run":
        """Go on from the newest checkpoint."""
        info = load_run(folder)
        found = checkpoint.list_checkpoints(folder / "checkpoints")
        if not found and (folder / "model.safetensors").exists():
            raise UserError(f"'{folder}' holds weights but no checkpoint to go on from: begin a new run with another --run")
        pictures = info.recipe.data.load(cache)
        if pictures.shape != info.shape or (info.fingerprint and pictures.fingerprint() != info.fingerprint):
            raise UserError(f"the data {info.recipe.data.source} is not what '{folder}' was trained on: restore it, "
                            "or begin a new run")  # fmt: skip
        run = cls(folder, info, split(pictures, info.recipe.data.held_out), say)
        files.sweep(folder)
        t = run.training
        state = checkpoint.load_newest(folder / "checkpoints", t.model, t.average, t.optimizer, say)
        if state is not None:
            t.step, t.total = state["step"], state["total"]
        run._cut_metrics()
        say(f"going on from step {run.training.step}" + (f" of {run.training.total}" if run.training.total else ""))
        return run

    def _cut_metrics(self) -> None:
        """Forget the lines of steps that will be done again."""
        for name in ("metrics.jsonl", "held-out.jsonl"):
            path = self.folder / name
            kept = [r for r in read_metrics(path) if r["step"] <= self.training.step]
            text = "".join(json.dumps(r) + "\n" for r in kept)
            files.write(path, lambda p, text=text: p.write_text(text))  # type: ignore[misc]

    def save(self) -> None:
        """A checkpoint, and the averaged weights for use; tried `TRIES` times. Raises UserError if the disk won't take it."""
        t, plan = self.training, self.info.recipe.training
        if t.step == 0:
            return
        state = {"step": t.step, "total": t.total}
        for left in reversed(range(TRIES)):
            try:
                checkpoint.save(self.folder / "checkpoints", t.model, t.average, t.optimizer, state,
                                plan.keep_last, plan.keep_every)  # fmt: skip
                checkpoint.save_model(self.folder / "model.safetensors", t.average)
                return
            except OSError as e:
                if not left:
                    raise UserError(f"step {t.step} can't be saved ({e.strerror or e}); checkpoints before it are whole: make "
                                    f"room, then 'unnoise train --resume {self.folder}'")  from e  # fmt: skip
                self.say(f"saving failed ({e.strerror or e}), trying again")
                time.sleep(1)

    def draw_grid(self) -> None:
        """The grid of samples from fixed noise, at the present step."""
        count, classes = self.info.recipe.training.sample_count, len(self.info.classes)
        label = torch.arange(count, device=self.info.device) % classes if classes else None
        x = self.model.sample(range(count), self.info.recipe.training.seed, label=label)
        figures.save(figures.grid(figures.to_uint8(x)), self.folder / "samples" / f"{self.training.step:06d}.png")

    @property
    def model(self) -> Model:
        """The averaged weights as they are now, for use."""
        return Model(self.training.average, self.info, self.folder)

    def measure(self) -> None:
        """The held-out loss of the averaged weights, by noise level, as a line of `held-out.jsonl`."""
        if not len(self.split.held_out):
            return
        plan, info = self.info.recipe.training, self.info
        levels = held_out_loss(self.training.average, self.split.held_out, plan, info.device, info.bf16)
        line = {"step": self.training.step, "loss": sum(levels) / len(levels), "levels": levels}
        with (self.folder / "held-out.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    def train(self) -> Generator[TrainingRecord, None, None]:
        """Train, logging each step, drawing and saving now and then; saved whenever the loop ends or is left."""
        plan, recipe = self.info.recipe.training, self.info.recipe
        saved = time.perf_counter()
        draw_at, parts = saved + plan.sample_every, 1
        records = train(self.training, self.split.train, plan, self.info.device, self.info.bf16, recipe.data.flip,
                        recipe.data.augment)  # fmt: skip
        try:
            with (self.folder / "metrics.jsonl").open("a", buffering=1) as log:
                for record in records:
                    log.write(json.dumps(asdict(record)) + "\n")
                    if record.total and record.total != self.info.total_steps:
                        self.info = replace(self.info, total_steps=record.total)
                        self.info.save(self.folder)
                    if record.parts > parts:
                        parts = record.parts
                        self.say(f"memory ran out: a batch of {plan.batch} is now taken in {parts} parts, its gradient the same")
                    if record.skipped:
                        self.say(f"step {record.step} had no finite gradient (loss {record.loss:.3g}) and changed nothing")
                    now = time.perf_counter()
                    if now > draw_at:
                        self.measure()
                        self.draw_grid()
                        took = time.perf_counter() - now
                        draw_at = now + took + max(plan.sample_every, 9 * took)
                    if now - saved > plan.save_every:
                        self.save()
                        saved = time.perf_counter()
                    yield record
        finally:
            self.save()

    def finish(self) -> None:
        """The figures of a finished or stopped run: the last grid, a strip from noise, the loss curve."""
        plan, sampling = self.info.recipe.training, self.info.recipe.sampling
        self.say(f"drawing {plan.sample_count + 1} pictures in {sampling.steps} steps each")
        self.measure()
        self.draw_grid()
        stages = figures.stages(self.model.trajectory([0], self.info.recipe.training.seed))
        figures.reverse_strip(stages, self.info.recipe.schedule, self.folder / "strip.png")
        if steps_and_losses := read_losses(self.folder):
            figures.loss_curve(*steps_and_losses, self.folder / "loss.png", read_losses(self.folder, "held-out.jsonl"))


@dataclass(frozen=True)
class RunState:
    """One run as `unnoise runs` shows it; `best` is the lowest held-out loss, None before the first."""

    folder: Path
    state: str
    step: int
    total: int | None
    loss: float | None
    best: float | None


def list_runs(root: Path) -> list[RunState]:
    """The runs in a folder, the last changed first."""
    found = []
    for path in sorted(root.glob("*/recipe.json"), key=lambda p: -p.stat().st_mtime):
        info, folder = load_run(path.parent), path.parent
        records, held_out = read_metrics(folder / "metrics.jsonl"), read_losses(folder, "held-out.jsonl")
        step = records[-1]["step"] if records else 0
        state = "done" if step and step == info.total_steps else "unfinished" if records else "no steps"
        loss = float(np.mean([r["loss"] for r in records[-50:]])) if records else None
        found.append(RunState(folder, state, step, info.total_steps, loss, min(held_out[1]) if held_out else None))
    return found


def read_losses(folder: Path, name: str = "metrics.jsonl") -> tuple[list[int], list[float]] | None:
    """The steps of a run and their losses, from its metrics; None if there are none."""
    records = read_metrics(folder / name)
    return ([r["step"] for r in records], [r["loss"] for r in records]) if records else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; a last line that a crash cut short is left out."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


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
