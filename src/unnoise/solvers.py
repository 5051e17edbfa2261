r"""Samplers' steps: from time t to an earlier time s, by way of a denoiser.

    z_hat = (x_t - alpha_t x_hat) / sigma_t                        the noise that an estimate implies
    lambda_t = log(alpha_t / sigma_t)                              half the log signal-to-noise ratio
    y = x / alpha, r = sigma / alpha, dy/dr = (y - x_hat) / r      the probability flow, whatever the schedule

Scales are float64; pictures stay in their own dtype.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.draws import PictureNoise
from unnoise.errors import UserError, nearest

State = Any  # what a multistep method remembers between steps; None at the first
Step = tuple[Tensor, Tensor, State]  # x_s, x_hat at t, and what to remember


class At(NamedTuple):
    """A time with its scales, each () float64."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor

    @property
    def ratio(self) -> Tensor:
        return self.sigma / self.alpha

    @property
    def lam(self) -> Tensor:
        """lambda: +inf at the picture, -inf at pure noise."""
        return torch.log(self.alpha / self.sigma)

    def moved(self, x_hat: Tensor, z_hat: Tensor) -> Tensor:
        """A picture and a noise, put together as they are at this time."""
        return self.alpha * x_hat + self.sigma * z_hat


def at(denoiser: Denoiser, t: Tensor) -> At:
    return At(t, denoiser.schedule.alpha(t), denoiser.schedule.sigma(t))


class Sampler(ABC):
    """One step of a method."""

    @abstractmethod
    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, noise: PictureNoise,
             label: Tensor | None = None) -> Step:  # fmt: skip
        """From x_t (B, C, H, W) at time t to time s < t, both () float64: gives (x_s, x_hat at t, state)."""


VARIANCES = ("posterior", "forward")


@dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling (Ho et al. 2020, equations 6 and 7), between any two times.

    `variance` is the posterior's own or that of the forward step (their beta-tilde and beta). `clamp` cuts the sample
    itself to [-1, 1] after each step, as the notebook does.
    """

    clamp: bool = False
    variance: str = "posterior"

    def __post_init__(self) -> None:
        if self.variance not in VARIANCES:
            raise UserError(f"unknown variance '{self.variance}': {nearest(self.variance, VARIANCES)}")

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, noise: PictureNoise,
             label: Tensor | None = None) -> Step:  # fmt: skip
        x_hat = denoiser(x_t, t, label)
        a, b = at(denoiser, t), at(denoiser, s)
        kept = (a.alpha * b.sigma / (b.alpha * a.sigma)).square()  # 1 - beta, seen as a share of the noise's variance
        x_s = b.alpha * (1 - kept) * x_hat + b.alpha / a.alpha * kept * x_t if a.alpha > 0 else b.alpha * x_hat
        if s > 0:
            scale = b.sigma if self.variance == "posterior" else a.sigma
            x_s = x_s + scale * (1 - kept).sqrt() * noise.normal_like(x_t)
        return x_s.clamp(-1, 1) if self.clamp else x_s, x_hat, None


@dataclass(frozen=True)
class DDIM(Sampler):
    """Deterministic at eta = 0, DDPM's posterior variance at eta = 1 (Song et al. 2021, equations 12 and 16)."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta must be between 0 and 1, not {self.eta}")

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, noise: PictureNoise,
             label: Tensor | None = None) -> Step:  # fmt: skip
        x_hat = denoiser(x_t, t, label)
        a, b = at(denoiser, t), at(denoiser, s)
        z_hat = (x_t - a.alpha * x_hat) / a.sigma
        if self.eta == 0:
            return b.moved(x_hat, z_hat), x_hat, None
        fresh = self.eta * b.sigma * (1 - (a.alpha * b.sigma / (b.alpha * a.sigma)).square()).sqrt()  # equation 16
        x_s = b.alpha * x_hat + (b.sigma.square() - fresh.square()).clamp(min=0).sqrt() * z_hat
        return x_s + fresh * noise.normal_like(x_t) if s > 0 else x_s, x_hat, None


