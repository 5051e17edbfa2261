r"""Samplers: from noise to a picture, by way of a denoiser.

    z_hat = (x_t - alpha_t x_hat) / sigma_t                        the noise that an estimate implies
    lambda_t = log(alpha_t / sigma_t)                              half the log signal-to-noise ratio

A sampler takes one step from time t to an earlier time s. `trajectory` runs it and yields a record a step; `sample`
keeps the last. Scales are float64; pictures stay in their own dtype. Memory does not depend on the number of steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.draws import PictureNoise
from unnoise.errors import UserError, nearest
from unnoise.gaussian import Moments
from unnoise.noise import SamplingTimes, TrailingSteps

State = Any  # what a multistep method remembers between steps; None at the first


class Sampler(ABC):
    """One step of a method."""

    @abstractmethod
    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, noise: PictureNoise,
        label: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, State]:  # fmt: skip
        """From x_t (B, C, H, W) at time t to time s < t, both () float64: gives (x_s, x_hat at t, state)."""


@dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling with the posterior's own variance (Ho et al. 2020, equations 6 and 7), between any two times.

    `clamp` cuts the sample itself to [-1, 1] after each step, as the notebook does.
    """

    clamp: bool = False

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, noise: PictureNoise,
        label: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, State]:  # fmt: skip
        x_hat = denoiser(x_t, t, label)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = _scales(denoiser, t), _scales(denoiser, s)
        kept = (alpha_t * sigma_s / (alpha_s * sigma_t)).square()  # 1 - beta, seen as a share of the noise's variance
        x_s = alpha_s * (1 - kept) * x_hat + alpha_s / alpha_t * kept * x_t if alpha_t > 0 else alpha_s * x_hat
        if s > 0:
            x_s = x_s + sigma_s * (1 - kept).sqrt() * noise.normal_like(x_t)
        return x_s.clamp(-1, 1) if self.clamp else x_s, x_hat, None


@dataclass(frozen=True)
class DDIM(Sampler):
    """Deterministic at eta = 0, DDPM's variance at eta = 1 (Song et al. 2021, equations 12 and 16)."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise UserError(f"DDIM's eta must be between 0 and 1, not {self.eta}")

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, noise: PictureNoise,
        label: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, State]:  # fmt: skip
        x_hat = denoiser(x_t, t, label)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = _scales(denoiser, t), _scales(denoiser, s)
        z_hat = (x_t - alpha_t * x_hat) / sigma_t
        if self.eta == 0:
            return alpha_s * x_hat + sigma_s * z_hat, x_hat, None
        fresh = self.eta * sigma_s * (1 - (alpha_t * sigma_s / (alpha_s * sigma_t)).square()).sqrt()  # equation 16
        x_s = alpha_s * x_hat + (sigma_s.square() - fresh.square()).clamp(min=0).sqrt() * z_hat
        return x_s + fresh * noise.normal_like(x_t) if s > 0 else x_s, x_hat, None


@dataclass(frozen=True)
class Heun(Sampler):
    """Heun's method on dy/dsigma = (y - x_hat) / sigma, y = x / alpha (Karras et al. 2022, algorithm 1).

    Two network calls a step, one in the last.
    """

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, noise: PictureNoise,
        label: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, State]:  # fmt: skip
        x_hat = denoiser(x_t, t, label)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = _scales(denoiser, t), _scales(denoiser, s)
        z_t = (x_t - alpha_t * x_hat) / sigma_t
        x_s = alpha_s * x_hat + sigma_s * z_t
        # Where alpha is 0 there is no y to average in: the first step from pure noise is Euler's.
        if sigma_s == 0 or alpha_t == 0:
            return x_s, x_hat, None
        z_s = (x_s - alpha_s * denoiser(x_s, s, label)) / sigma_s
        ratio_t, ratio_s = sigma_t / alpha_t, sigma_s / alpha_s
        return alpha_s * (x_t / alpha_t + (ratio_s - ratio_t) * (z_t + z_s) / 2), x_hat, None


@dataclass(frozen=True)
class DPMSolver2M(Sampler):
    """DPM-Solver++(2M): second order from the step before (Lu et al. 2022, algorithm 2).

    First order in the first step, and in the last, where lambda is infinite.
    """

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, noise: PictureNoise,
        label: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, State]:  # fmt: skip
        x_hat = denoiser(x_t, t, label)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = _scales(denoiser, t), _scales(denoiser, s)
        lambda_t, lambda_s = torch.log(alpha_t / sigma_t), torch.log(alpha_s / sigma_s)
        h, estimate = lambda_s - lambda_t, x_hat
        if state is not None and sigma_s > 0:
            before, lambda_before = state
            r = (lambda_t - lambda_before) / h
            estimate = (1 + 1 / (2 * r)) * x_hat - 1 / (2 * r) * before
        x_s = sigma_s / sigma_t * x_t - alpha_s * torch.expm1(-h) * estimate
        return x_s, x_hat, (x_hat, lambda_t) if torch.isfinite(lambda_t) else None


SAMPLERS: dict[str, type[Sampler]] = {"ddpm": DDPM, "ddim": DDIM, "heun": Heun, "dpm++2m": DPMSolver2M}


def _scales(denoiser: Denoiser, t: Tensor) -> tuple[Tensor, Tensor]:
    return denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)


class ClampedEstimate(Denoiser):
    """A denoiser whose estimate is cut to [-1, 1]: samplers derive the noise from the estimate, so it stays consistent."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        x_hat: Tensor = self.denoiser(x_t, t, label)
        return x_hat.clamp(-1, 1)


