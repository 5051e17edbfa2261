r"""Bits per dimension of images under a model, by the variational bound: a forward pass for each of some noise levels.

For a continuum of steps (Kingma et al. 2021, "Variational Diffusion Models", equations 11 and 15), with y = x + s eps at noise
levels s from s_0 to s_1, minus the log density of x is at most

    KL(q(y_1 | x) | p(y_1)) + integral of E |x - x_hat(y, s)|^2 / s^2 d log s + E[-log p(x | y_0)]

           prior                              diffusion                           reconstruction

where p(y_1) is the Gaussian of the images with noise (`likelihood.Prior`) and p(x | y_0) = N(y_0, s_0^2 I). Below some level
a network estimates x no better than y itself, which gives |x - y|^2 / s^2 = D: s_0 is the level from which on it is better, the
best of all choices, found on the images together. Units and dequantisation are those of `likelihood`, which see; the bound of a
perfect denoiser lies above the value by the probability flow, but for s_0.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.data.pixels import HALF_RANGE
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.gaussian import Moments
from unnoise.diffusion.schedules import per_image
from unnoise.evaluation.likelihood import Prior, dequantise, last_level, weight
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng, stream

CONTROL = 0.1  # about the standard deviation of images in all but their main directions


@dataclass(frozen=True)
class Bound:
    """The terms of the bound for each image, (B,) float64, and the noise level `s_0` at which the decoder takes over."""

    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor
    s_0: float

    @property
    def total(self) -> Tensor:
        """(B,)."""
        return self.prior + self.diffusion + self.reconstruction


def variational_bound(denoiser: Denoiser, pixels: Tensor, seed: int = 0, *, moments: Moments | None = None, levels: int = 32,
                      label: Tensor | None = None) -> Bound:  # fmt: skip
    """Of uint8 pixels (B, C, H, W), in bits per dimension; arguments as of `likelihood.bits_per_dimension`."""
    x = dequantise(pixels, seed)
    found, bits = density_bound(denoiser, x, seed, moments=moments, levels=levels, label=label), x[0].numel() * math.log(2)
    reconstruction = found.reconstruction / bits + math.log2(HALF_RANGE)
    return Bound(found.prior / bits, found.diffusion / bits, reconstruction, found.s_0)


@torch.no_grad()
def density_bound(denoiser: Denoiser, x: Tensor, seed: int = 0, *, moments: Moments | None = None, levels: int = 32,
                  label: Tensor | None = None, smallest: float = 1e-3) -> Bound:  # fmt: skip
    """Of minus the log density of images x (B, C, H, W) on [-1, 1], natural logarithm.

    The integral over log s takes one level at random in each of `levels` equal parts, another for each image, so that its
    expectation is exact. Raises UserError for fewer than 2 levels.
    """
    if levels < 2:
        raise UserError(f"a bound needs at least 2 `levels`, not {levels}")
    x, d, last, like = x.cpu().double(), x[0].numel(), last_level(denoiser), weight(denoiser)
    first, width = math.log(smallest), math.log(last / smallest) / levels
    rng = BatchRng(seed, range(len(x)), "bound")
    offset = (torch.arange(len(x), dtype=torch.float64) / len(x) + stream(seed, "bound levels").random()) % 1
    errors = []
    for k in range(levels):
        s = (first + (k + offset) * width).exp()
        t = denoiser.schedule.time_at(s)
        eps = rng.normal_like(x)
        x_t = per_image(denoiser.schedule.alpha(t), x) * (x + per_image(s, x) * eps)
        x_hat = denoiser(x_t.to(like), t.to(like), label).cpu().double()
        error = (x_hat - x).flatten(1).square().sum(1) / s.to(x).square()
        # A control variate of mean 0: where there is little noise, what is left of it is nearly all of the error.
        errors.append(error + (d - eps.flatten(1).square().sum(1)) / (1 + (s.to(x) / CONTROL).square()).square())
    parts = width * torch.stack(errors)  # (levels, B)
    beyond = parts.flip(0).cumsum(0).flip(0)  # from each level on
    start = int((beyond.mean(1) + d * width * torch.arange(levels)).argmin())
    s_0 = math.exp(first + start * width)
    reconstruction = torch.full_like(beyond[0], d / 2 * math.log(2 * math.pi * math.e * s_0**2))
    return Bound(Prior(x, last, moments).divergence(x), beyond[start], reconstruction, s_0)
