r"""Samplers: one step each, from time t to an earlier time s, by way of a denoiser.

    eps = (x_t - alpha_t x_hat) / sigma_t                          the noise that an estimate implies
    lambda_t = log(alpha_t / sigma_t)                              half the log signal-to-noise ratio
    y = x / alpha, r = sigma / alpha, dy/dr = (y - x_hat) / r      the probability-flow ODE, whatever the schedule

Scales are float64; images keep their own dtype. A sampler of one's own is a few lines:

    @register("my-ddim")
    @dataclass(frozen=True)
    class MyDDIM(Sampler):
        def step(self, denoise, x_t, t, s, state, rng):
            x_hat = denoise(x_t, t)
            return s.mix(x_hat, (x_t - t.alpha * x_hat) / t.sigma), x_hat, None
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.schedules import Time
from unnoise.utils.errors import UserError, nearest
from unnoise.utils.rng import BatchRng

State = Any  # the history of a multistep method; None before the first step
Step = tuple[Tensor, Tensor, State]  # x_s, x_hat at t, the new state


class BoundDenoiser:
    """A denoiser with its label bound: `denoise(x_t, t)` is x_hat, (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, denoiser: Denoiser, label: Tensor | None = None) -> None:
        self.denoiser, self.label, self.schedule = denoiser, label, denoiser.schedule

    def __call__(self, x_t: Tensor, t: Time) -> Tensor:
        x_hat: Tensor = self.denoiser(x_t, t.t, self.label)
        return x_hat

    def time_at(self, ratio: Tensor) -> Time:
        """The time, with its scales, at which sigma / alpha is `ratio` () float64."""
        return self.schedule.at(self.schedule.time_at(ratio))


class Sampler(ABC):
    """One step of a sampling method."""

    @abstractmethod
    def step(self, denoise: BoundDenoiser, x_t: Tensor, t: Time, s: Time, state: State, rng: BatchRng) -> Step:
        """From x_t (B, C, H, W) at time t to time s < t: gives (x_s, x_hat at t, state).

        t and s carry `alpha` and `sigma`, () float64. `rng.normal_like(x_t)` draws fresh noise, one stream per image.
        """


VARIANCES = ("posterior", "forward")


@dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling (Ho et al. 2020, equations 6 and 7), between any two times.

    `variance` is the posterior's own or that of the forward step (their beta-tilde and beta). `clamp` clips the sample
    itself to [-1, 1] after each step, as the notebook does.
    """

    clamp: bool = False
    variance: str = "posterior"

    def __post_init__(self) -> None:
        if self.variance not in VARIANCES:
            raise UserError(f"unknown variance '{self.variance}': {nearest(self.variance, VARIANCES)}")

    def step(self, denoise: BoundDenoiser, x_t: Tensor, t: Time, s: Time, state: State, rng: BatchRng) -> Step:
        x_hat = denoise(x_t, t)
        retained = (t.alpha * s.sigma / (s.alpha * t.sigma)).square()  # of the noise's variance; 1 - beta / sigma_t^2 at alpha 1
        x_s = s.alpha * (1 - retained) * x_hat + s.alpha / t.alpha * retained * x_t if t.alpha > 0 else s.alpha * x_hat
        if s.t > 0:
            scale = s.sigma if self.variance == "posterior" else t.sigma
            x_s = x_s + scale * (1 - retained).sqrt() * rng.normal_like(x_t)
        return x_s.clamp(-1, 1) if self.clamp else x_s, x_hat, None


@dataclass(frozen=True)
class DDIM(Sampler):
    """Deterministic at eta = 0, DDPM's posterior variance at eta = 1 (Song et al. 2021, equations 12 and 16)."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta must be between 0 and 1, not {self.eta}")

    def step(self, denoise: BoundDenoiser, x_t: Tensor, t: Time, s: Time, state: State, rng: BatchRng) -> Step:
        x_hat = denoise(x_t, t)
        eps = (x_t - t.alpha * x_hat) / t.sigma
        if self.eta == 0:
            return s.mix(x_hat, eps), x_hat, None
        fresh = self.eta * s.sigma * (1 - (t.alpha * s.sigma / (s.alpha * t.sigma)).square()).sqrt()  # equation 16
        x_s = s.alpha * x_hat + (s.sigma.square() - fresh.square()).clamp(min=0).sqrt() * eps
        return x_s + fresh * rng.normal_like(x_t) if s.t > 0 else x_s, x_hat, None


