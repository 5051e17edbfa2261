r"""Noise schedules and the forward process q(x_t | x).

A schedule maps a time t in [0, 1] (0 is the image, 1 the most noise) to the two scales of

    x_t = alpha(t) x + sigma(t) eps,    eps ~ N(0, I).

The ratio sigma / alpha rises strictly with t from 0; `time_at` is its inverse. All scales are computed in float64 and
returned in the dtype of t; on a device without float64 (Apple's GPU), where training computes them, in float32.
"""

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unnoise.utils.errors import UserError
from unnoise.utils.precision import exact


def per_image(scale: Tensor, x: Tensor) -> Tensor:
    """A scale of shape (B,) or () in the dtype and device of x (B, C, H, W), shaped to multiply it."""
    return scale.to(x).reshape(-1, *[1] * (x.ndim - 1))


class Time(NamedTuple):
    """A time with its scales, each () float64."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor

    @property
    def ratio(self) -> Tensor:
        """sigma / alpha."""
        return self.sigma / self.alpha

    @property
    def lam(self) -> Tensor:
        """lambda = log(alpha / sigma): +inf at the image, -inf at pure noise."""
        return torch.log(self.alpha / self.sigma)

    def mix(self, x: Tensor, eps: Tensor) -> Tensor:
        """alpha x + sigma eps."""
        return self.alpha * x + self.sigma * eps


class Schedule(ABC):
    """alpha(t) and sigma(t) for t in [0, 1]. A schedule of one's own needs these two alone."""

    @property
    def steps(self) -> int | None:
        """T where training knows T discrete levels, the k-th (from 0) at t = (k + 1) / T; None if continuous."""
        return None

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the image; any shape in, the same out."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Scale of the noise; any shape in, the same out."""

    def at(self, t: Tensor) -> Time:
        """A time with its scales, for samplers; t is () float64."""
        return Time(t, self.alpha(t), self.sigma(t))

    def time_at(self, ratio: Tensor) -> Tensor:
        """The time at which sigma / alpha is `ratio` (>= 0), any shape; ratios beyond the schedule's end give 1.

        By bisection to 2^-52 in float64; a schedule with a closed form overrides it.
        """
        target = exact(ratio)
        low, high = torch.zeros_like(target), torch.ones_like(target)
        for _ in range(52):
            middle = (low + high) / 2
            below = self.ratio(middle) < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return high.to(ratio.dtype)

    def ratio(self, t: Tensor) -> Tensor:
        """sigma / alpha: the noise level that Karras et al. call sigma."""
        return self.sigma(t) / self.alpha(t)

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2): +inf at the image."""
        return -2 * torch.log(self.ratio(t))


@functools.lru_cache(maxsize=64)
def _linear_alphas(steps: int, beta_start: float, beta_end: float, zero_terminal_snr: bool) -> Tensor:
    """alpha after 0, 1, ..., T steps: (T + 1,) float64, falling from 1."""
    betas = torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)
    alphas = torch.exp(torch.log1p(-betas).cumsum(0) / 2)
    if zero_terminal_snr:
        first, last = alphas[0].clone(), alphas[-1].clone()
        alphas = (alphas - last) * (first / (first - last))
    return torch.cat([torch.ones(1, dtype=torch.float64), alphas])


class Stepwise(Schedule):
    """A schedule of T steps: step k (from 0) is t = (k + 1) / T, between them alpha is linear in t; sigma^2 = 1 - alpha^2."""

    @property
    @abstractmethod
    def table(self) -> Tensor:
        """alpha after 0, 1, ..., T steps: (T + 1,) float64, falling from 1."""

    @property
    def steps(self) -> int | None:
        return len(self.table) - 1

    def _alpha(self, t: Tensor) -> Tensor:
        position = exact(t) * (len(self.table) - 1)
        table = self.table.to(position)
        # An integer step that went through float32 is still that step, so its value comes from the table itself.
        whole = position.round()
        position = torch.where(((position - whole).abs() < 1e-4) & (whole > 0), whole, position)
        k = position.floor().clamp(0, len(table) - 2).long()
        return torch.lerp(table[k], table[k + 1], position - k)

    def alpha(self, t: Tensor) -> Tensor:
        return self._alpha(t).to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        alpha = self._alpha(t)
        return torch.sqrt((1 - alpha) * (1 + alpha)).to(t.dtype)

    def time_at(self, ratio: Tensor) -> Tensor:
        alpha = (1 + exact(ratio).square()).rsqrt().contiguous()  # since ratio^2 = (1 - alpha^2) / alpha^2
        falling = self.table.to(alpha)
        k = (torch.searchsorted(-falling, -alpha) - 1).clamp(0, len(falling) - 2)
        t = (k + (falling[k] - alpha) / (falling[k] - falling[k + 1])) / (len(falling) - 1)
        return t.clamp(0, 1).to(ratio.dtype)


@dataclass(frozen=True)
class Linear(Stepwise):
    """DDPM's linear betas (Ho et al. 2020, section 4), for any number of steps, never rescaled.

    alpha_bar is the running product of 1 - beta; alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar). Few steps end short of
    pure noise (alpha = 0.219 for T = 300); `zero_terminal_snr` shifts and stretches alpha so that the last step is pure noise
    and the first stays (Lin et al. 2024, algorithm 1). Epsilon can't be learned there: choose velocity or x0.
    """

    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    zero_terminal_snr: bool = False

    def __post_init__(self) -> None:
        if self.timesteps < 1 + self.zero_terminal_snr:
            raise UserError(f"a linear schedule needs at least {1 + self.zero_terminal_snr} timesteps, not {self.timesteps}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise UserError(f"betas must satisfy 0 < start <= end < 1, not {self.beta_start}, {self.beta_end}")

    @property
    def table(self) -> Tensor:
        return _linear_alphas(self.timesteps, self.beta_start, self.beta_end, self.zero_terminal_snr)


@functools.lru_cache(maxsize=16)
def _alphas_of(betas: tuple[float, ...]) -> Tensor:
    """alpha after 0, 1, ..., T steps: (T + 1,) float64, falling from 1."""
    kept = (1 - torch.tensor(betas, dtype=torch.float64)).cumprod(0).sqrt()
    return torch.cat([torch.ones(1, dtype=torch.float64), kept])


@dataclass(frozen=True)
class Betas(Stepwise):
    """Any betas, one a step: the schedule of a model from another program (`unnoise import`)."""

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.betas or not all(0 < beta < 1 for beta in self.betas):
            raise UserError("betas must be one or more numbers between 0 and 1")

    @property
    def table(self) -> Tensor:
        return _alphas_of(self.betas)


@dataclass(frozen=True)
class Cosine(Schedule):
    """The cosine schedule (Nichol & Dhariwal 2021, equation 17), in continuous time.

    sqrt(alpha_bar) = cos(angle) / cos(angle_0) with the angle rising linearly from angle_0 = s/(1+s) pi/2 to where
    alpha is `alpha_end`; the paper clips beta near t = 1 for the same purpose: to keep alpha above 0.
    """

    s: float = 0.008
    alpha_end: float = 1e-3

    def __post_init__(self) -> None:
        if self.s < 0 or not 0 < self.alpha_end < 1:
            raise UserError(f"a cosine schedule needs s >= 0 and 0 < alpha_end < 1, not {self.s}, {self.alpha_end}")

    @property
    def _angles(self) -> tuple[float, float]:
        start = self.s / (1 + self.s) * math.pi / 2
        return start, math.acos(self.alpha_end * math.cos(start))

    def alpha(self, t: Tensor) -> Tensor:
        start, end = self._angles
        return (torch.cos(_between(start, end, t)) / math.cos(start)).to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        start, end = self._angles
        angle = _between(start, end, t)
        # 1 - cos^2(a)/cos^2(b) = sin(a - b) sin(a + b) / cos^2(b): exact near t = 0, where 1 - alpha^2 would cancel.
        return (torch.sqrt(torch.sin(angle - start) * torch.sin(angle + start)) / math.cos(start)).to(t.dtype)

    def time_at(self, ratio: Tensor) -> Tensor:
        start, end = self._angles
        angle = torch.acos(math.cos(start) / torch.sqrt(1 + exact(ratio).square()))
        return ((angle - start) / (end - start)).clamp(0, 1).to(ratio.dtype)


def _between(start: float, end: float, t: Tensor) -> Tensor:
    t = exact(t)
    return torch.lerp(torch.full_like(t, start), torch.full_like(t, end), t)


@dataclass(frozen=True)
class Karras(Schedule):
    """EDM's schedule (Karras et al. 2022, table 1): alpha = 1, sigma = sigma_max t."""

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if self.sigma_max <= 0:
            raise UserError(f"a Karras schedule needs sigma_max > 0, not {self.sigma_max}")

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * t

    def time_at(self, ratio: Tensor) -> Tensor:
        return (ratio / self.sigma_max).clamp(0, 1)


@dataclass(frozen=True)
class Flow(Schedule):
    """Rectified flow (Liu et al. 2022; Lipman et al. 2022): the straight line alpha = 1 - t, sigma = t."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t.clone()

    def time_at(self, ratio: Tensor) -> Tensor:
        return torch.where(torch.isinf(ratio), torch.ones_like(ratio), ratio / (1 + ratio))


SCHEDULES: dict[str, type[Schedule]] = {
    "linear": Linear,
    "cosine": Cosine,
    "karras": Karras,
    "flow": Flow,
}


def add_noise(schedule: Schedule, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """q(x_t | x): alpha(t) x + sigma(t) noise.

    x and noise are (B, C, H, W), t is (B,) or () in [0, 1]. Ho et al. 2020, equation 4.
    """
    return per_image(schedule.alpha(t), x) * x + per_image(schedule.sigma(t), x) * noise
