r"""Noise: how a picture x becomes noise, and when.

A schedule maps a time t in [0, 1] (0 is the picture, 1 the most noise) to the two scales of

    x_t = alpha(t) x + sigma(t) z,    z ~ N(0, I).

Its ratio sigma / alpha rises strictly with t from 0; `time_at` is its inverse. Two more choices stay apart from it:
*training times* turn uniform draws into the times that training sees, *sampling times* are the falling times that a
sampler visits. All scales are computed in float64 and returned in the dtype of t.
"""

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.errors import UserError


def per_picture(scale: Tensor, x: Tensor) -> Tensor:
    """View a scale of shape (B,) or () so that it multiplies pictures x of shape (B, C, H, W), as they are kept."""
    return scale.to(x).reshape(-1, *[1] * (x.ndim - 1))


class Schedule(ABC):
    """alpha(t) and sigma(t) for t in [0, 1]."""

    @property
    def steps(self) -> int | None:
        """T where training knows T discrete levels, the k-th (from 0) at t = (k + 1) / T; None if continuous."""
        return None

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the picture; any shape in, the same out."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Scale of the noise; any shape in, the same out."""

    @abstractmethod
    def time_at(self, ratio: Tensor) -> Tensor:
        """The time at which sigma / alpha is `ratio` (>= 0); ratios beyond the schedule's end give 1."""

    def ratio(self, t: Tensor) -> Tensor:
        """sigma / alpha: the noise level that Karras et al. call sigma."""
        return self.sigma(t) / self.alpha(t)

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2): +inf at the picture."""
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


@dataclass(frozen=True)
class LinearSchedule(Schedule):
    """DDPM's linear betas (Ho et al. 2020, section 4), for any number of steps, never rescaled.

    alpha_bar is the running product of 1 - beta; alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar). Step k of T
    (from 0) is t = (k + 1) / T; between steps alpha is linear in t. Few steps end short of pure noise (alpha = 0.219
    for T = 300); `zero_terminal_snr` shifts and stretches alpha so that the last step is pure noise and the first stays
    (Lin et al. 2024, algorithm 1). The noise target can't be learned there: take velocity or picture.
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
    def steps(self) -> int | None:
        return self.timesteps

    def _alphas(self, like: Tensor) -> Tensor:
        return _linear_alphas(self.timesteps, self.beta_start, self.beta_end, self.zero_terminal_snr).to(like.device)

    def _alpha(self, t: Tensor) -> Tensor:
        table, position = self._alphas(t), t.double() * self.timesteps
        # An integer step that went through float32 is still that step, so its value comes from the table itself.
        whole = position.round()
        position = torch.where(((position - whole).abs() < 1e-4) & (whole > 0), whole, position)
        k = position.floor().clamp(0, self.timesteps - 1).long()
        return torch.lerp(table[k], table[k + 1], position - k)

    def alpha(self, t: Tensor) -> Tensor:
        return self._alpha(t).to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        alpha = self._alpha(t)
        return torch.sqrt((1 - alpha) * (1 + alpha)).to(t.dtype)

    def time_at(self, ratio: Tensor) -> Tensor:
        falling = self._alphas(ratio)
        alpha = (1 + ratio.double().square()).rsqrt().contiguous()  # since ratio^2 = (1 - alpha^2) / alpha^2
        k = (torch.searchsorted(-falling, -alpha) - 1).clamp(0, self.timesteps - 1)
        t = (k + (falling[k] - alpha) / (falling[k] - falling[k + 1])) / self.timesteps
        return t.clamp(0, 1).to(ratio.dtype)


@dataclass(frozen=True)
class CosineSchedule(Schedule):
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
        return (torch.cos(torch.lerp(*_pair(start, end, t), t.double())) / math.cos(start)).to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        start, end = self._angles
        angle = torch.lerp(*_pair(start, end, t), t.double())
        # 1 - cos^2(a)/cos^2(b) = sin(a - b) sin(a + b) / cos^2(b): exact near t = 0, where 1 - alpha^2 would cancel.
        return (torch.sqrt(torch.sin(angle - start) * torch.sin(angle + start)) / math.cos(start)).to(t.dtype)

    def time_at(self, ratio: Tensor) -> Tensor:
        start, end = self._angles
        angle = torch.acos(math.cos(start) / torch.sqrt(1 + ratio.double().square()))
        return ((angle - start) / (end - start)).clamp(0, 1).to(ratio.dtype)


