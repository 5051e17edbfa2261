"""Timesteps: two choices that stay apart from the schedule.

*Training times* turn uniform random numbers into the times of a training batch; *sampling times* are the decreasing times that a
sampler steps through.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.diffusion.schedules import Schedule
from unnoise.utils.errors import UserError


class TrainingTimes(ABC):
    """The distribution of the times that training sees."""

    @abstractmethod
    def __call__(self, u: Tensor, schedule: Schedule) -> Tensor:
        """u (B,), uniform in (0, 1), to times (B,) in [0, 1]."""


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


def stratified_uniform(u: float, batch: int) -> Tensor:
    """One u in [0, 1) to `batch` evenly spaced numbers in (0, 1), each of them uniform by itself. (B,) float32.

    The low-discrepancy times of Kingma et al. 2021, appendix I.1: less variance of the loss at no cost.
    """
    values = (u + torch.arange(batch, dtype=torch.float64) / batch) % 1
    return values.float().clamp(1e-6, 1 - 1e-6)


class SamplingTimes(ABC):
    """The times that a sampler steps through."""

    @property
    def max_steps(self) -> int | None:
        """The most steps that these times can have, None where any number."""
        return None

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """`steps + 1` strictly decreasing float64 times: the first is 1 (the last training time), the last is 0."""
        if steps < 1:
            raise UserError(f"sampling needs at least 1 step, not {steps}")
        if schedule.steps is not None and steps > schedule.steps:
            raise UserError(f"sampling in {steps} steps is more than the schedule's {schedule.steps}: "
                            f"choose at most {schedule.steps}")  # fmt: skip
        return torch.cat([self.levels(schedule, steps), torch.zeros(1, dtype=torch.float64)])

    def below(self, begin: float, schedule: Schedule, steps: int) -> Tensor:
        """From `begin` in (0, 1] to 0 with the same spacing, made finer so that `steps` steps remain.

        Fewer remain where a schedule with steps has no more below `begin`.
        """
        finest = schedule.steps or 10**6
        fine = steps
        while True:
            times = self(schedule, fine)
            rest = times[times < begin * (1 - 1e-9)]
            if len(rest) >= steps or fine == finest:
                return torch.cat([times.new_tensor([begin]), rest[-steps:]])
            fine = min(finest, max(fine + 1, fine * steps // len(rest)))

    def part_way(self, fraction: float, schedule: Schedule) -> float:
        """The time below which lies this fraction, in (0, 1], of the times."""
        finest = min(1000, schedule.steps or 1000)
        return float(self(schedule, finest)[finest - max(1, round(fraction * finest))])

    @abstractmethod
    def levels(self, schedule: Schedule, steps: int) -> Tensor:
        """The `steps` strictly decreasing times above 0, the first of them 1, float64."""


@dataclass(frozen=True)
class UniformSteps(SamplingTimes):
    """Evenly spaced from the last training step to the first (`linspace` of Lin et al. 2024, table 2).

    On a continuous schedule: evenly spaced from 1 to 0.
    """

    def levels(self, schedule: Schedule, steps: int) -> Tensor:
        if schedule.steps is None:
            return _decreasing(steps)
        last = schedule.steps - 1
        index = torch.linspace(last, 0, steps, dtype=torch.float64).round()
        return (index + 1) / schedule.steps


@dataclass(frozen=True)
class TrailingSteps(SamplingTimes):
    """Every T/n-th step counted from the end (`trailing` of Lin et al. 2024, table 2)."""

    def levels(self, schedule: Schedule, steps: int) -> Tensor:
        t = _decreasing(steps)
        return t if schedule.steps is None else (t * schedule.steps).round() / schedule.steps


def _decreasing(steps: int) -> Tensor:
    return 1 - torch.arange(steps, dtype=torch.float64) / steps


@dataclass(frozen=True)
class KarrasSteps(SamplingTimes):
    """Noise levels evenly spaced in sigma^(1/rho) (Karras et al. 2022, equation 5), on any schedule.

    From the schedule's largest sigma / alpha (at most `sigma_max`, where the schedule ends in pure noise) towards `sigma_min` or,
    on a schedule with steps, its first step. N steps visit the first N of N + 1 levels and go to 0 instead of the last: a step
    from `sigma_min` to 0 would change nothing, which few steps can't afford.
    """

    rho: float = 7.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not (self.rho > 0 and 0 < self.sigma_min < self.sigma_max):
            raise UserError(f"Karras times need rho > 0 and 0 < sigma_min < sigma_max, not {self.rho}, {self.sigma_min}, "
                            f"{self.sigma_max}")  # fmt: skip

    def levels(self, schedule: Schedule, steps: int) -> Tensor:
        top, bottom = _ends(schedule, self.sigma_min, self.sigma_max)
        ratios = torch.lerp(top ** (1 / self.rho), bottom ** (1 / self.rho), 1 - _decreasing(steps)) ** self.rho
        return torch.cat([torch.ones(1, dtype=torch.float64), schedule.time_at(ratios)[1:]])


@dataclass(frozen=True)
class LeadingSteps(SamplingTimes):
    """Every T/n-th step counted from the first (`leading` of Lin et al. 2024, table 2), but that the last one is T itself.

    Without that, sampling would begin where less noise is expected than there is. A continuous schedule counts as T = 1000.
    """

    def levels(self, schedule: Schedule, steps: int) -> Tensor:
        last = schedule.steps or max(1000, steps)
        index = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (last // steps)
        index[0] = last - 1
        return (index + 1) / last


@dataclass(frozen=True)
class LogSnrSteps(SamplingTimes):
    """Noise levels evenly spaced in log(sigma / alpha) (Lu et al. 2022, section 3.4), from and towards those of `KarrasSteps`."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise UserError(f"log-snr times need 0 < sigma_min < sigma_max, not {self.sigma_min}, {self.sigma_max}")

    def levels(self, schedule: Schedule, steps: int) -> Tensor:
        top, bottom = _ends(schedule, self.sigma_min, self.sigma_max)
        ratios = torch.exp(torch.lerp(top.log(), bottom.log(), 1 - _decreasing(steps)))
        return torch.cat([torch.ones(1, dtype=torch.float64), schedule.time_at(ratios)[1:]])