@dataclass(frozen=True)
class EulerAncestral(DDIM):
    """Euler's step with fresh noise: in y and r it is DDIM's with eta = 1, to the last term."""

    eta: float = 1.0


@dataclass(frozen=True)
class Euler(Sampler):
    """Euler's method on the probability flow (Karras et al. 2022, algorithm 2 without its correction).

    `churn` first raises the noise level by that share, at levels from `churn_from` to `churn_to` (their S_churn / N, at most
    sqrt(2) - 1), with noise of standard deviation `churn_noise`. Without churn this is DDIM's step, to the last term.
    """

    churn: float = 0.0
    churn_from: float = 0.0
    churn_to: float = 1e9
    churn_noise: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.churn <= math.sqrt(2) - 1:
            raise UserError(f"churn must be between 0 and sqrt(2) - 1 = 0.414, not {self.churn}")

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, noise: PictureNoise,
             label: Tensor | None = None) -> Step:  # fmt: skip
        x_t, a = self._churned(denoiser, x_t, at(denoiser, t), noise)
        b = at(denoiser, s)
        x_hat = denoiser(x_t, a.t, label)
        return b.moved(x_hat, (x_t - a.alpha * x_hat) / a.sigma), x_hat, None

    def _churned(self, denoiser: Denoiser, x_t: Tensor, a: At, noise: PictureNoise) -> tuple[Tensor, At]:
        """x at a time of more noise, and that time."""
        if not self.churn or a.alpha == 0 or not self.churn_from <= a.ratio <= self.churn_to:
            return x_t, a
        raised = at(denoiser, denoiser.schedule.time_at(a.ratio * (1 + self.churn)))
        if raised.alpha == 0:
            return x_t, a
        added = (raised.ratio.square() - a.ratio.square()).clamp(min=0).sqrt() * self.churn_noise
        return raised.alpha * (x_t / a.alpha + added * noise.normal_like(x_t)), raised


@dataclass(frozen=True)
class Heun(Euler):
    """Heun's method (Karras et al. 2022, algorithm 2). Two network calls a step, one in the last."""

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, noise: PictureNoise,
             label: Tensor | None = None) -> Step:  # fmt: skip
        x_t, a = self._churned(denoiser, x_t, at(denoiser, t), noise)
        b = at(denoiser, s)
        x_hat = denoiser(x_t, a.t, label)
        z_t = (x_t - a.alpha * x_hat) / a.sigma
        x_s = b.moved(x_hat, z_t)
        # Where alpha is 0 there is no y to average in: the first step from pure noise is Euler's.
        if b.sigma == 0 or a.alpha == 0:
            return x_s, x_hat, None
        z_s = (x_s - b.alpha * denoiser(x_s, s, label)) / b.sigma
        return b.alpha * (x_t / a.alpha + (b.ratio - a.ratio) * (z_t + z_s) / 2), x_hat, None


def exponential(a: At, b: At, x_t: Tensor, estimate: Tensor) -> Tensor:
    """x at b with the estimate held fixed from a: exact for it (Lu et al. 2022, equation 8 with one term)."""
    return b.sigma / a.sigma * x_t - b.alpha * torch.expm1(a.lam - b.lam) * estimate


@dataclass(frozen=True)
class DPMSolver2S(Sampler):
    """DPM-Solver++(2S): second order from a point half way in lambda (Lu et al. 2022, algorithm 1, r = 1/2).

    Two network calls a step; one and first order where lambda is infinite at an end.
    """

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, noise: PictureNoise,
             label: Tensor | None = None) -> Step:  # fmt: skip
        x_hat = denoiser(x_t, t, label)
        a, b = at(denoiser, t), at(denoiser, s)
        if b.sigma == 0 or a.alpha == 0:
            return exponential(a, b, x_t, x_hat), x_hat, None
        half = at(denoiser, denoiser.schedule.time_at(torch.exp(-(a.lam + b.lam) / 2)))
        between = denoiser(exponential(a, half, x_t, x_hat), half.t, label)
        return exponential(a, b, x_t, between), x_hat, None


