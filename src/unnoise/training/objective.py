"""Objectives: what a step of training minimises."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.loss import Loss, diffusion_loss

if TYPE_CHECKING:
    from unnoise.training.batches import Batch


@dataclass(frozen=True)
class Teacher:
    """What a student learns from.

    `denoiser` is the trained one, guided where the student learns guidance; `critic` one that learns, in the same steps, what the
    student's own samples look like under noise, where the objective asks for it.
    """

    denoiser: Denoiser
    critic: Denoiser | None = None


class Objective(ABC):
    """What a step of training minimises: a frozen dataclass that gives a number for each image of a batch.

    `from_teacher`: the run is a student, whose teacher's weights lie beside its own; its estimates are samples, not means.
    """

    from_teacher: ClassVar[bool] = False

    @property
    def critic_rate(self) -> float:
        """The learning rate of its critic, as a multiple of the model's; 0 is no critic."""
        return 0.0

    @property
    def extra_noise(self) -> int:
        """How much noise it needs beside `batch.noise`: so many (C, H, W) an image, in `batch.extra_noise`."""
        return 0

    @property
    def needs_teacher(self) -> bool:
        """Whether it can't do without `teacher`."""
        return bool(self.critic_rate)

    @abstractmethod
    def __call__(self, model: Denoiser, batch: "Batch", loss: Loss, progress: float, teacher: Teacher | None) -> Tensor:
        """(B,): the loss of each image. `progress` is the fraction of the training that is done, 0 while its end is open."""


@dataclass(frozen=True)
class Denoising(Objective):
    """The clean image is estimated from the noised one: what makes a diffusion model (`diffusion_loss`)."""

    def __call__(self, model: Denoiser, batch: "Batch", loss: Loss, progress: float, teacher: Teacher | None) -> Tensor:
        return diffusion_loss(model, batch.x, batch.t, batch.noise, batch.label, loss, **batch.cond)
