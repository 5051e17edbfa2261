r"""Posteriors p(x | y) of the image behind a measurement y = A(x) + n, n ~ N(0, Sigma).

White noise alone is a special case: alpha y is a noised image of the diffusion, at the time at which sigma_t / alpha_t is the
noise's, also between discrete steps; one call of the denoiser there is E[x | y].

For all else the denoiser of p(x) becomes one of p(x | y), and every sampler samples from it:

    E[x | x_t, y] = x_hat + V A^T (Sigma + A V A^T)^-1 (y - A x_hat)          if p(x | x_t) is N(x_hat, V)

V is sigma_t^2 / alpha_t times the Jacobian of x_hat in x_t (Tweedie's second formula), or the covariance of natural images, or a
multiple of the identity.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from unnoise.data.pixels import HALF_RANGE
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.sampling import SamplingConfig, SamplingRecord, trajectory
from unnoise.diffusion.schedules import Schedule
from unnoise.restoration.noise import ROUNDING, CorrelatedNoise, Noise, measured_variance
from unnoise.restoration.operators import Cosines, Mask, Operator, Repeated, cosines
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

Linear = Callable[[Tensor], Tensor]


def matching_time(schedule: Schedule, sigma: float) -> Tensor:
    """The time, () float64, at which the schedule's noise level is `sigma`, on the images' scale [-1, 1].

    Raises UserError where the schedule never has so much.
    """
    highest = float(schedule.ratio(torch.ones((), dtype=torch.float64)))
    if not 0 < sigma <= highest:
        raise UserError(f"this model knows noise of sigma above 0 and up to {highest:.4g} on [-1, 1] "
                        f"({highest * HALF_RANGE:.4g} of 255), not {sigma:.4g} ({sigma * HALF_RANGE:.4g} of 255)")  # fmt: skip
    return schedule.time_at(torch.tensor(sigma, dtype=torch.float64))


@torch.no_grad()
def denoise(denoiser: Denoiser, y: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
    """E[x | y], the estimate of least squared error, in one network call. y (B, C, H, W) on [-1, 1] -> the same."""
    t = matching_time(denoiser.schedule, sigma)
    x_hat: Tensor = denoiser(denoiser.schedule.alpha(t) * y, t, label)
    return x_hat


def denoise_by_sampling(
    denoiser: Denoiser, y: Tensor, sigma: float, sampling: SamplingConfig, rng: BatchRng, label: Tensor | None = None
) -> Iterator[SamplingRecord]:
    """The trajectory to a sample of p(x | y), sharper than its mean and of twice its squared error: from y's own time down."""
    t = matching_time(denoiser.schedule, sigma)
    return trajectory(denoiser, denoiser.schedule.alpha(t) * y, sampling, rng, label, start=float(t))


@dataclass(frozen=True)
class Measurement:
    """y (B, ...) = `operator`(x) + noise of `variance`, () or like y, of images x of `shape` (C, H, W)."""

    y: Tensor
    operator: Operator
    variance: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, y: Tensor, operator: Operator, noise: Noise | None = None, channels: int | None = None) -> "Measurement":
        """From y (B, C, h, w), measured by `operator` under `noise` (None: rounding to 8 bits), of images of `channels`.

        Values of y that a mask leaves out are ignored. Raises UserError where y is not what the operator gives.
        """
        if y.ndim != 4:
            raise UserError(f"images are (B, C, H, W), not {tuple(y.shape)}")
        mask = None
        if isinstance(operator, Mask):
            y, mask = operator(y), operator.mask
        shape = (channels or y.shape[1], *operator.image_size((y.shape[2], y.shape[3])))
        measured = operator(torch.zeros(1, *shape, device=y.device)).shape[1:]
        if measured != y.shape[1:]:
            raise UserError(f"the operator measures {tuple(measured)} of images of {shape}, and y is {tuple(y.shape[1:])}: "
                            "they must agree")  # fmt: skip
        if isinstance(noise, CorrelatedNoise):
            if mask is not None:
                raise UserError("noise that is correlated can't be told from missing pixels: give its sigma as if it were white")
            variance = noise.spectrum(y.shape).clamp(min=ROUNDING**2).to(y)[None]
            return cls(Cosines()(y), Cosines() @ operator, variance, shape)
        return cls(y, operator, measured_variance(noise, y, mask), shape)

    def repeated(self, count: int) -> "Measurement":
        """The same batch `count` times."""
        y, variance = (
            v.expand_as(self.y).repeat(count, *[1] * (self.y.ndim - 1)) if v.ndim else v for v in (self.y, self.variance)
        )
        return replace(self, y=y, operator=Repeated(self.operator, count), variance=variance)


