"""Models of runs and the images that they were trained on, loaded when they are first asked for, the last few kept."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from unnoise.data.dataset import Split
from unnoise.model import Model
from unnoise.runs.resume import find_local_images
from unnoise.studio.errors import Refusal
from unnoise.studio.watch import Runs
from unnoise.utils.errors import UserError

T = TypeVar("T")
MODELS, SETS = 3, 2  # that are kept


class Models:
    """What is asked of runs by their names."""

    def __init__(self, runs: Runs) -> None:
        self._runs, self._models, self._images = runs, Kept(MODELS), Kept(SETS)

    def load(self, name: str) -> Model:
        """The model as it is now; one that is being trained changes. Raises UserError."""
        folder = self._runs.open(name)
        return self._models.get((name, _changed(folder.model)), lambda: Model.load(folder.path))

    def images(self, name: str) -> "RunImages":
        """What it was trained on. Raises Refusal where that is not on this machine any more, or changed."""
        folder = self._runs.open(name)

        def find() -> RunImages:
            try:
                return RunImages(find_local_images(folder, folder.read_info()))
            except UserError as e:
                what = str(e).partition(": ")[0]
                raise Refusal(404, f"{what}: put them back there, or take an image of your own") from e

        return self._images.get((name, _changed(folder.recipe)), find)


@dataclass(frozen=True)
class RunImages:
    """The images of a run, by numbers: those held out first."""

    split: Split

    def __len__(self) -> int:
        return len(self.split.held_out) + len(self.split.train)

    def read(self, index: int) -> tuple[np.ndarray, str | None]:
        """Image `index`, modulo their number, uint8 (H, W, C), and its class."""
        index, images = index % len(self), self.split.held_out
        if index >= len(images):
            index, images = index - len(images), self.split.train
        label = None if images.labels is None else images.classes[images.labels[index]]
        return images.read(np.array([index]))[0], label


class Kept:
    """The last few of what takes long to load; each is loaded once, whoever asks."""

    def __init__(self, most: int) -> None:
        self._most, self._kept, self._lock = most, OrderedDict[Hashable, Any](), threading.Lock()

    def get(self, key: Hashable, load: Callable[[], T]) -> T:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = load()
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
            found: T = self._kept[key]
            return found


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0
