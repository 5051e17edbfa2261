"""A run's figures in a tracker of experiments, by `training.tracker`: Weights & Biases, trackio or MLflow, where installed.

Each is imported when there is something to write. Where they send it is theirs to be told (WANDB_MODE, MLFLOW_TRACKING_URI, ...).
"""

import hashlib
import importlib
import importlib.util
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from unnoise import figures
from unnoise.recipe import RunInfo, without_paths
from unnoise.registry import to_json
from unnoise.run_folder import RunFolder
from unnoise.runs.loggers import LOGGERS, NUMBERS, Logger
from unnoise.training.config import TRACKERS
from unnoise.training.records import TrainingRecord
from unnoise.utils.errors import UserError

PROJECT = "unnoise"  # under which runs are kept there


def check_tracker(name: str | None) -> None:
    """Raises UserError where the tracker's library is not installed."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise UserError(f"training.tracker {name} needs its library: pip install {name}, or leave it out")


def make_loggers(folder: RunFolder, step: int, info: RunInfo) -> list[Logger]:
    """All that write down a run from this step on."""
    made: list[Logger] = [logger(folder, step) for logger in LOGGERS]
    if (name := info.recipe.training.tracker) is not None:
        kinds: list[type[TrackerLogger]] = [WandbLogger, TrackioLogger, MlflowLogger]
        made.append(dict(zip(TRACKERS, kinds, strict=True))[name](folder, info))
    return made


class TrackerLogger(Logger):
    """Opens a run there with the first numbers, or goes on with the one of this folder."""

    module: str

    def __init__(self, folder: RunFolder, info: RunInfo) -> None:
        self.folder, self.info = folder, info
        self._library: Any = None

    @property
    def library(self) -> Any:
        """The library, with a run open in it."""
        if self._library is None:
            library = importlib.import_module(self.module)
            self.open(library, without_paths(to_json(self.info.recipe)))
            self._library = library
        return self._library

    @property
    def name(self) -> str:
        return self.folder.path.resolve().name

    @property
    def id(self) -> str:
        """The same whenever this folder is trained on."""
        key = f"{self.folder.path.resolve()} {self.info.fingerprint}"
        return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()

    @abstractmethod
    def open(self, library: Any, config: dict[str, Any]) -> None:
        """Begin a run, or go on with it."""

    @abstractmethod
    def end(self) -> None:
        """End it."""

    @abstractmethod
    def log(self, values: dict[str, float], step: int) -> None:
        """Numbers after a step."""

    @abstractmethod
    def log_image(self, image: Image.Image, step: int) -> None:
        """A grid of samples after a step."""

    def log_step(self, record: TrainingRecord) -> None:
        self._send(lambda: self.log({name: getattr(record, name) for name in NUMBERS}, record.step))

    def log_held_out(self, step: int, loss: float | None, levels: list[float], copy_rate: float | None = None) -> None:
        found = {"held-out loss": loss, "copy rate": copy_rate} | {f"held-out loss/level {k}": v for k, v in enumerate(levels)}
        self._send(lambda: self.log({name: value for name, value in found.items() if value is not None}, step))

    def log_grid(self, step: int, pixels: np.ndarray) -> None:
        self._send(lambda: self.log_image(figures.grid(pixels), step))

    def close(self) -> None:
        if self._library is not None:
            self._send(self.end)
            self._library = None

    def _send(self, call: Callable[[], object]) -> None:
        """Raises UserError for whatever the library raises: training goes on without it."""
        try:
            call()
        except Exception as e:
            said = (str(e).strip().splitlines() or [type(e).__name__])[0]
            raise UserError(f"{self.module}: {said}") from e


class WandbLogger(TrackerLogger):
    """Weights & Biases."""

    module = "wandb"

    def open(self, library: Any, config: dict[str, Any]) -> None:
        library.init(project=PROJECT, name=self.name, id=self.id, resume="allow", config=config, dir=str(self.folder.path))

    def log(self, values: dict[str, float], step: int) -> None:
        self.library.log(values, step=step)

    def log_image(self, image: Image.Image, step: int) -> None:
        self.library.log({"samples": self.library.Image(image)}, step=step)

    def end(self) -> None:
        self.library.finish()


class TrackioLogger(WandbLogger):
    """trackio, whose interface is that of Weights & Biases but for a run's id, which is its name."""

    module = "trackio"

    def open(self, library: Any, config: dict[str, Any]) -> None:
        library.init(project=PROJECT, name=f"{self.name}-{self.id}", resume="allow", config=config)


class MlflowLogger(TrackerLogger):
    """MLflow; a run is found again by a tag."""

    module = "mlflow"

    def open(self, library: Any, config: dict[str, Any]) -> None:
        library.set_experiment(PROJECT)
        found = library.search_runs(filter_string=f"tags.unnoise_id = '{self.id}'", output_format="list")
        if found:
            library.start_run(run_id=found[0].info.run_id)
            return
        library.start_run(run_name=self.name, tags={"unnoise_id": self.id})
        library.log_dict(config, "recipe.json")

    def log(self, values: dict[str, float], step: int) -> None:
        self.library.log_metrics(values, step=step, synchronous=False)

    def log_image(self, image: Image.Image, step: int) -> None:
        self.library.log_image(image, f"samples/{step:06d}.png")

    def end(self) -> None:
        self.library.end_run()
