"""What a step of training measured, and reading it without making a GPU wait: a step late, while the next one is computed."""

from collections import deque
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unnoise.utils.runtime import is_asynchronous


class Measured:
    """Loss and gradient norm of a step. On a CPU they are there at once; from a GPU they are copied when it has come to them."""

    def __init__(self, loss: float | Tensor, gradient_norm: float | Tensor) -> None:
        self._values, self._event = torch.stack([torch.as_tensor(v).detach().float() for v in (loss, gradient_norm)]), None
        if is_asynchronous(self._values.device):
            on_host = torch.empty(2, pin_memory=self._values.is_cuda)
            self._values, self._event = on_host.copy_(self._values, non_blocking=True), torch.Event()
            self._event.record()

    @property
    def is_ready(self) -> bool:
        """Whether reading them makes nobody wait."""
        return self._event is None or self._event.query()

    @cached_property
    def values(self) -> tuple[float, float]:
        """Loss and gradient norm."""
        if self._event is not None:
            self._event.synchronize()
        loss, norm = self._values.tolist()
        return loss, norm


@dataclass(frozen=True)
class TrainingRecord:
    """One step: its number (from 1), of how many (None: not known), what it `measured`, learning rate, images/s.

    `micro_batches` is how many the batch was split into to fit in memory; a `skipped` step had no finite gradient and changed
    no weight. Asking for `loss`, `gradient_norm` or `skipped` waits for the step to be computed: on a GPU, ask a step later.
    """

    step: int
    total: int | None
    measured: Measured
    learning_rate: float
    images_per_second: float
    micro_batches: int = 1

    @property
    def loss(self) -> float:
        return self.measured.values[0]

    @property
    def gradient_norm(self) -> float:
        return self.measured.values[1]

    @property
    def skipped(self) -> bool:
        return not abs(self.gradient_norm) < float("inf")

    @property
    def numbers(self) -> dict[str, float | None]:
        """All of it, by name."""
        names = ("step", "total", "loss", "gradient_norm", "learning_rate", "images_per_second", "micro_batches", "skipped")
        return {name: getattr(self, name) for name in names}


class ReadLater:
    """Gives each record when its numbers are there: at once on a CPU; on a GPU when the next step is under way."""

    def __init__(self) -> None:
        self._waiting: deque[TrainingRecord] = deque()

    def add(self, record: TrainingRecord) -> list[TrainingRecord]:
        """Take in one more; the records to read now, in order."""
        self._waiting.append(record)
        return self._take(0 if record.measured.is_ready else 1)

    def rest(self) -> list[TrainingRecord]:
        """Those left."""
        return self._take(0)

    def _take(self, kept: int) -> list[TrainingRecord]:
        return [self._waiting.popleft() for _ in range(len(self._waiting) - kept)]
