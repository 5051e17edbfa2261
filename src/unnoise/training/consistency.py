r"""Consistency tuning: a denoiser becomes one whose estimate, at any time, is where the probability flow ends.

    f(x_t, t) = f(x_s, s)    for s < t on one trajectory,        f(x, 0) = x

so that one call of the network samples (Song et al. 2023, arXiv 2303.01469). It begins with the weights of a trained denoiser,
the teacher. The gap between t and s, at first as large as t almost everywhere, which is denoising itself, shrinks while it trains
(Geng et al. 2024, arXiv 2406.14548). x_s is the same image under the same noise, so that no trajectory needs to be computed: for
small gaps that is right in the mean over images.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.guidance import Guidance, Guided, NoGuidance
from unnoise.diffusion.loss import Loss
from unnoise.diffusion.schedules import add_noise, per_image
from unnoise.training.batches import Batch
from unnoise.training.objective import Objective, Teacher
from unnoise.utils.errors import UserError

MAX_RATIO = 1e3  # noise levels beyond it count as this one
EVEN = 20.0  # noise level from which the weight falls no more: beyond it there is nothing but noise
SHRINKS = 0.9  # of the training, after which the gap is at its smallest


@dataclass(frozen=True)
class ConsistencyTuning(Objective):
    """f at noise level rho = sigma / alpha is drawn to f at (1 - gap (1 + 8 sigmoid(-rho))) rho, to the image if that is below 0.

    The gap falls geometrically from `first_gap` to `last_gap`; the weight is one over the difference of the levels, of those
    above 20 as at 20. With `guidance` the student learns the flow of the guided teacher: the image is moved as guidance moves the
    teacher's estimate.
    """

    from_teacher: ClassVar[bool] = True
    guidance: Guidance = field(default_factory=NoGuidance)
    first_gap: float = 0.5
    last_gap: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.last_gap <= self.first_gap <= 1:
            raise UserError(f"gaps are fractions, 0 < last_gap <= first_gap <= 1, not {self.last_gap} and {self.first_gap}")

    @property
    def needs_teacher(self) -> bool:
        return not isinstance(self.guidance, NoGuidance)

    def lower(self, ratio: Tensor, progress: float) -> Tensor:
        """The noise levels (B,) that those of `ratio` (B,) are compared with when this fraction of the training is done."""
        gap = self.first_gap * (self.last_gap / self.first_gap) ** min(1.0, progress / SHRINKS)
        lower: Tensor = ratio * (1 - gap * (1 + 8 * torch.sigmoid(-ratio))).clamp(min=0)
        return lower

    def __call__(self, model: Denoiser, batch: Batch, loss: Loss, progress: float, teacher: Teacher | None) -> Tensor:
        schedule, x, noise = model.schedule, batch.x, batch.noise
        ratio = schedule.ratio(batch.t).clamp(max=MAX_RATIO)
        lower = self.lower(ratio, progress)
        t, s = schedule.time_at(ratio), schedule.time_at(lower)
        x_t = add_noise(schedule, x, t, noise)
        with torch.no_grad(), torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):  # dropout is the same below
            if teacher is not None:
                assert isinstance(teacher.denoiser, Guided)
                x = x + teacher.denoiser.shift(x_t, t, batch.label, **batch.cond)
                noise = (x_t - per_image(schedule.alpha(t), x) * x) / per_image(schedule.sigma(t), x)
            f_s = torch.where(per_image(lower, x) > 0, model(add_noise(schedule, x, s, noise), s, batch.label, **batch.cond), x)
        error = model(x_t, t, batch.label, **batch.cond) - f_s
        return loss(error).flatten(1).mean(1) / (ratio.clamp(max=EVEN) * (1 - lower / ratio))
