"""Whether samples become copies while a model trains, at a cost that is bounded.

Images are compared by the means of their blocks, 16x16 at most, by which a copy is as near to its original as in full; so a look
at 36 samples takes milliseconds for thousands of training images.
"""

import time

import numpy as np

from unnoise.data.dataset import ImageDataset
from unnoise.data.stats import thumbnails
from unnoise.evaluation.copying import Nearest, Space, find_nearest

BUDGET = 0.02  # largest fraction of the time that it may take
MAX_BYTES = 2**27  # of thumbnails; of more images only a part is compared with
MAX_HELD_OUT = 256
CHUNK = 1000  # images compared with at once
BYTES_PER_SECOND = 5e7  # of images that become thumbnails, before that is measured


class CopyWatch:
    """Compares samples with the training images, and with what held-out images would count as.

    `flip`: mirror images of training images count. `note` says if not all of the images are compared with, else it is empty.
    """

    def __init__(self, images: ImageDataset, held_out: ImageDataset, flip: bool = False, budget: float = BUDGET) -> None:
        self.images, self.held_out, self.flip, self.budget = images, held_out, flip, budget
        c, h, w = images.shape
        self._count = min(len(images), MAX_BYTES // (c * min(h, 16) * min(w, 16)))
        self._begun, self._spent = time.perf_counter(), 0.0
        self._expected = self._count * c * h * w / BYTES_PER_SECOND  # seconds of the next look
        self._training: list[np.ndarray] = []
        self._real: Nearest | None = None  # of held-out images, where there are any

    @property
    def note(self) -> str:
        few = self._count < len(self.images)
        return f"copies are looked for among {self._count} of {len(self.images)} training images" if few else ""

    def look(self, samples: np.ndarray) -> Space | None:
        """What samples, uint8 (N, H, W, C), are now; None where a look would take more of the time than the budget."""
        begun = time.perf_counter()
        if self._count < 2 or self._spent + self._expected > self.budget * (begun - self._begun):
            return None
        if not self._training:
            self._prepare()
        prepared = time.perf_counter()
        found = self._nearest(samples)
        self._spent, self._expected = self._spent + time.perf_counter() - begun, time.perf_counter() - prepared
        # Without held-out images copies are held against none among as many.
        return Space.of(found, self._real) if self._real else Space(found.rate, 0.0, np.nan, len(samples), len(samples))

    def _prepare(self) -> None:
        index = np.linspace(0, len(self.images) - 1, self._count).round().astype(int)
        parts = (self.images.read(index[k : k + CHUNK]) for k in range(0, self._count, CHUNK))
        self._training = [_small(part) for part in parts]
        if len(self.held_out):
            chosen = np.linspace(0, len(self.held_out) - 1, min(MAX_HELD_OUT, len(self.held_out))).round().astype(int)
            self._real = self._nearest(self.held_out.read(chosen))

    def _nearest(self, pixels: np.ndarray) -> Nearest:
        x = _small(pixels)
        return find_nearest([x, x[:, :, ::-1]] if self.flip else [x], self._training)


def _small(pixels: np.ndarray) -> np.ndarray:
    """Rounded, so that equal images have distance 0."""
    return thumbnails(pixels).round().astype(np.uint8)