def _pair(start: float, end: float, like: Tensor) -> tuple[Tensor, Tensor]:
    full = torch.zeros_like(like, dtype=torch.float64)
    return full + start, full + end


@dataclass(frozen=True)
class KarrasSchedule(Schedule):
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
class FlowSchedule(Schedule):
    """Rectified flow (Liu et al. 2022; Lipman et al. 2022): the straight line alpha = 1 - t, sigma = t."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t.clone()

    def time_at(self, ratio: Tensor) -> Tensor:
        return torch.where(torch.isinf(ratio), torch.ones_like(ratio), ratio / (1 + ratio))


SCHEDULES: dict[str, type[Schedule]] = {
    "linear": LinearSchedule,
    "cosine": CosineSchedule,
    "karras": KarrasSchedule,
    "flow": FlowSchedule,
}


def add_noise(schedule: Schedule, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """q(x_t | x): alpha(t) x + sigma(t) noise.

    x and noise are (B, C, H, W), t is (B,) or () in [0, 1]. Ho et al. 2020, equation 4.
    """
    return per_picture(schedule.alpha(t), x) * x + per_picture(schedule.sigma(t), x) * noise


class TrainingTimes(ABC):
    """Which times training sees."""

    @abstractmethod
    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Uniform draws u in (0, 1), shape (B,), to times in [0, 1], shape (B,)."""


@dataclass(frozen=True)
class UniformTimes(TrainingTimes):
    """t uniform in (0, 1)."""

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        return u


@dataclass(frozen=True)
class DiscreteTimes(TrainingTimes):
    """One of the schedule's T steps, each equally likely: t = 1/T, 2/T, ..., 1 (Ho et al. 2020, algorithm 1)."""

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        if schedule.steps is None:
            raise UserError("discrete training times need a schedule with steps: choose schedule linear, "
                            "or training times uniform")  # fmt: skip
        return ((u * schedule.steps).floor().clamp(max=schedule.steps - 1) + 1) / schedule.steps


@dataclass(frozen=True)
class LogNormalTimes(TrainingTimes):
    """log(sigma / alpha) ~ N(mean, std^2), the times of EDM (Karras et al. 2022, table 1)."""

    mean: float = -1.2
    std: float = 1.2

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        return schedule.time_at(torch.exp(self.mean + self.std * torch.special.ndtri(u)))


@dataclass(frozen=True)
class LogitNormalTimes(TrainingTimes):
    """logit(t) ~ N(mean, std^2) (Esser et al. 2024, equation 19)."""

    mean: float = 0.0
    std: float = 1.0

    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))


TRAINING_TIMES: dict[str, type[TrainingTimes]] = {
    "uniform": UniformTimes,
    "discrete": DiscreteTimes,
    "log-normal": LogNormalTimes,
    "logit-normal": LogitNormalTimes,
}


def spread_uniform(u: float, batch: int) -> Tensor:
    """One draw u in [0, 1) to `batch` evenly spread draws in (0, 1), each of them uniform by itself.

    The low-discrepancy times of Kingma et al. 2021, appendix I.1: less variance in the loss at no cost. (B,) float32.
    """
    draws = (u + torch.arange(batch, dtype=torch.float64) / batch) % 1
    return draws.float().clamp(1e-6, 1 - 1e-6)


