"""DDIM inversion (an image back to the noise that it comes from), interpolation between noises, image-to-image starts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Schedule
from unnoise.utils.errors import UserError

ITERATIONS = 4  # of the fixed point; each reduces the error by the ratio of two noise levels


@torch.no_grad()
def invert(denoiser: Denoiser, x: Tensor, sampling: SamplingConfig, label: Tensor | None = None) -> Tensor:
    """The noise (B, C, H, W) at t = 1 from which DDIM at eta = 0 samples x (B, C, H, W), at the times of `sampling`.

    DDIM's step from t to s is solved for x_t by fixed-point iteration, so that sampling takes the same trajectory back (Pan et
    al. 2023, accelerated iterative diffusion inversion, section 3). Estimates are not clamped: clamping can't be inverted.
    """
    schedule = denoiser.schedule
    times = sampling.times(schedule, sampling.steps).flip(0)  # 0, the smallest level, ..., 1
    s = schedule.at(times[1])
    x = s.alpha * x  # at the smallest noise level the image itself is taken as x_t
    for time in times[2:]:
        t = schedule.at(time)
        x_hat = denoiser(x, s.t, label)
        for _ in range(ITERATIONS):
            x_hat = denoiser(t.mix(x_hat, (x - s.alpha * x_hat) / s.sigma), t.t, label)
        x, s = t.mix(x_hat, (x - s.alpha * x_hat) / s.sigma), t
    return x


def slerp(a: Tensor, b: Tensor, fraction: float) -> Tensor:
    """Spherical linear interpolation from a to b, of one shape, at `fraction` in [0, 1]; norms are interpolated linearly.

    On a straight line between two noises the norm, and so the noise level, would fall (Shoemake 1985).
    """
    lengths = a.norm(), b.norm()
    one, other = a / lengths[0], b / lengths[1]
    angle = torch.acos((one * other).sum().clamp(-1, 1))
    if angle < 1e-4:
        return torch.lerp(a, b, fraction)
    between: Tensor = (torch.sin((1 - fraction) * angle) * one + torch.sin(fraction * angle) * other) / torch.sin(angle)
    length: Tensor = torch.lerp(*lengths, fraction)
    return between * length


def interpolate(ends: Sequence[Tensor], count: int) -> Tensor:
    """`count` noises (count, C, H, W) from each of `ends` (C, H, W) to the next by `slerp`, ends included."""
    if len(ends) < 2 or count < len(ends):
        raise UserError(f"interpolation needs two ends or more and an image for each, not {len(ends)} ends and {count} images")
    places = torch.linspace(0, len(ends) - 1, count, dtype=torch.float64)
    points = []
    for place in places.tolist():
        k = min(int(place), len(ends) - 2)
        points.append(slerp(ends[k], ends[k + 1], place - k))
    return torch.stack(points)


def start_time(sampling: SamplingConfig, schedule: Schedule, strength: float) -> float:
    """The time at which image to image starts: below it lies the fraction `strength` in (0, 1] of the sampler's own times.

    Raises UserError for another strength.
    """
    if not 0 < strength <= 1:
        raise UserError(f"strength must be above 0 (the image itself) and at most 1 (a new one), not {strength:g}")
    return sampling.times.part_way(strength, schedule)
