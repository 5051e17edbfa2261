r"""The clean picture behind what is seen of it, y = A(x) + n, n ~ N(0, Sigma).

Noise alone is a special case: alpha y is a noised picture of the diffusion, at the time at which sigma_t / alpha_t is the
noise's, found between discrete steps too; one call of the denoiser there is E[x | y].

For all else the denoiser of p(x) becomes one of p(x | y), and every sampler draws from it:

    E[x | x_t, y] = x_hat + V A^T (Sigma + A V A^T)^-1 (y - A x_hat)          if p(x | x_t) is N(x_hat, V)

V is sigma_t^2 / alpha_t times the Jacobian of x_hat in x_t (Tweedie's second formula), or a multiple of the identity.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.draws import PictureNoise
from unnoise.errors import UserError
from unnoise.noise import Schedule
from unnoise.restore.operators import Operator, Several
from unnoise.sampler import Sampling, trajectory

Linear = Callable[[Tensor], Tensor]


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


@dataclass(frozen=True)
class Observation:
    """y, how it came about, and the variance of the noise in it: one number, or one for each value of y."""

    y: Tensor
    operator: Operator
    variance: Tensor

    def repeated(self, count: int) -> "Observation":
        """The same `count` times in a row."""
        y, variance = (
            v.expand_as(self.y).repeat(count, *[1] * (self.y.ndim - 1)) if v.ndim else v for v in (self.y, self.variance)
        )
        return Observation(y, Several(self.operator, count), variance)


class Posterior(ABC):
    """A way to turn the denoiser of p(x) into one of p(x | y)."""

    calibrated: ClassVar[bool] = False  # whether the spread of its samples is that of p(x | y), nearly
    linear_only: ClassVar[bool] = True

    @abstractmethod
    def estimate(self, denoiser: Denoiser, seen: Observation, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """E[x | x_t, y], (B, C, H, W)."""

    def wrap(self, denoiser: Denoiser, seen: Observation) -> "Conditioned":
        """The denoiser of p(x | y). Raises UserError for an operator that it can't do."""
        if self.linear_only and not seen.operator.linear:
            raise UserError("this method is for linear operators: choose dps")
        return Conditioned(denoiser, seen, self)


class Conditioned(Denoiser):
    """A denoiser that knows what is seen of the picture."""

    def __init__(self, denoiser: Denoiser, seen: Observation, how: Posterior) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.seen, self.how = denoiser, denoiser.schedule, seen, how

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.how.estimate(self.denoiser, self.seen, x_t, t, label)


def conjugate_gradients(matrix: Linear, b: Tensor, rounds: int) -> Tensor:
    """u with matrix(u) = b, nearly, for a symmetric positive matrix, each picture of b (B, ...) by itself.

    Hestenes & Stiefel 1952. Where products are inexact, as with a network's Jacobian, many rounds would follow their error.
    """
    u, r = torch.zeros_like(b), b
    p, norm = r, _dot(r, r)
    for _ in range(rounds):
        product = matrix(p)
        step = norm / _dot(p, product).clamp(min=1e-30)
        u, r = u + step * p, r - step * product
        before, norm = norm, _dot(r, r)
        p = r + norm / before.clamp(min=1e-30) * p
    return u


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(B, ...) x (B, ...) -> (B, 1, ...)."""
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))


@dataclass(frozen=True)
class MMPS(Posterior):
    """Moment matching posterior sampling (Rozet et al. 2024, equations 15 to 18): V from the denoiser's own Jacobian.

    `rounds` of conjugate gradients, each a vector-Jacobian product of the network: about a step of training.
    """

    calibrated: ClassVar[bool] = True
    rounds: int = 2

    def estimate(self, denoiser: Denoiser, seen: Observation, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        a, scale = seen.operator, (sigma.square() / alpha).to(x_t)
        if alpha == 0:  # pure noise says nothing of the picture, and V is not finite
            return Isotropic().estimate(denoiser, seen, x_t, t, label)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_hat = denoiser(x_t, t, label)

        def v_at(u: Tensor) -> Tensor:
            """V A^T u"""
            (product,) = torch.autograd.grad(x_hat, x_t, a.adjoint(u, x_t), retain_graph=True)
            return scale * product

        # Solved for u / w: where some values are far less noisy than others, a few rounds would see those alone.
        w = (seen.variance + Isotropic().variance(alpha, sigma).to(x_t)).rsqrt()
        b = seen.y - a(x_hat.detach())
        u = w * conjugate_gradients(lambda u: w * (seen.variance * w * u + a(v_at(w * u))), w * b, self.rounds)
        out: Tensor = x_hat.detach() + v_at(u)
        return out


@dataclass(frozen=True)
class Isotropic(Posterior):
    """V = s^2 sigma^2 / (alpha^2 s^2 + sigma^2), as if pixels were independent and of spread s.

    The covariance of PiGDM (Song et al. 2023), whose step takes the network's gradient too; none is needed here.
    """

    spread: float = 0.5
    rounds: int = 10

    def variance(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (self.spread * sigma).square() / ((self.spread * alpha).square() + sigma.square())

    @torch.no_grad()
    def estimate(self, denoiser: Denoiser, seen: Observation, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        a, x_hat = seen.operator, denoiser(x_t, t, label)
        v = self.variance(denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)).to(x_t)
        noise = seen.variance.clamp(min=1e-6 * v)  # without any, the answer is of least change
        u = conjugate_gradients(lambda u: noise * u + v * a(a.adjoint(u, x_hat)), seen.y - a(x_hat), self.rounds)
        out: Tensor = x_hat + v * a.adjoint(u, x_hat)
        return out


@dataclass(frozen=True)
class DiffPIR(Isotropic):
    """The nearest picture to the estimate that explains y (Zhu et al. 2023, equation 12): V = (sigma / alpha)^2 / strength."""

    strength: float = 7.0

    def variance(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (sigma / alpha).square().clamp(max=1e4) / self.strength


@dataclass(frozen=True)
class DDNM(Isotropic):
    """The estimate with its seen part replaced by y (Wang et al. 2023, equation 13): for pictures without noise."""

    rounds: int = 30

    def variance(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.full_like(sigma, 1e4)


@dataclass(frozen=True)
class DPS(Posterior):
    """A step down the gradient of |y - A(x_hat)|^2 (Chung et al. 2023, algorithm 1), weighted as if pixels were independent.

    For operators that are not linear. Experimental: `scale` may need a value of its own for each task.
    """

    linear_only: ClassVar[bool] = False
    scale: float = 1.0
    spread: float = 0.5

    def estimate(self, denoiser: Denoiser, seen: Observation, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        v = Isotropic(self.spread).variance(alpha, sigma).to(x_t)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_hat = denoiser(x_t, t, label)
            wrong = ((seen.y - seen.operator(x_hat)).square() / (seen.variance + v)).sum() / 2
        (gradient,) = torch.autograd.grad(wrong, x_t)
        weight = self.scale * sigma.square() / alpha.clamp(min=1e-3)
        out: Tensor = x_hat.detach() - weight.to(x_t) * gradient
        return out


POSTERIORS: dict[str, type[Posterior]] = {"mmps": MMPS, "isotropic": Isotropic, "diffpir": DiffPIR, "ddnm": DDNM, "dps": DPS}