class SamplingTimes(ABC):
    """Which times a sampler visits."""

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """`steps + 1` strictly falling float64 times: the first is 1 (the last training time), the last is 0."""
        if steps < 1:
            raise UserError(f"sampling needs at least 1 step, not {steps}")
        if schedule.steps is not None and steps > schedule.steps:
            raise UserError(f"sampling in {steps} steps is more than the schedule's {schedule.steps}: "
                            f"choose at most {schedule.steps}")  # fmt: skip
        return torch.cat([self._levels(schedule, steps), torch.zeros(1, dtype=torch.float64)])

    def below(self, begin: float, schedule: Schedule, steps: int) -> Tensor:
        """From `begin` in (0, 1] to 0 with the same spacing, made finer so that `steps` steps remain.

        Fewer remain where a schedule with steps has no more below `begin`.
        """
        finest = schedule.steps or 10**6
        parts = steps
        while True:
            times = self(schedule, parts)
            rest = times[times < begin * (1 - 1e-9)]
            if len(rest) >= steps or parts == finest:
                return torch.cat([times.new_tensor([begin]), rest[-steps:]])
            parts = min(finest, max(parts + 1, parts * steps // len(rest)))

    @abstractmethod
    def _levels(self, schedule: Schedule, steps: int) -> Tensor:
        """The `steps` times above 0."""


@dataclass(frozen=True)
class UniformSteps(SamplingTimes):
    """Evenly spaced from the last training step to the first (`linspace` of Lin et al. 2024, table 2).

    On a continuous schedule: evenly spaced from 1 to 0.
    """

    def _levels(self, schedule: Schedule, steps: int) -> Tensor:
        if schedule.steps is None:
            return _falling(steps)
        last = schedule.steps - 1
        index = torch.linspace(last, 0, steps, dtype=torch.float64).round()
        return (index + 1) / schedule.steps


@dataclass(frozen=True)
class TrailingSteps(SamplingTimes):
    """Every T/n-th step counted from the end (`trailing` of Lin et al. 2024, table 2)."""

    def _levels(self, schedule: Schedule, steps: int) -> Tensor:
        t = _falling(steps)
        return t if schedule.steps is None else (t * schedule.steps).round() / schedule.steps


def _falling(steps: int) -> Tensor:
    return 1 - torch.arange(steps, dtype=torch.float64) / steps


@dataclass(frozen=True)
class KarrasSteps(SamplingTimes):
    """Noise levels evenly spaced in sigma^(1/rho) (Karras et al. 2022, equation 5), on any schedule.

    From the schedule's largest sigma / alpha (at most `sigma_max`, where the schedule ends in pure noise) down to
    `sigma_min` or, on a schedule with steps, its first step.
    """

    rho: float = 7.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not (self.rho > 0 and 0 < self.sigma_min < self.sigma_max):
            raise UserError(f"Karras times need rho > 0 and 0 < sigma_min < sigma_max, not {self.rho}, {self.sigma_min}, "
                            f"{self.sigma_max}")  # fmt: skip

    def _levels(self, schedule: Schedule, steps: int) -> Tensor:
        top, bottom = _ends(schedule, self.sigma_min, self.sigma_max)
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        ratios = torch.lerp(top ** (1 / self.rho), bottom ** (1 / self.rho), ramp) ** self.rho
        return torch.cat([torch.ones(1, dtype=torch.float64), schedule.time_at(ratios)[1:]])


@dataclass(frozen=True)
class LeadingSteps(SamplingTimes):
    """Every T/n-th step counted from the first (`leading` of Lin et al. 2024, table 2), but that the last one is T itself.

    Without that, sampling would begin where less noise is expected than there is. A continuous schedule counts as T = 1000.
    """

    def _levels(self, schedule: Schedule, steps: int) -> Tensor:
        last = schedule.steps or max(1000, steps)
        index = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (last // steps)
        index[0] = last - 1
        return (index + 1) / last


@dataclass(frozen=True)
class LogSnrSteps(SamplingTimes):
    """Noise levels evenly spaced in log(sigma / alpha) (Lu et al. 2022, section 3.4), between the ends of `KarrasSteps`."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise UserError(f"log-snr times need 0 < sigma_min < sigma_max, not {self.sigma_min}, {self.sigma_max}")

    def _levels(self, schedule: Schedule, steps: int) -> Tensor:
        top, bottom = _ends(schedule, self.sigma_min, self.sigma_max)
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        ratios = torch.exp(torch.lerp(top.log(), bottom.log(), ramp))
        return torch.cat([torch.ones(1, dtype=torch.float64), schedule.time_at(ratios)[1:]])


def _ends(schedule: Schedule, sigma_min: float, sigma_max: float) -> tuple[Tensor, Tensor]:
    """The largest noise level to visit and the smallest above 0, each () float64."""
    one = torch.ones((), dtype=torch.float64)
    top = schedule.ratio(one).clamp(max=sigma_max)
    first = torch.zeros_like(one) if schedule.steps is None else schedule.ratio(one / schedule.steps)
    return top, torch.minimum(first.clamp(min=sigma_min), top / 10)


SAMPLING_TIMES: dict[str, type[SamplingTimes]] = {
    "uniform": UniformSteps,
    "leading": LeadingSteps,
    "log-snr": LogSnrSteps,
    "trailing": TrailingSteps,
    "karras": KarrasSteps,
}
