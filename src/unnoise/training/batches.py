"""What each step of training sees: images, times, noise, labels. All of it is a function of (seed, step)."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unnoise.data.augment import KINDS, augment
from unnoise.data.dataset import ImageDataset
from unnoise.diffusion.schedules import Schedule
from unnoise.diffusion.timesteps import stratified_uniform
from unnoise.training.config import TrainingConfig
from unnoise.utils import philox, rng
from unnoise.utils.runtime import SINGLE, Runtime, copy_to, is_asynchronous


class Batch(NamedTuple):
    """x and noise (B, C, H, W), t (B,), label (B,) or None, augment_labels (B, 7) or None, extra_noise (B, N, C, H, W) or None.

    `extra_noise` is for objectives that need it; `first` is the place of the first image in the batch of all processes.
    """

    x: Tensor
    t: Tensor
    noise: Tensor
    label: Tensor | None = None
    augment_labels: Tensor | None = None
    extra_noise: Tensor | None = None
    first: int = 0

    @property
    def cond(self) -> dict[str, Tensor]:
        """Further conditioning of the denoiser."""
        return {} if self.augment_labels is None else {"augment_labels": self.augment_labels}

    def split(self, count: int) -> Iterator["Batch"]:
        """`count` micro-batches of about equal size."""
        pieces = [[None] * count if field is None else field.tensor_split(count) for field in self[:-1]]
        first = self.first
        for values in zip(*pieces, strict=True):
            yield Batch(*values)._replace(first=first)
            first += len(values[0])


class Batches:
    """Batch k of an endless shuffled sequence, known without reading the ones before it.

    Each epoch visits every image once (but for a last batch dropped), in an order that is a function of (seed, epoch).
    `flip` mirrors half of the images, `augment` is the probability of each kind of augmentation. Of several processes each reads
    its own part of a batch; all random numbers depend on the position in the whole batch alone. Where the data set is
    `per_process`, a process fills its part from its own images, in an order of its own.
    """

    def __init__(self, images: ImageDataset, config: TrainingConfig, schedule: Schedule, runtime: Runtime = SINGLE,
                 flip: bool = False, augment: float = 0.0) -> None:  # fmt: skip
        self.images, self.config, self.schedule, self.device = images, config, schedule, runtime.device
        self.flip, self.augment = flip, augment
        self.labels = None if images.labels is None else torch.from_numpy(images.labels)
        self.part = runtime.shard(config.batch)
        n = len(images)
        self._key: tuple[int, ...] = (runtime.rank,) if images.per_process else ()
        if images.per_process:
            self.stride, self.first, self.epoch_size = self.part.stop - self.part.start, 0, n
        else:
            self.stride, self.first = config.batch, self.part.start
            self.epoch_size = n // config.batch * config.batch if config.drops_last(n) else n
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def order(self, epoch: int) -> np.ndarray:
        """The indices of the images in the order in which an epoch visits them."""
        if self._order[0] != epoch:
            self._order = epoch, rng.stream(self.config.seed, "order", epoch, *self._key).permutation(len(self.images))
        return self._order[1]

    def indices(self, step: int) -> np.ndarray:
        """The indices of the images of this process's part of step `step` from 0, (B,)."""
        positions = step * self.stride + self.first + np.arange(self.part.stop - self.part.start)
        epochs, positions = np.divmod(positions, self.epoch_size)
        return np.concatenate([self.order(int(e))[positions[epochs == e]] for e in np.unique(epochs)])

    def read(self, step: int) -> Tensor:
        """The images of step `step` (from 0) on [-1, 1], (B, C, H, W), mirrored where `flip` says so."""
        x = self.images.tensor(self.indices(step), self.device)
        if not self.flip:
            return x
        u = rng.stream(self.config.seed, "flip", step).random(self.config.batch)[self.part]
        mirrored = copy_to(torch.from_numpy(u < 0.5), self.device)
        return torch.where(mirrored[:, None, None, None], x.flip(3), x)

    def __call__(self, step: int) -> Batch:
        """The batch of step `step` (from 0)."""
        seed, size, augment_labels = self.config.seed, self.config.batch, None
        x = self.read(step)
        if self.augment:
            generator = rng.stream(seed, "augment", step)
            u = rng.uniform(generator, size * KINDS).reshape(-1, KINDS)
            z = rng.normal(generator, u.shape)
            u, z = (copy_to(numbers[self.part], self.device) for numbers in (u, z))
            x, augment_labels = augment(x, u, z, self.augment)
        generator = rng.stream(seed, "times", step)
        u = stratified_uniform(generator.random(), size) if self.config.stratified_times else rng.uniform(generator, size)
        t = copy_to(self.config.times(u, self.schedule)[self.part], self.device)
        label = None
        if self.labels is not None:
            hidden = rng.uniform(generator, size)[self.part] < self.config.label_dropout
            label = copy_to(self.labels[torch.from_numpy(self.indices(step))].masked_fill(hidden, -1), self.device)
        noise = philox.normal(rng.key(seed, "noise", step), self.part, x.shape[1:], self.device)
        extra_noise = None
        if count := self.config.objective.extra_noise:
            extra_noise = philox.normal(rng.key(seed, "extra_noise", step), self.part, (count, *x.shape[1:]), self.device)
        return Batch(x, t, noise, label, augment_labels, extra_noise, self.part.start)


@contextmanager
def prefetch(batches: Batches) -> Iterator[Callable[[int], Batch]]:
    """Inside it, a batch for each step asked for; on a GPU a thread makes the next one while this one is computed on.

    On a CPU the reading thread would only take from the computing one what it gains.
    """
    if not is_asynchronous(batches.device):
        yield batches
        return
    with ThreadPoolExecutor(1) as pool:
        yield Prefetch(batches, pool)


class Prefetch:
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