@dataclass(frozen=True)
class EulerAncestral(DDIM):
    """Euler's step with fresh noise: in y and r it is DDIM's with eta = 1, to the last term."""

    eta: float = 1.0


@dataclass(frozen=True)
class Euler(Sampler):
    """Euler's method on the probability-flow ODE (Karras et al. 2022, algorithm 2 without its correction).

    `churn` first raises the noise level by that fraction, at levels from `churn_from` to `churn_to` (their S_churn / N, at most
    sqrt(2) - 1), with noise of standard deviation `churn_noise`. Without churn this is DDIM's step, to the last term.
    """

    churn: float = 0.0
    churn_from: float = 0.0
    churn_to: float = 1e9
    churn_noise: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.churn <= math.sqrt(2) - 1:
            raise UserError(f"churn must be between 0 and sqrt(2) - 1 = 0.414, not {self.churn}")

    def step(self, denoise: BoundDenoiser, x_t: Tensor, t: Time, s: Time, state: State, rng: BatchRng) -> Step:
        x_t, t = self._churn(denoise, x_t, t, rng)
        x_hat = denoise(x_t, t)
        return s.mix(x_hat, (x_t - t.alpha * x_hat) / t.sigma), x_hat, None

    def _churn(self, denoise: BoundDenoiser, x_t: Tensor, t: Time, rng: BatchRng) -> tuple[Tensor, Time]:
        """x at a noisier time, and that time."""
        if not self.churn or t.alpha == 0 or not self.churn_from <= t.ratio <= self.churn_to:
            return x_t, t
        raised = denoise.time_at(t.ratio * (1 + self.churn))
        if raised.alpha == 0:
            return x_t, t
        added = (raised.ratio.square() - t.ratio.square()).clamp(min=0).sqrt() * self.churn_noise
        return raised.alpha * (x_t / t.alpha + added * rng.normal_like(x_t)), raised


@dataclass(frozen=True)
class Heun(Euler):
    """Heun's method (Karras et al. 2022, algorithm 2). Two network calls a step, one in the last."""

    def step(self, denoise: BoundDenoiser, x_t: Tensor, t: Time, s: Time, state: State, rng: BatchRng) -> Step:
        x_t, t = self._churn(denoise, x_t, t, rng)
        x_hat = denoise(x_t, t)
        eps_t = (x_t - t.alpha * x_hat) / t.sigma
        x_s = s.mix(x_hat, eps_t)
        # Where alpha is 0 there is no y to average in: the first step from pure noise is Euler's.
        if s.sigma == 0 or t.alpha == 0:
            return x_s, x_hat, None
        eps_s = (x_s - s.alpha * denoise(x_s, s)) / s.sigma
        return s.alpha * (x_t / t.alpha + (s.ratio - t.ratio) * (eps_t + eps_s) / 2), x_hat, None


def exponential(t: Time, s: Time, x_t: Tensor, x_hat: Tensor) -> Tensor:
    """x at s with the estimate held fixed from t: exact for it (Lu et al. 2022, equation 8 with one term)."""
    return s.sigma / t.sigma * x_t - s.alpha * torch.expm1(t.lam - s.lam) * x_hat


@dataclass(frozen=True)
class DPMpp2S(Sampler):
    """DPM-Solver++(2S): second order from a point half way in lambda (Lu et al. 2022, algorithm 1, r = 1/2).

    Two network calls a step; one and first order where lambda is infinite at an end.
    """

    def step(self, denoise: BoundDenoiser, x_t: Tensor, t: Time, s: Time, state: State, rng: BatchRng) -> Step:
        x_hat = denoise(x_t, t)
        if s.sigma == 0 or t.alpha == 0:
            return exponential(t, s, x_t, x_hat), x_hat, None
        middle = denoise.time_at(torch.exp(-(t.lam + s.lam) / 2))
        x_hat_middle = denoise(exponential(t, middle, x_t, x_hat), middle)
        return exponential(t, s, x_t, x_hat_middle), x_hat, None


@dataclass(frozen=True)
class DPMpp2M(Sampler):
    """DPM-Solver++(2M): second order from the step before (Lu et al. 2022, algorithm 2).

    First order in the first step, and in the last, where lambda is infinite.
    """

    def step(self, denoise: BoundDenoiser, x_t: Tensor, t: Time, s: Time, state: State, rng: BatchRng) -> Step:
        x_hat = denoise(x_t, t)
        x_s = exponential(t, s, x_t, extrapolate(t, s, x_hat, state))
        return x_s, x_hat, (t, x_hat) if t.alpha > 0 else None