@dataclass(frozen=True)
class GivenSteps(SamplingTimes):
    """Noise levels sigma / alpha for few steps, the most useful first: n steps visit t = 1 and the first n - 1 of `ratios`."""

    ratios: tuple[float, ...] = (0.8, 0.3, 1.6)

    def __post_init__(self) -> None:
        if not all(0 < ratio < math.inf for ratio in self.ratios) or len(set(self.ratios)) < len(self.ratios):
            raise UserError(f"given times need ratios above 0, each once, not {list(self.ratios)}")

    @property
    def max_steps(self) -> int:
        return len(self.ratios) + 1

    def levels(self, schedule: Schedule, steps: int) -> Tensor:
        if steps > self.max_steps:
            raise UserError(f"these sampling.times are for at most {self.max_steps} steps, not {steps}: "
                            "choose fewer, or sampling.times log-snr")  # fmt: skip
        falling = torch.tensor(sorted(self.ratios[: steps - 1], reverse=True), dtype=torch.float64)
        return torch.cat([torch.ones(1, dtype=torch.float64), schedule.time_at(falling)])

    def below(self, begin: float, schedule: Schedule, steps: int) -> Tensor:
        """From `begin` to 0 by way of those of the `steps` times that lie below it."""
        times = self(schedule, steps)
        return torch.cat([times.new_tensor([begin]), times[times < begin * (1 - 1e-9)]])

    def part_way(self, fraction: float, schedule: Schedule) -> float:
        """As of `LogSnrSteps`: there are too few times."""
        return LogSnrSteps().part_way(fraction, schedule)


def _ends(schedule: Schedule, sigma_min: float, sigma_max: float) -> tuple[Tensor, Tensor]:
    """The largest noise level to visit and the one to go towards, each () float64."""
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
    "given": GivenSteps,
}
