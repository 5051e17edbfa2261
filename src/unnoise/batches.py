"""What each step of training sees: pictures, times, noise, labels. All of it is a function of (seed, step)."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unnoise import draws
from unnoise.data.augment import NUMBERS, augment
from unnoise.data.pictures import Pictures
from unnoise.noise import Schedule
from unnoise.plan import TrainingPlan
from unnoise.processes import ALONE, Processes
from unnoise.times import spread_uniform

BLOCK = 16  # pictures that share a stream of noise: one for each would take as long as the noise, one for all must be drawn whole


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
    Of several processes each reads its own part of a batch; all draws depend on the place in the whole batch alone. Where
    pictures are `divided`, it fills its part from its own, in an order of its own.
    """

    def __init__(self, pictures: Pictures, plan: TrainingPlan, schedule: Schedule, device: torch.device | str = "cpu",
                 flip: bool = False, moved: float = 0.0, processes: Processes = ALONE) -> None:  # fmt: skip
        self.pictures, self.plan, self.schedule, self.device = pictures, plan, schedule, device
        self.flip, self.moved = flip, moved
        self.labels = None if pictures.labels is None else torch.from_numpy(pictures.labels)
        self.part = processes.share(plan.batch)
        n = len(pictures)
        self._key: tuple[int, ...] = (processes.rank,) if pictures.divided else ()
        if pictures.divided:
            self.stride, self.first, self.epoch_size = self.part.stop - self.part.start, 0, n
        else:
            self.stride, self.first = plan.batch, self.part.start
            self.epoch_size = n // plan.batch * plan.batch if plan.drops_last(n) else n
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def order(self, epoch: int) -> np.ndarray:
        """The pictures of an epoch, in the order in which it visits them."""
        if self._order[0] != epoch:
            self._order = epoch, draws.stream(self.plan.seed, "order", epoch, *self._key).permutation(len(self.pictures))
        return self._order[1]

    def which(self, step: int) -> np.ndarray:
        """The pictures of this part of step `step` from 0, (B,)."""
        places = step * self.stride + self.first + np.arange(self.part.stop - self.part.start)
        epochs, places = np.divmod(places, self.epoch_size)
        return np.concatenate([self.order(int(e))[places[epochs == e]] for e in np.unique(epochs)])

    def read(self, step: int) -> Tensor:
        """The pictures of step `step` (from 0) on [-1, 1], (B, C, H, W), mirrored where that is asked for."""
        return self._prepare(self.which(step), step)

    def _prepare(self, which: np.ndarray, step: int) -> Tensor:
        x = torch.from_numpy(self.pictures.read(which)).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        if not self.flip:
            return x
        chances = draws.stream(self.plan.seed, "flip", step).random(self.plan.batch)[self.part]
        mirrored = torch.from_numpy(chances < 0.5).to(self.device)
        return torch.where(mirrored[:, None, None, None], x.flip(3), x)

    def __call__(self, step: int) -> Batch:
        """All that step `step` (from 0) sees."""
        seed, size, which, augmented = self.plan.seed, self.plan.batch, self.which(step), None
        x = self._prepare(which, step)
        if self.moved:
            how = draws.stream(seed, "augment", step)
            u = draws.uniform(how, size * NUMBERS).reshape(-1, NUMBERS)
            normal = draws.normal(how, u.shape)
            x, augmented = augment(x, u[self.part].to(self.device), normal[self.part].to(self.device), self.moved)
        stream = draws.stream(seed, "times", step)
        u = spread_uniform(stream.random(), size) if self.plan.spread_times else draws.uniform(stream, size)
        t = self.plan.times(u, self.schedule)[self.part].to(self.device)
        label = None
        if self.labels is not None:
            hidden = draws.uniform(stream, size)[self.part] < self.plan.label_dropout
            label = self.labels[torch.from_numpy(which)].masked_fill(hidden, -1).to(self.device)
        return Batch(x, t, self._noise(step, x.shape[1:]).to(self.device), label, augmented)

    def _noise(self, step: int, shape: Sequence[int]) -> Tensor:
        """This part's noise, (B, C, H, W): every `BLOCK` places of the whole batch have a stream of their own."""
        first, end = self.part.start // BLOCK, -(-self.part.stop // BLOCK)
        streams = (draws.stream(self.plan.seed, "noise", step, k) for k in range(first, end))
        blocks = torch.cat([draws.normal(s, (BLOCK, *shape)) for s in streams])
        return blocks[self.part.start - first * BLOCK : self.part.stop - first * BLOCK]


@contextmanager
def reading(batches: Batches) -> Iterator[Callable[[int], Batch]]:
    """Inside it, a batch for each step asked for; on a GPU a thread makes the next one while this one is computed on.

    On a CPU the thread that computes would only lose what the one that reads gains.
    """
    if torch.device(batches.device).type == "cpu":
        yield batches
        return
    with ThreadPoolExecutor(1) as pool:
        yield Ahead(batches, pool)


class Ahead:
    """Batches in order, each made by `pool` while the one before is used."""

    def __init__(self, batches: Batches, pool: ThreadPoolExecutor) -> None:
        self._batches, self._pool = batches, pool
        self._next: tuple[int, Future[Batch]] | None = None

    def __call__(self, step: int) -> Batch:
        if self._next is None or self._next[0] != step:
            self._next = step, self._pool.submit(self._batches, step)
        batch = self._next[1].result()
        self._next = step + 1, self._pool.submit(self._batches, step + 1)
        return batch
