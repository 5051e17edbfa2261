r"""Consistency tuning: a denoiser becomes one whose estimate at any time is where the probability flow ends.

    f(x_t, t) = f(x_r, r)        for r < t on one trajectory, and f(x_0, 0) = x_0

so that one call of the network samples (Song et al. 2023, arXiv 2303.01469). It begins with the weights of a trained denoiser, its
teacher, and the gap between t and r shrinks while it trains (Geng et al. 2024, arXiv 2406.14548): a gap as large as t is denoising.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.guidance import Guidance, NoGuidance
from unnoise.diffusion.loss import Loss
from unnoise.diffusion.schedules import add_noise, per_image
from unnoise.training.batches import Batch
from unnoise.training.objective import Denoising, Objective
from unnoise.utils.errors import UserError

MAX_RATIO = 1e3  # noise levels beyond it count as this one
MIN_RATIO = 2e-3  # below it an image counts as clean
SHRINKS = 0.9  # of the training, after which the gap is at its smallest
SMALL = 8.0  # how much larger a part of t the gap is where t is small, Geng et al.'s k


@dataclass(frozen=True)
class ConsistencyTuning(Objective):
    """The estimate at noise level rho = sigma / alpha is drawn to that at (1 - g (1 + 8 sigmoid(-rho))) rho, of the same trajectory.

    g falls from `gap` to `last_gap`. The trajectory is the teacher's, by one step of DDIM from noised images, guided by `guidance`.
    """

    from_teacher: ClassVar[bool] = True
    guidance: Guidance = field(default_factory=NoGuidance)
    gap: float = 0.5
    last_gap: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.last_gap <= self.gap <= 1:
            raise UserError(f"gaps are fractions, 0 < last_gap <= gap <= 1, not {self.last_gap} and {self.gap}")

    def lower(self, ratio: Tensor, progress: float) -> Tensor:
        """The noise level to compare that of `ratio` (B,) with."""
        gap = self.gap * (self.last_gap / self.gap) ** min(1.0, progress / SHRINKS)
        return ratio * (1 - gap * (1 + SMALL * torch.sigmoid(-ratio))).clamp(min=0)

    def __call__(self, model: Denoiser, batch: Batch, loss: Loss, progress: float, teacher: Denoiser | None) -> Tensor:
        assert teacher is not None
        schedule, label, cond = model.schedule, batch.label, batch.cond
        ratio = schedule.ratio(batch.t).clamp(max=MAX_RATIO)
        t, lower = schedule.time_at(ratio), self.lower(ratio, progress)
        s = schedule.time_at(lower)
        x_t = add_noise(schedule, batch.x, t, batch.noise)
        with torch.no_grad(), torch.random.fork_rng():  # the same dropout in both calls
            x_hat = teacher(x_t, t, label, **cond)
            eps = (x_t - per_image(schedule.alpha(t), x_t) * x_hat) / per_image(schedule.sigma(t), x_t)
            x_s = add_noise(schedule, x_hat, s, eps)
            goal = torch.where(per_image(lower, x_t) > MIN_RATIO, model(x_s, s, label, **cond), x_hat)
        error = model(x_t, t, label, **cond) - goal
        return loss(error).flatten(1).mean(1) / (ratio - lower)


OBJECTIVES: dict[str, type[Objective]] = {"denoising": Denoising, "consistency": ConsistencyTuning}
