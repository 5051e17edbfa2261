r"""Distribution matching: a denoiser becomes one whose samples, in a few calls, are distributed as its teacher's are in many.

A sample x of the student is noised to x_t, and shifted along the difference of two estimates there: the teacher's, which is the
mean of the images that are possible, and that of a critic, which is the mean of the student's samples that are possible:

    dL/dx = (x_hat_critic(x_t) - x_hat_teacher(x_t)) / mean |x - x_hat_teacher(x_t)|

Averaged over x_t this is, but for the weight of each noise level, the gradient of the Kullback-Leibler divergence between samples
and images under noise (Yin et al. 2024, arXiv 2311.18828, equations 7 and 8). The critic begins as the teacher, as the student
does, and is trained on the same x_t. Before its last call the student samples as it will be used (arXiv 2405.14867, section 4.5).
The critic knows which call a sample is of: else only the samples of all calls together become the images', those of the first
too alike, those of the second too different.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from unnoise.data.augment import LABELS
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.guidance import Guidance, NoGuidance
from unnoise.diffusion.loss import Loss
from unnoise.diffusion.schedules import add_noise, per_image
from unnoise.training.batches import Batch
from unnoise.training.objective import Objective, Teacher
from unnoise.utils.errors import UserError

MIN_DISTANCE = 1e-3  # of a sample from the teacher's estimate, by which the difference of the estimates is divided


@dataclass(frozen=True)
class DistributionMatching(Objective):
    """The student's samples become the teacher's, with `guidance` those of the guided teacher.

    `levels` are the noise levels sigma / alpha at which its second and further calls begin; of a batch one image after the other
    learns the first call, the second, and so on. The critic knows which it is by its augmentation labels, unless `tell_critic`
    is false, as it must be for networks without these. `critic_rate` is the critic's learning rate as a multiple of the
    student's. Of the training images a student sees nothing but what is left of them at t = 1.
    """

    from_teacher: ClassVar[bool] = True
    guidance: Guidance = field(default_factory=NoGuidance)
    levels: tuple[float, ...] = (1.4,)
    critic_rate: float = 8.0
    tell_critic: bool = True

    def __post_init__(self) -> None:
        falling = sorted(set(self.levels), reverse=True) == list(self.levels)
        if not falling or not all(level > 0 for level in self.levels) or len(self.levels) > LABELS:
            raise UserError(f"levels are at most {LABELS} falling noise levels above 0, not {list(self.levels)}")
        if self.critic_rate <= 0:
            raise UserError(f"critic_rate must be greater than 0, not {self.critic_rate}")

    @property
    def extra_noise(self) -> int:
        return 1 + len(self.levels)

    def __call__(self, model: Denoiser, batch: Batch, loss: Loss, progress: float, teacher: Teacher | None) -> Tensor:
        assert teacher is not None and teacher.critic is not None and batch.extra_noise is not None
        sample, t, label = self.sample(model, batch), batch.t, batch.label
        x = sample.detach()
        x_t = add_noise(model.schedule, x, t, batch.extra_noise[:, 0])
        of_samples = teacher.critic(x_t, t, label, **self._calls(x, batch.first))
        with torch.no_grad():
            of_images = teacher.denoiser(x_t, t, label)
        distance = (x - of_images).abs().mean((1, 2, 3), keepdim=True).clamp(min=MIN_DISTANCE)
        direction = (of_samples.detach() - of_images) / distance
        matching = (sample - (x - direction)).square() / 2  # whose gradient is the direction
        critics = loss((of_samples - x) / per_image(teacher.critic.output_scale(t), x))
        each: Tensor = (matching + critics).flatten(1).mean(1)
        return each

    def _turn(self, call: int, first: int) -> slice:
        """The images of a batch that learn this call, from 0; `first` is the place of its first one in the batch of all."""
        calls = 1 + len(self.levels)
        return slice((call - first) % calls, None, calls)

    def _calls(self, x: Tensor, first: int) -> dict[str, Tensor]:
        """What tells the critic which call each sample x (B, C, H, W) is of: of the k-th after the first label k is 1."""
        if not self.levels or not self.tell_critic:
            return {}
        labels = x.new_zeros(len(x), LABELS)
        for k in range(len(self.levels)):
            labels[self._turn(k + 1, first), k] = 1
        return {"augment_labels": labels}

    def sample(self, model: Denoiser, batch: Batch) -> Tensor:
        """A sample from each image's noise, (B, C, H, W), in 1, 2, ... calls by turns; only the last one has a gradient."""
        schedule, label, t = model.schedule, batch.label, torch.ones_like(batch.t)
        assert batch.extra_noise is not None
        x_t = add_noise(schedule, batch.x, t, batch.noise)
        with torch.no_grad():
            for last in range(1, 1 + len(self.levels)):
                turn = self._turn(last, batch.first)
                for k in range(last if len(x_t[turn]) else 0):
                    x = model(x_t[turn], t[turn], None if label is None else label[turn])
                    t[turn] = schedule.time_at(torch.full_like(t[turn], self.levels[k]))
                    x_t[turn] = add_noise(schedule, x, t[turn], batch.extra_noise[turn, k + 1])
        sample: Tensor = model(x_t, t, label)
        return sample
