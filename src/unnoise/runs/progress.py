"""Training shown while it goes: a bar in a terminal or a notebook; elsewhere, such as in a file, a line now and then."""

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

from unnoise.run_folder import SHOWN_LOSSES
from unnoise.runs.cost import CostMeter
from unnoise.runs.interrupt import Interrupt
from unnoise.runs.report import report_training
from unnoise.runs.trainer import Trainer
from unnoise.training.records import ReadLater, TrainingRecord

LINE_EVERY = 30.0  # seconds
REFRESH_EVERY = 0.5  # of a notebook's bar
WIDTH = 30  # of a notebook's bar
STOPPING = "\nstopping after this step, or the preview that is being made; again stops at once\n"


def follow(trainer: Trainer, progress: bool = True) -> int:
    """Train to the end and write the figures, or until Ctrl-C or SIGTERM, which loses nothing; gives that signal, or 0.

    Where the number of steps is open, the first Ctrl-C lets the learning rate fall to 0 over some more steps, which ends the
    training; a second one stops at once.
    """
    try:
        return _follow(trainer, progress)
    finally:
        trainer.threads.reset()


def _follow(trainer: Trainer, progress: bool) -> int:
    meter, speed = CostMeter(trainer.runtime.device), 0.0
    main = threading.current_thread() is threading.main_thread()  # signals are handled nowhere else
    note = STOPPING if trainer.runtime.is_first else ""
    with Interrupt(note=note) if main else nullcontext() as interrupt, TrainingProgress(trainer, progress) as shown:

        def stop() -> bool:
            if interrupt is None or not interrupt.signal:
                return False
            # Under torchrun nobody would wait for it.
            if interrupt.signal != signal.SIGINT or not trainer.is_open or trainer.runtime.world_size > 1:
                return True
            interrupt.signal = 0
            shown.ends_in(trainer.end_soon())
            return False

        for record in trainer.train(stop):
            shown.update(record)
            meter.update()
            speed = record.images_per_second
        stopped = interrupt.signal if interrupt is not None else 0
    if shown.records:
        _write_cost(trainer, meter, trainer.state.step - shown.records)
    if trainer.runtime.any(stopped):
        trainer.say(f"stopped at step {trainer.state.step}; all is kept. Go on with: "
                    f"unnoise train --resume {trainer.folder.path}")  # fmt: skip
        return stopped or signal.SIGTERM
    if shown.records or not trainer.folder.strip.exists():
        trainer.finish()
        report_training(trainer, speed)
        facts = f", {shown.facts}" if shown.facts else ""
        trainer.say(f"trained {trainer.state.step} steps{facts}: {trainer.folder.path}")
    else:
        trainer.say(f"the training had ended: 'unnoise train --resume {trainer.folder.path} --minutes 10' goes on beyond its end")
    return 0


def _write_cost(trainer: Trainer, meter: CostMeter, first: int) -> None:
    """What the steps since `first` cost, of the first process; where it can't be written that is said, as of a log."""
    if not trainer.runtime.is_first:
        return
    try:
        meter.write(trainer.folder, first, trainer.state.step)
    except OSError as e:
        trainer.say(f"the cost can't be written ({e.strerror or e}): the run does without")


class TrainingProgress:
    """Shows records of training as they come; `facts` is the last that was said of loss and speed."""

    def __init__(self, trainer: Trainer, shown: bool = True) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (TextColumn("step {task.completed}"), BarColumn(), TextColumn("{task.fields[facts]}"),
                   TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
        console, shown = Console(), shown and trainer.runtime.is_first
        self.trainer, self.shown = trainer, shown
        self.records, self.skipped, self.facts = 0, 0, ""
        self._losses = deque[float](maxlen=SHOWN_LOSSES)
        self.notebook = NotebookLine() if shown and console.is_jupyter else None
        self.bar = shown and console.is_terminal and not console.is_dumb_terminal and not console.is_jupyter
        self._progress = Progress(*columns, console=console, disable=not self.bar)
        self._task = self._progress.add_task("train", total=trainer.state.total, completed=trainer.state.step, facts="")
        self._unread = ReadLater()
        self._start, self._said = time.perf_counter(), time.perf_counter()
        self._first = trainer.state.step

    def __enter__(self) -> "TrainingProgress":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._read(self._unread.rest())
        self._progress.stop()

    def update(self, r: TrainingRecord) -> None:
        """Show one more step."""
        self.records += 1
        self._read(self._unread.add(r))
        now = time.perf_counter()
        if self.bar:
            self._progress.update(self._task, completed=r.step, total=r.total, facts=self.facts)
        elif self.notebook is not None and (now - self._said > REFRESH_EVERY or r.step == r.total):
            self._said = now
            done = "#" * (WIDTH * r.step // r.total) if r.total else ""
            self.notebook.show(f"step {r.step} [{done:{WIDTH}}] {self.facts}{self._time_left(r, now)}")
        elif self.shown and self.notebook is None and now - self._said > LINE_EVERY:
            self._said = now
            self.trainer.say(f"step {r.step}{f' of {r.total}' if r.total else ''}: {self.facts}{self._time_left(r, now)}")

    def _read(self, records: list[TrainingRecord]) -> None:
        """Take in the numbers of steps."""
        for r in records:
            self.skipped += r.skipped
            if math.isfinite(r.loss):
                self._losses.append(r.loss)
            skipped = f", {self.skipped} step{'s' * (self.skipped > 1)} skipped" if self.skipped else ""
            loss = float(np.mean(self._losses)) if self._losses else math.nan
            self.facts = f"loss {loss:.4f}, {r.images_per_second:.0f} images/s{skipped}"

    def ends_in(self, steps: int) -> None:
        """Say that training ends after some more steps."""
        each = (time.perf_counter() - self._start) / max(1, self.trainer.state.step - self._first)
        self.trainer.say(f"ending: the learning rate falls to 0 over {steps} more steps, about {steps * each / 60:.1f} minutes; "
                         "Ctrl-C again stops at once, with the average of the weights as it is")  # fmt: skip

    def _time_left(self, r: TrainingRecord, now: float) -> str:
        if not r.total:
            return ""
        return f", {(r.total - r.step) * (now - self._start) / (r.step - self._first) / 60:.1f} minutes left"


class NotebookLine:
    """A line below a notebook's cell that changes in place."""

    def __init__(self) -> None:
        self._update: Callable[[Any], None] | None = None

    def show(self, text: str) -> None:
        from IPython.display import display

        data = {"text/plain": text}
        if self._update is None:
            handle = display(data, raw=True, display_id=True)
            self._update = lambda new: handle.update(new, raw=True)
        else:
            self._update(data)
