"""From noise to a picture: a sampler's steps, taken one after the other.

`trajectory` runs a sampler and yields a record a step; `sample` keeps the last. Memory does not depend on the number of steps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.draws import PictureNoise
from unnoise.errors import UserError, nearest
from unnoise.gaussian import Moments
from unnoise.guidance import Guidance, NoGuidance
from unnoise.solvers import DPMSolver2M, Sampler
from unnoise.times import SamplingTimes, TrailingSteps


class ClampedEstimate(Denoiser):
    """A denoiser whose estimate is cut to [-1, 1]: samplers derive the noise from the estimate, so it stays consistent.

    With `quantile`, an estimate that goes beyond is first shrunk by that quantile of its own values' size (dynamic
    thresholding, Saharia et al. 2022, section 2.3), a picture at a time.
    """

    def __init__(self, denoiser: Denoiser, quantile: float = 0.0) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.quantile = denoiser, denoiser.schedule, quantile

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        x_hat: Tensor = self.denoiser(x_t, t, label)
        if not self.quantile:
            return x_hat.clamp(-1, 1)
        most = torch.quantile(x_hat.detach().flatten(1).abs().float(), self.quantile, dim=1).clamp(min=1)
        most = most[:, None, None, None].to(x_hat)
        return x_hat.clamp(-most, most) / most


STARTS = ("noise", "data")


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn: a sampler, the times it visits, how many steps, whether estimates are clamped, and guidance.

    `dynamic` is the quantile of dynamic thresholding (0: none; 0.995 in the paper), for clamped estimates.
    `start` is what stands at t = 1 for the picture that noise hides: nothing (`noise`), or a draw from the Gaussian with
    the training pictures' mean and covariance (`data`), for schedules that end short of pure noise.
    """

    sampler: Sampler = field(default_factory=DPMSolver2M)
    times: SamplingTimes = field(default_factory=TrailingSteps)
    steps: int = 20
    clamp_estimate: bool = True
    start: str = "noise"
    dynamic: float = 0.0
    guidance: Guidance = field(default_factory=NoGuidance)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"sampling steps must be at least 1, not {self.steps}")
        if not 0 <= self.dynamic <= 1:
            raise UserError(f"dynamic is a quantile between 0 and 1 (0: none), not {self.dynamic}")
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
        denoiser = ClampedEstimate(denoiser, sampling.dynamic)
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
    alpha, sigma = denoiser.schedule.alpha(one), denoiser.schedule.sigma(one)
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
