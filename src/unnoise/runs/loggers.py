"""Where a run writes down its losses and grids: JSON lines and TensorBoard."""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unnoise.run_folder import RunFolder
from unnoise.training.records import TrainingRecord
from unnoise.utils import atomic

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


NUMBERS = ("loss", "gradient_norm", "learning_rate", "images_per_second")  # of a step, that are shown as curves


class Logger(ABC):
    """Writes down what a run does."""

    @abstractmethod
    def log_step(self, record: TrainingRecord) -> None:
        """A step of training."""

    @abstractmethod
    def log_held_out(self, step: int, loss: float | None, levels: list[float], copy_rate: float | None = None) -> None:
        """The held-out loss after a step, that at each noise level, and the fraction of samples that are copies.

        None is what was not measured.
        """

    @abstractmethod
    def log_grid(self, step: int, pixels: np.ndarray) -> None:
        """Samples made after a step, uint8 (N, H, W, C)."""

    @abstractmethod
    def close(self) -> None:
        """Everything is on the disk afterwards; it may be used again."""


class JsonlLogger(Logger):
    """metrics.jsonl and held-out.jsonl of a run folder. Lines of steps beyond `step`, which will be done again, are removed."""

    def __init__(self, folder: RunFolder, step: int) -> None:
        self.folder = folder
        for path in (folder.metrics, folder.held_out):
            if path.is_file():
                text = "".join(json.dumps(r) + "\n" for r in atomic.read_records(path) if r["step"] <= step)
                atomic.write(path, lambda p, text=text: p.write_text(text))  # type: ignore[misc]

    def log_step(self, record: TrainingRecord) -> None:
        self._append(self.folder.metrics, record.numbers)

    def log_held_out(self, step: int, loss: float | None, levels: list[float], copy_rate: float | None = None) -> None:
        self._append(self.folder.held_out, {"step": step, "loss": loss, "levels": levels, "copy_rate": copy_rate})

    def log_grid(self, step: int, pixels: np.ndarray) -> None:
        """The run folder has the grid as a PNG."""

    def close(self) -> None:
        """Each line is written as it comes."""

    def _append(self, path: Path, line: dict[str, Any]) -> None:
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")


class TensorBoardLogger(Logger):
    """tensorboard/ of a run folder. TensorBoard is imported when there is something to write."""

    def __init__(self, folder: RunFolder, step: int) -> None:
        self.folder, self.step = folder, step
        self._writer: SummaryWriter | None = None

    @property
    def writer(self) -> "SummaryWriter":
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.folder.path / "tensorboard", purge_step=self.step + 1)
        return self._writer

    def log_step(self, record: TrainingRecord) -> None:
        for name in NUMBERS:
            self.writer.add_scalar(name, getattr(record, name), record.step)
        self.step = record.step

    def log_held_out(self, step: int, loss: float | None, levels: list[float], copy_rate: float | None = None) -> None:
        for name, value in (("held-out loss", loss), ("copy rate", copy_rate)):
            if value is not None:
                self.writer.add_scalar(name, value, step)
        for k, level in enumerate(levels):
            self.writer.add_scalar(f"held-out loss/level {k}", level, step)

    def log_grid(self, step: int, pixels: np.ndarray) -> None:
        self.writer.add_images("samples", pixels, step, dataformats="NHWC")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


LOGGERS: tuple[type[JsonlLogger] | type[TensorBoardLogger], ...] = (JsonlLogger, TensorBoardLogger)
