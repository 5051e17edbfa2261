r"""The clean picture behind a noisy one, y = x + sigma n, n ~ N(0, I).

A noised picture of the diffusion is alpha x + sigma_t z = alpha (x + (sigma_t / alpha) z): so alpha y is what the denoiser
knows at the time at which sigma_t / alpha equals sigma, found between its discrete steps too.
"""

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.draws import PictureNoise
from unnoise.errors import UserError
from unnoise.noise import Schedule
from unnoise.sampler import Sampling, trajectory


def matching_time(schedule: Schedule, sigma: float) -> Tensor:
    """The time, () float64, at which the schedule's noise is `sigma` on the pictures' scale [-1, 1].

    Raises UserError where the schedule never has so much.
    """
    most = float(schedule.ratio(torch.ones((), dtype=torch.float64)))
    if not 0 < sigma <= most:
        raise UserError(f"this model knows noise of sigma above 0 and up to {most:.4g} on [-1, 1] ({most * 127.5:.4g} of 255), "
                        f"not {sigma:.4g} ({sigma * 127.5:.4g} of 255)")  # fmt: skip
    return schedule.time_at(torch.tensor(sigma, dtype=torch.float64))


@torch.no_grad()
def denoise(denoiser: Denoiser, y: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
    """E[x | y], the estimate of least squared error, in one network call. y (B, C, H, W) on [-1, 1] -> the same."""
    t = matching_time(denoiser.schedule, sigma)
    x_hat: Tensor = denoiser(denoiser.schedule.alpha(t) * y, t, label)
    return x_hat


def denoise_by_sampling(
    denoiser: Denoiser, y: Tensor, sigma: float, sampling: Sampling, noise: PictureNoise, label: Tensor | None = None
) -> Tensor:
    """A draw from p(x | y): the sampler from y's own time down to the picture. Sharper than the mean, and further off."""
    t = matching_time(denoiser.schedule, sigma)
    x = denoiser.schedule.alpha(t) * y
    for record in trajectory(denoiser, x, sampling, noise, label, begin=float(t)):
        x = record.x
    return x