STARTS = ("noise", "data")


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn: a sampler, the times it visits, how many steps, and whether estimates are clamped.

    `start` is what stands at t = 1 for the picture that noise hides: nothing (`noise`), or a draw from the Gaussian with
    the training pictures' mean and covariance (`data`), for schedules that end short of pure noise.
    """

    sampler: Sampler = field(default_factory=DPMSolver2M)
    times: SamplingTimes = field(default_factory=TrailingSteps)
    steps: int = 20
    clamp_estimate: bool = True
    start: str = "noise"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"sampling steps must be at least 1, not {self.steps}")
        if self.start not in STARTS:
            raise UserError(f"unknown start '{self.start}': {nearest(self.start, STARTS)}")


@dataclass(frozen=True)
class SamplingRecord:
    """One step of a trajectory: x after the step, at time t; x_hat is the estimate that the step used."""

    step: int
    steps: int
    t: float
    x: Tensor
    x_hat: Tensor


@torch.no_grad()
def trajectory(
    denoiser: Denoiser, x: Tensor, sampling: Sampling, noise: PictureNoise, label: Tensor | None = None, begin: float = 1.0
) -> Iterator[SamplingRecord]:
    """Run a sampler from x (B, C, H, W) at t = `begin` down to t = 0, yielding a record after each of its steps."""
    if sampling.clamp_estimate:
        denoiser = ClampedEstimate(denoiser)
    times = sampling.times.below(begin, denoiser.schedule, sampling.steps)  # on the CPU, where asking costs no waiting
    steps, state = len(times) - 1, None
    for k in range(steps):
        x, x_hat, state = sampling.sampler.step(denoiser, x, times[k], times[k + 1], state, noise, label)
        yield SamplingRecord(k + 1, steps, float(times[k + 1]), x, x_hat)


def starting_point(
    denoiser: Denoiser, noise: PictureNoise, like: Tensor, start: str = "noise", moments: Moments | None = None
) -> Tensor:
    """x at t = 1, in the shape of `like` (B, C, H, W).

    Start `noise` has no picture in it: N(0, alpha(1)^2 + sigma(1)^2), the spread of noised pictures of unit variance;
    so N(0, I) on every variance-preserving schedule, also where training ends short of pure noise. Start `data` is
    alpha(1) x + sigma(1) z with x from the Gaussian of `moments`: what training saw at t = 1, up to second moments.
    """
    one = torch.ones((), dtype=torch.float64)
    alpha, sigma = _scales(denoiser, one)
    if start == "noise":
        return torch.hypot(alpha, sigma) * noise.normal_like(like)
    if moments is None:
        raise UserError("sampling.start data needs the training pictures' mean and covariance, which this model lacks: "
                        "choose sampling.start noise")  # fmt: skip
    return alpha * moments.draw(noise, like) + sigma * noise.normal_like(like)


def sample(
    denoiser: Denoiser,
    shape: tuple[int, int, int],
    numbers: Sequence[int],
    sampling: Sampling | None = None,
    seed: int = 0,
    label: Tensor | None = None,
    device: torch.device | str = "cpu",
    moments: Moments | None = None,
) -> Tensor:
    """Draw the pictures with these numbers: (len(numbers), C, H, W) in [-1, 1]. Picture n depends on (seed, n) alone.

    `shape` is (C, H, W); `label` is (B,) classes or None; `moments` are needed to start from the data. The denoiser is
    used as it is: call `.eval()` first.
    """
    sampling = sampling or Sampling()
    noise = PictureNoise(seed, numbers)
    like = torch.empty(len(numbers), *shape, device=device)
    x = starting_point(denoiser, noise, like, sampling.start, moments)
    for record in trajectory(denoiser, x, sampling, noise, label):
        x = record.x
    return x.clamp(-1, 1)
