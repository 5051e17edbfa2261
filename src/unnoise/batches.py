"""What each step of training sees: pictures, times, noise, labels. All of it is a function of (seed, step)."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unnoise import draws
from unnoise.data.augment import NUMBERS, augment
from unnoise.data.pictures import Pictures
from unnoise.noise import Schedule, spread_uniform
from unnoise.plan import TrainingPlan


class Batch(NamedTuple):
    """x and noise (B, C, H, W), t (B,), label (B,) or None, augmented (B, 6) or None."""

    x: Tensor
    t: Tensor
    noise: Tensor
    label: Tensor | None = None
    augmented: Tensor | None = None

    def cut(self, parts: int) -> Iterator["Batch"]:
        """In about equal parts."""
        pieces = [[None] * parts if field is None else field.tensor_split(parts) for field in self]
        for values in zip(*pieces, strict=True):
            yield Batch(*values)


class Batches:
    """Batch k of an endless shuffled sequence, known without reading the ones before it.

    Each epoch visits every picture once (but for a last batch dropped), in an order that is a function of (seed, epoch).
    `flip` mirrors half of the pictures, `moved` is the probability of each kind of augmentation that the network is told.
    """

    def __init__(self, pictures: Pictures, plan: TrainingPlan, schedule: Schedule, device: torch.device | str = "cpu",
                 flip: bool = False, moved: float = 0.0) -> None:  # fmt: skip
        self.pictures, self.plan, self.schedule, self.device = pictures, plan, schedule, device
        self.flip, self.moved = flip, moved
        self.labels = None if pictures.labels is None else torch.from_numpy(pictures.labels)
        n = len(pictures)
        self.epoch_size = n // plan.batch * plan.batch if plan.drops_last(n) else n
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def order(self, epoch: int) -> np.ndarray:
        """The pictures of an epoch, in the order in which it visits them."""
        if self._order[0] != epoch:
            self._order = epoch, draws.stream(self.plan.seed, "order", epoch).permutation(len(self.pictures))
        return self._order[1]

    def which(self, step: int) -> np.ndarray:
        """The pictures of step `step` from 0, (B,)."""
        places = np.arange(step * self.plan.batch, (step + 1) * self.plan.batch)
        epochs, places = np.divmod(places, self.epoch_size)
        return np.concatenate([self.order(int(e))[places[epochs == e]] for e in np.unique(epochs)])

    def read(self, step: int) -> Tensor:
        """The pictures of step `step` (from 0) on [-1, 1], (B, C, H, W), mirrored where that is asked for."""
        x = torch.from_numpy(self.pictures.read(self.which(step))).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        if not self.flip:
            return x
        mirrored = torch.from_numpy(draws.stream(self.plan.seed, "flip", step).random(len(x)) < 0.5).to(self.device)
        return torch.where(mirrored[:, None, None, None], x.flip(3), x)

    def __call__(self, step: int) -> Batch:
        """All that step `step` (from 0) sees."""
        x, seed, augmented = self.read(step), self.plan.seed, None
        if self.moved:
            how = draws.stream(seed, "augment", step)
            u = draws.uniform(how, len(x) * NUMBERS).reshape(-1, NUMBERS).to(self.device)
            x, augmented = augment(x, u, draws.normal(how, u.shape).to(self.device), self.moved)
        stream = draws.stream(seed, "noise", step)
        u = spread_uniform(stream.random(), len(x)) if self.plan.spread_times else draws.uniform(stream, len(x))
        t = self.plan.times(u, self.schedule).to(self.device)
        noise = draws.normal(stream, x.shape).to(self.device)
        return Batch(x, t, noise, self._label(step, stream), augmented)

    def _label(self, step: int, stream: np.random.Generator) -> Tensor | None:
        if self.labels is None:
            return None
        label = self.labels[torch.from_numpy(self.which(step))]
        if self.plan.label_dropout:
            label = label.masked_fill(draws.uniform(stream, len(label)) < self.plan.label_dropout, -1)
        return label.to(self.device)
