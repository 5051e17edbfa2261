"""Ways through a model's noise: a picture back to the noise it comes from, and paths between two noises."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.errors import UserError
from unnoise.sampler import Sampling
from unnoise.solvers import at

ROUNDS = 4  # of the fixed-point iteration; the error falls by the ratio of two noise levels in each


@torch.no_grad()
def invert(denoiser: Denoiser, x: Tensor, sampling: Sampling, label: Tensor | None = None) -> Tensor:
    """The noise (B, C, H, W) at t = 1 from which DDIM at eta = 0 draws x (B, C, H, W), at the times of `sampling`.

    DDIM's step from t to s is solved for x_t by fixed-point iteration, so that the way back is the same one (Pan et al. 2023,
    accelerated iterative diffusion inversion, section 3). Nothing is clamped: a clamped estimate could not be taken back.
    """
    times = sampling.times(denoiser.schedule, sampling.steps).flip(0)  # 0, the smallest level, ..., 1
    s = at(denoiser, times[1])
    x = s.alpha * x  # at the smallest noise level a picture is as good as itself
    for t in times[2:]:
        a = at(denoiser, t)
        x_t = x
        x_hat = denoiser(x, s.t, label)
        for _ in range(ROUNDS):
            x_t = a.moved(x_hat, (x - s.alpha * x_hat) / s.sigma)
            x_hat = denoiser(x_t, t, label)
        x, s = a.moved(x_hat, (x - s.alpha * x_hat) / s.sigma), a
    return x


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The point at `share` of the way from a to b (..., any shape) along a great circle, lengths going over evenly.

    Straight lines between two noises pass where there is too little noise (Shoemake 1985).
    """
    lengths = a.norm(), b.norm()
    one, other = a / lengths[0], b / lengths[1]
    angle = torch.acos((one * other).sum().clamp(-1, 1))
    if angle < 1e-4:
        return torch.lerp(a, b, share)
    between: Tensor = (torch.sin((1 - share) * angle) * one + torch.sin(share * angle) * other) / torch.sin(angle)
    length: Tensor = torch.lerp(*lengths, share)
    return between * length


def path(ends: Sequence[Tensor], count: int) -> Tensor:
    """`count` points (count, C, H, W) along great circles from each of `ends` (C, H, W) to the next, ends included."""
    if len(ends) < 2 or count < len(ends):
        raise UserError(f"a path needs two ends or more and a picture for each, not {len(ends)} ends and {count} pictures")
    places = torch.linspace(0, len(ends) - 1, count, dtype=torch.float64)
    points = []
    for place in places.tolist():
        k = min(int(place), len(ends) - 2)
        points.append(slerp(ends[k], ends[k + 1], place - k))
    return torch.stack(points)


def begin_at(sampling: Sampling, denoiser: Denoiser, strength: float) -> float:
    """The time above which a share 1 - `strength` of the sampler's own times lies: where picture to picture begins.

    Raises UserError for a strength outside (0, 1].
    """
    if not 0 < strength <= 1:
        raise UserError(f"--strength must be above 0 (the picture itself) and at most 1 (a new one), not {strength:g}")
    finest = min(1000, denoiser.schedule.steps or 1000)
    times = sampling.times(denoiser.schedule, finest)
    return float(times[finest - max(1, round(strength * finest))])