@dataclass(frozen=True)
class DPMSolver2M(Sampler):
    """DPM-Solver++(2M): second order from the step before (Lu et al. 2022, algorithm 2).

    First order in the first step, and in the last, where lambda is infinite.
    """

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, noise: PictureNoise,
             label: Tensor | None = None) -> Step:  # fmt: skip
        x_hat = denoiser(x_t, t, label)
        a, b = at(denoiser, t), at(denoiser, s)
        x_s = exponential(a, b, x_t, extrapolated(a, b, x_hat, state))
        return x_s, x_hat, (a, x_hat) if a.alpha > 0 else None


def extrapolated(a: At, b: At, x_hat: Tensor, state: tuple[At, Tensor] | None) -> Tensor:
    """The estimate half way from a to b in lambda, from those at a and at the step before; the one at a where there is none."""
    if state is None or b.sigma == 0:
        return x_hat
    before, x_before = state
    return x_hat + (b.lam - a.lam) / (2 * (a.lam - before.lam)) * (x_hat - x_before)


@dataclass(frozen=True)
class DPMSolver2MSDE(Sampler):
    """SDE-DPM-Solver++(2M): the same with fresh noise in each step (Lu et al. 2022, equation 14 and appendix)."""

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, noise: PictureNoise,
             label: Tensor | None = None) -> Step:  # fmt: skip
        x_hat = denoiser(x_t, t, label)
        a, b = at(denoiser, t), at(denoiser, s)
        estimate = extrapolated(a, b, x_hat, state)
        falls = torch.exp(a.lam - b.lam)  # e^-h
        x_s = b.sigma / a.sigma * falls * x_t - b.alpha * torch.expm1(2 * (a.lam - b.lam)) * estimate
        if s > 0:
            x_s = x_s + b.sigma * (1 - falls.square()).sqrt() * noise.normal_like(x_t)
        return x_s, x_hat, (a, x_hat) if a.alpha > 0 else None


@dataclass(frozen=True)
class UniPC(Sampler):
    """UniPC of second order, B(h) = e^h - 1, for the picture (Zhao et al. 2023, algorithms 1 and 2).

    Each network call first corrects the step that led to it, at no cost, then predicts the next as DPM-Solver++(2M) does.
    """

    def step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, noise: PictureNoise,
             label: Tensor | None = None) -> Step:  # fmt: skip
        x_hat = denoiser(x_t, t, label)
        a, b = at(denoiser, t), at(denoiser, s)
        history: list[tuple[At, Tensor]]
        history, x_before = state or ([], None)
        if x_before is not None:
            x_t = self._corrected(history, x_before, a, x_hat)
        x_s = exponential(a, b, x_t, extrapolated(a, b, x_hat, history[-1] if history else None))
        return x_s, x_hat, ([*history[-1:], (a, x_hat)], x_t) if a.alpha > 0 else None

    def _corrected(self, history: list[tuple[At, Tensor]], x_before: Tensor, a: At, x_hat: Tensor) -> Tensor:
        """x at a, from the x and estimates before it and the estimate at it."""
        last, x_last = history[-1]
        h = a.lam - last.lam
        b_1 = torch.expm1(-h) / -h - 1  # phi_2 and phi_3 as in their appendix, times h
        b_2 = b_1 / -h - 0.5
        first = x_hat - x_last
        change = 0.5 * first
        if len(history) > 1:
            before, x_earlier = history[0]
            r = (before.lam - last.lam) / h
            # The two weights that are exact for linear and quadratic changes of the estimate.
            c_1, c_2 = b_1 / torch.expm1(-h), 2 * b_2 / torch.expm1(-h)
            rho = (c_1 - c_2) / (1 - r)
            change = rho * (x_earlier - x_last) / r + (c_1 - rho) * first
        return exponential(last, a, x_before, x_last) - a.alpha * torch.expm1(-h) * change


SAMPLERS: dict[str, type[Sampler]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "euler": Euler,
    "euler-ancestral": EulerAncestral,
    "heun": Heun,
    "dpm++2s": DPMSolver2S,
    "dpm++2m": DPMSolver2M,
    "dpm++2m-sde": DPMSolver2MSDE,
    "unipc": UniPC,
}