def extrapolate(t: Time, s: Time, x_hat: Tensor, previous: tuple[Time, Tensor] | None) -> Tensor:
    """The estimate half way from t to s in lambda, from those at t and at the step before; the one at t where there is none."""
    if previous is None or s.sigma == 0:
        return x_hat
    before, x_hat_before = previous
    return x_hat + (s.lam - t.lam) / (2 * (t.lam - before.lam)) * (x_hat - x_hat_before)


@dataclass(frozen=True)
class DPMpp2MSDE(Sampler):
    """SDE-DPM-Solver++(2M): the same with fresh noise in each step (Lu et al. 2022, equation 14 and appendix)."""

    def step(self, denoise: BoundDenoiser, x_t: Tensor, t: Time, s: Time, state: State, rng: BatchRng) -> Step:
        x_hat = denoise(x_t, t)
        estimate = extrapolate(t, s, x_hat, state)
        decay = torch.exp(t.lam - s.lam)  # e^-h
        x_s = s.sigma / t.sigma * decay * x_t - s.alpha * torch.expm1(2 * (t.lam - s.lam)) * estimate
        if s.t > 0:
            x_s = x_s + s.sigma * (1 - decay.square()).sqrt() * rng.normal_like(x_t)
        return x_s, x_hat, (t, x_hat) if t.alpha > 0 else None


@dataclass(frozen=True)
class UniPC(Sampler):
    """UniPC of second order, B(h) = e^h - 1, for data prediction (Zhao et al. 2023, algorithms 1 and 2).

    Each network call first corrects the step that led to it, at no cost, then predicts the next as DPM-Solver++(2M) does.
    """

    def step(self, denoise: BoundDenoiser, x_t: Tensor, t: Time, s: Time, state: State, rng: BatchRng) -> Step:
        x_hat = denoise(x_t, t)
        history: list[tuple[Time, Tensor]]
        history, x_before = state or ([], None)
        if x_before is not None:
            x_t = self._correct(history, x_before, t, x_hat)
        x_s = exponential(t, s, x_t, extrapolate(t, s, x_hat, history[-1] if history else None))
        return x_s, x_hat, ([*history[-1:], (t, x_hat)], x_t) if t.alpha > 0 else None

    def _correct(self, history: list[tuple[Time, Tensor]], x_before: Tensor, t: Time, x_hat: Tensor) -> Tensor:
        """x at t, from the x and estimates before it and the estimate at it."""
        last, x_hat_last = history[-1]
        h = t.lam - last.lam
        b_1 = torch.expm1(-h) / -h - 1  # phi_2 and phi_3 as in their appendix, times h
        b_2 = b_1 / -h - 0.5
        first = x_hat - x_hat_last
        change = 0.5 * first
        if len(history) > 1:
            before, x_hat_before = history[0]
            r = (before.lam - last.lam) / h
            # The two weights that are exact for linear and quadratic changes of the estimate.
            c_1, c_2 = b_1 / torch.expm1(-h), 2 * b_2 / torch.expm1(-h)
            rho = (c_1 - c_2) / (1 - r)
            change = rho * (x_hat_before - x_hat_last) / r + (c_1 - rho) * first
        return exponential(last, t, x_before, x_hat_last) - t.alpha * torch.expm1(-h) * change


@dataclass(frozen=True)
class Consistency(Sampler):
    """Multistep consistency sampling (Song et al. 2023, algorithm 1): the estimate, with fresh noise to the next time.

    For a denoiser whose estimate is a sample by itself, as a student's is (training/matching.py, training/consistency.py).
    """

    def step(self, denoise: BoundDenoiser, x_t: Tensor, t: Time, s: Time, state: State, rng: BatchRng) -> Step:
        x_hat = denoise(x_t, t)
        return s.mix(x_hat, rng.normal_like(x_t)) if s.t > 0 else x_hat, x_hat, None


SAMPLERS: dict[str, type[Sampler]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "euler": Euler,
    "euler-ancestral": EulerAncestral,
    "heun": Heun,
    "dpm++2s": DPMpp2S,
    "dpm++2m": DPMpp2M,
    "dpm++2m-sde": DPMpp2MSDE,
    "unipc": UniPC,
    "consistency": Consistency,
}
