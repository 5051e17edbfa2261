r"""Bits per dimension of images under a model, by its probability-flow ordinary differential equation.

With x_t = alpha x + sigma eps, y = x_t / alpha and the noise level s = sigma / alpha, the probability flow is

    dy/ds = (y - x_hat) / s                                              (Karras et al. 2022, equations 1 and 4)

and the logarithm of the density follows it (Chen et al. 2018; Song et al. 2021, equation 39):

    log p(y(s_0)) = log p(y(s_1)) + integral from s_0 to s_1 of div (y - x_hat) / s ds

where div x_hat = E[v^T (d x_hat / dy) v] over v of random signs (Skilling 1989, Hutchinson 1990), or exact, a derivative for each
value. y(s_1) is taken for N(mean, covariance + s_1^2 I) of the images or, without these, N(0, s_1^2 I), which costs a thousandth
of a bit at s_1 = 80. Integrated over log s by the classical Runge-Kutta method (fourth order, four evaluations a step).

Units as in the literature (Theis et al. 2016): pixels of 0..255 get uniform noise in [0, 1), so that minus the mean log density
in bits is an upper bound on the bits that a lossless code needs for each value: 8 for uniform noise.
"""

import math
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from unnoise.data.pixels import HALF_RANGE
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.gaussian import Moments
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng


def bits_per_dimension(denoiser: Denoiser, pixels: Tensor, seed: int = 0, *, moments: Moments | None = None, steps: int = 100,
                       label: Tensor | None = None, exact: bool = False) -> Tensor:  # fmt: skip
    """Of uint8 pixels (B, C, H, W), float64 (B,); the numbers of noise are those of image 0 to B - 1 of `seed`.

    `moments` are the training images' (`Model.moments`). `exact` takes as many derivatives a step as an image has values.
    """
    x = dequantise(pixels, seed)
    found = log_density(denoiser, x, seed, moments=moments, steps=steps, label=label, exact=exact)
    return -found / (x[0].numel() * math.log(2)) + math.log2(HALF_RANGE)


def dequantise(pixels: Tensor, seed: int) -> Tensor:
    """uint8 (B, C, H, W) with uniform noise in [0, 1) added, on [-1, 1], float64."""
    # Normal numbers through their own distribution function are uniform in (0, 1).
    pixels = pixels.cpu().double()
    normal = BatchRng(seed, range(len(pixels)), "dequantise").normal_like(pixels)
    return (pixels + 0.5 * torch.erf(normal / math.sqrt(2))) / HALF_RANGE - 1


def last_level(denoiser: Denoiser) -> float:
    """sigma / alpha where the schedule ends, 1000 at most."""
    return float(denoiser.schedule.ratio(torch.tensor(1.0, dtype=torch.float64)).clamp(max=1000.0))


def weight(denoiser: Denoiser) -> Tensor:
    """One of the denoiser's tensors, whose device and dtype its input has; all else is computed on the CPU, in float64."""
    return next(chain(denoiser.parameters(), denoiser.buffers()))


def log_density(denoiser: Denoiser, x: Tensor, seed: int = 0, *, moments: Moments | None = None, steps: int = 100,
                label: Tensor | None = None, exact: bool = False, smallest: float = 1e-3) -> Tensor:  # fmt: skip
    """Of images x (B, C, H, W) on [-1, 1], natural logarithm, float64 (B,), from noise level `smallest` on.

    At `smallest` x is taken for x_t / alpha: below it the density of 8-bit images, with their uniform noise, hardly changes. The
    derivatives of a network in bfloat16 are coarse: give the denoiser in float32. Raises UserError for fewer than 2 steps.
    """
    if steps < 2:
        raise UserError(f"a likelihood needs at least 2 `steps`, not {steps}")
    last = last_level(denoiser)
    levels = torch.linspace(math.log(smallest), math.log(last), steps + 1, dtype=torch.float64)
    probes = None if exact else [BatchRng(seed, range(len(x)), "signs").normal_like(x.cpu().double()).sign()]
    y, total = x.cpu().double(), torch.zeros(len(x), dtype=torch.float64)
    h = levels[1] - levels[0]
    for u in levels[:-1]:
        slopes, divergences = [torch.zeros_like(y)], []
        for fraction in (0, 0.5, 0.5, 1):
            slope, divergence = _flow(denoiser, y + fraction * h * slopes[-1], (u + fraction * h).exp(), label, probes)
            slopes.append(slope)
            divergences.append(divergence)
        y = y + h * _runge_kutta(slopes[1:])
        total = total + h * _runge_kutta(divergences)
    return total + Prior(y, last, moments).log_density(y)


def _runge_kutta(k: Sequence[Tensor]) -> Tensor:
    return (k[0] + 2 * k[1] + 2 * k[2] + k[3]) / 6


def _flow(denoiser: Denoiser, y: Tensor, s: Tensor, label: Tensor | None,
          probes: Sequence[Tensor] | None) -> tuple[Tensor, Tensor]:  # fmt: skip
    """dy / dlog s = y - x_hat and its divergence (B,), by probes (B, C, H, W) of random signs, or exact without."""
    t = denoiser.schedule.time_at(s)
    alpha, like = denoiser.schedule.alpha(t), weight(denoiser)
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        x_hat = denoiser((alpha * y).to(like), t.to(like), label)
        value = y - x_hat.cpu().double()
        directions = _axes(y) if probes is None else probes
        parts = [(torch.autograd.grad(value, y, v, retain_graph=True)[0] * v).flatten(1).sum(1) for v in directions]
    return value.detach(), torch.stack(parts).sum(0)


def _axes(y: Tensor) -> list[Tensor]:
    """The unit vectors of each value, in every image."""
    unit = torch.eye(y[0].numel(), dtype=y.dtype, device=y.device)
    return [v.reshape(1, *y.shape[1:]).expand_as(y) for v in unit]


class Prior:
    """What images with noise of level s are distributed like: N(mean, covariance + s^2 I) or, without moments, N(0, s^2 I)."""

    def __init__(self, like: Tensor, s: float, moments: Moments | None) -> None:
        d = like[0].numel()
        if moments is None:
            self.mean, self.directions, self.extra, residual = like.new_zeros(d), like.new_zeros(0, d), like.new_zeros(0), 0.0
        else:
            basis, residual = moments.basis.to(like).flatten(1), float(moments.residual_std)
            self.extra = basis.square().sum(1)  # variance beyond the residual one
            self.mean = moments.mean.to(like).flatten()
            self.directions = basis / self.extra.sqrt().clamp(min=1e-12)[:, None]
        self.d, self.s, self.base = d, s, residual**2 + s**2

    def log_density(self, y: Tensor) -> Tensor:
        """Of y (B, C, H, W), (B,)."""
        centred = y.flatten(1) - self.mean
        along = (centred @ self.directions.T).square()
        mahalanobis = (centred.square().sum(1) - along.sum(1)) / self.base + (along / (self.extra + self.base)).sum(1)
        log_volume = (self.d - len(self.extra)) * math.log(self.base) + (self.extra + self.base).log().sum()
        return -(mahalanobis + log_volume + self.d * math.log(2 * math.pi)) / 2

    def divergence(self, x: Tensor) -> Tensor:
        """KL(N(x, s^2 I) | this), (B,)."""
        shrunk = self.s**2 * ((self.d - len(self.extra)) / self.base + (1 / (self.extra + self.base)).sum())
        return -self.log_density(x) + (shrunk - self.d * (1 + math.log(2 * math.pi * self.s**2))) / 2