class Posterior(ABC):
    """A method that turns the denoiser of p(x) into one of p(x | y)."""

    calibrated: ClassVar[bool] = False  # whether its samples have the standard deviation of p(x | y), nearly
    linear_only: ClassVar[bool] = True

    @abstractmethod
    def estimate(self, denoiser: Denoiser, measurement: Measurement, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """E[x | x_t, y], (B, C, H, W)."""

    def wrap(self, denoiser: Denoiser, measurement: Measurement) -> "PosteriorDenoiser":
        """The denoiser of p(x | y). Raises UserError for an operator that it can't handle."""
        if self.linear_only and not measurement.operator.linear:
            raise UserError("this method is for linear operators: choose dps")
        return PosteriorDenoiser(denoiser, measurement, self)


class PosteriorDenoiser(Denoiser):
    """A denoiser of p(x | y)."""

    def __init__(self, denoiser: Denoiser, measurement: Measurement, method: Posterior) -> None:
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.measurement, self.method = measurement, method

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        assert not cond, "posteriors take no conditioning of training"
        return self.method.estimate(self.denoiser, self.measurement, x_t, t, label)


def conjugate_gradients(matrix: Linear, b: Tensor, iterations: int) -> Tensor:
    """u with matrix(u) = b, nearly, for a symmetric positive definite matrix, each image of b (B, ...) by itself.

    Hestenes & Stiefel 1952. A network's Jacobian is not quite symmetric: an image stops where its matrix turns out not to be
    positive.
    """
    u, r = torch.zeros_like(b), b
    p, norm = r, _dot(r, r)
    for _ in range(iterations):
        product = matrix(p)
        curvature = _dot(p, product)
        positive = curvature > 1e-12 * _dot(p, p)
        step = torch.where(positive, norm / curvature, 0)
        u, r = u + step * p, r - step * product
        before, norm = norm, _dot(r, r)
        p = torch.where(positive, r + norm / before.clamp(min=1e-30) * p, 0)
    return u


def solve(measurement: Measurement, alpha: Tensor, sigma: Tensor, a_v_at: Linear, b: Tensor, iterations: int) -> Tensor:
    """u with (Sigma + A V A^T) u = b, nearly.

    Solved for u / w: where some values are far less noisy than others, a few iterations would fit those alone.
    """
    w = (measurement.variance + Isotropic().variance(alpha, sigma).to(b)).rsqrt()
    return w * conjugate_gradients(lambda u: w * (measurement.variance * w * u + a_v_at(w * u)), w * b, iterations)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(B, ...) x (B, ...) -> (B, 1, ...)."""
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))


@dataclass(frozen=True)
class MMPS(Posterior):
    """Moment matching posterior sampling (Rozet et al. 2024, equations 15 to 18): V from the denoiser's own Jacobian.

    `iterations` of conjugate gradients, each a vector-Jacobian product of the network: about the cost of a training step.
    """

    calibrated: ClassVar[bool] = True
    iterations: int = 2

    def estimate(self, denoiser: Denoiser, measurement: Measurement, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        a, scale = measurement.operator, (sigma.square() / alpha).to(x_t)
        if alpha == 0:  # pure noise holds nothing of the image, and V is not finite
            return Isotropic().estimate(denoiser, measurement, x_t, t, label)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_hat = denoiser(x_t, t, label)

        def v_at(u: Tensor) -> Tensor:
            """V A^T u"""
            (product,) = torch.autograd.grad(x_hat, x_t, a.adjoint(u, x_t), retain_graph=True)
            return scale * product

        u = solve(measurement, alpha, sigma, lambda u: a(v_at(u)), measurement.y - a(x_hat.detach()), self.iterations)
        out: Tensor = x_hat.detach() + v_at(u)
        return out


@dataclass(frozen=True)
class Spectral(Posterior):
    """V as if images were Gaussian with the spectrum of photographs, power ~ 1 / f^2 (Field 1987), and mostly grey.

    Exact for such images, and the network's Jacobian is not needed: `iterations` are cheap. `std` is the standard deviation of
    a pixel, `grey` the fraction of the variance common to all channels, and the spectrum is flat beyond `reach` pixels.
    """

    calibrated: ClassVar[bool] = True
    std: float = 0.5
    grey: float = 0.9
    reach: float = 64.0
    iterations: int = 30

    def covariance(self, alpha: Tensor, sigma: Tensor, like: Tensor) -> Linear:
        """V for images like (B, C, H, W): diagonal in cosines, and in the sum of colours and their differences."""
        _, c, h, w = like.shape
        down, along = cosines(h).to(like), cosines(w).to(like)
        frequency = (torch.arange(h) / (2 * h))[:, None].square() + (torch.arange(w) / (2 * w)).square()
        power = 1 / (self.reach**-2 + frequency)
        fractions = torch.tensor([self.grey if c > 1 else 1.0] + [(1 - self.grey) / max(1, c - 1)] * (c - 1))
        prior = c * fractions[:, None, None] * self.std**2 * power / power.mean()
        colours = torch.linalg.qr(torch.cat([torch.ones(c, 1), torch.eye(c)[:, 1:]], 1)).Q.to(like)  # first their sum
        after = (prior * sigma.square() / (alpha.square() * prior + sigma.square())).to(like)

        def v(u: Tensor) -> Tensor:
            coefficients = after * torch.einsum("dc,bdhw->bchw", colours, down @ u @ along.T)
            return down.T @ torch.einsum("dc,bchw->bdhw", colours, coefficients) @ along

        return v

    @torch.no_grad()
    def estimate(self, denoiser: Denoiser, measurement: Measurement, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        a, x_hat, v = measurement.operator, denoiser(x_t, t, label), self.covariance(alpha, sigma, x_t)
        u = solve(measurement, alpha, sigma, lambda u: a(v(a.adjoint(u, x_hat))), measurement.y - a(x_hat), self.iterations)
        out: Tensor = x_hat + v(a.adjoint(u, x_hat))
        return out


@dataclass(frozen=True)
class Isotropic(Posterior):
    """V = s^2 sigma^2 / (alpha^2 s^2 + sigma^2), for independent pixels of standard deviation s (PiGDM, Song et al. 2023)."""

    std: float = 0.5
    iterations: int = 10

    def variance(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (self.std * sigma).square() / ((self.std * alpha).square() + sigma.square())

    @torch.no_grad()
    def estimate(self, denoiser: Denoiser, measurement: Measurement, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        a, x_hat = measurement.operator, denoiser(x_t, t, label)
        v = self.variance(denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)).to(x_t)
        noise = measurement.variance.clamp(min=1e-6 * v)  # without noise: the least change
        u = conjugate_gradients(lambda u: noise * u + v * a(a.adjoint(u, x_hat)), measurement.y - a(x_hat), self.iterations)
        out: Tensor = x_hat + v * a.adjoint(u, x_hat)
        return out


@dataclass(frozen=True)
class DiffPIR(Isotropic):
    """The nearest image to the estimate that explains y (Zhu et al. 2023, equation 12): V = (sigma / alpha)^2 / strength."""

    strength: float = 7.0

    def variance(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (sigma / alpha).square().clamp(max=1e4) / self.strength


@dataclass(frozen=True)
class DDNM(Isotropic):
    """The estimate with its measured part replaced by y (Wang et al. 2023, equation 13): for images without noise."""

    iterations: int = 30

    def variance(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.full_like(sigma, 1e4)


@dataclass(frozen=True)
class DPS(Posterior):
    """A step down the gradient of |y - A(x_hat)|^2 (Chung et al. 2023, algorithm 1), weighted as if pixels were independent.

    For operators that are not linear. Experimental: `scale` may need a value of its own for each task.
    """

    linear_only: ClassVar[bool] = False
    scale: float = 1.0
    std: float = 0.5

    def estimate(self, denoiser: Denoiser, measurement: Measurement, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        v = Isotropic(self.std).variance(alpha, sigma).to(x_t)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_hat = denoiser(x_t, t, label)
            error = ((measurement.y - measurement.operator(x_hat)).square() / (measurement.variance + v)).sum() / 2
        (gradient,) = torch.autograd.grad(error, x_t)
        weight = self.scale * sigma.square() / alpha.clamp(min=1e-3)
        out: Tensor = x_hat.detach() - weight.to(x_t) * gradient
        return out


POSTERIORS: dict[str, type[Posterior]] = {"mmps": MMPS, "spectral": Spectral, "diffpir": DiffPIR, "ddnm": DDNM, "dps": DPS}
