"""Sampling: from noise to an image, one sampler step after the other.

`trajectory` runs a sampler and yields a record a step; `sample` keeps the last. Memory does not depend on the number of steps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser, count_classes
from unnoise.diffusion.gaussian import Moments
from unnoise.diffusion.guidance import Guidance, NoGuidance
from unnoise.diffusion.samplers import SAMPLERS, BoundDenoiser, DPMpp2M, Sampler
from unnoise.diffusion.timesteps import SamplingTimes, TrailingSteps
from unnoise.utils.errors import UserError, nearest
from unnoise.utils.rng import BatchRng


class ClampedDenoiser(Denoiser):
    """A denoiser whose estimate is clamped to [-1, 1]; samplers derive the noise from the estimate, so both stay consistent.

    With `quantile`, an estimate that exceeds the range is first divided by that quantile of its absolute values (dynamic
    thresholding, Saharia et al. 2022, section 2.3), each image by its own.
    """

    def __init__(self, denoiser: Denoiser, quantile: float = 0.0) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.quantile = denoiser, denoiser.schedule, quantile

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        x_hat: Tensor = self.denoiser(x_t, t, label, **cond)
        if not self.quantile:
            return x_hat.clamp(-1, 1)
        limit = torch.quantile(x_hat.detach().flatten(1).abs().float(), self.quantile, dim=1).clamp(min=1)
        limit = limit[:, None, None, None].to(x_hat)
        return x_hat.clamp(-limit, limit) / limit


STARTS = ("noise", "data")


@dataclass(frozen=True)
class SamplingConfig:
    """How images are sampled.

    A sampler, the times that it steps through, the number of steps, whether estimates are clamped to [-1, 1], and guidance.
    `dynamic` is the quantile of dynamic thresholding (0: none; 0.995 in the paper), for clamped estimates. `start` is what
    sampling starts from at t = 1: `noise` alone, or `data`, noise added to an image drawn from the Gaussian with the training
    images' mean and covariance, for schedules that end short of pure noise.
    """

    sampler: Sampler = field(default_factory=DPMpp2M)
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

    @property
    def calls(self) -> int:
        """Of the network, by samplers that make one a step; a guided step needs two."""
        return self.steps * (1 if isinstance(self.guidance, NoGuidance) else 2)

    def override(self, sampler: Sampler | None = None, steps: int | None = None) -> "SamplingConfig":
        """The same with another sampler or number of steps, where one is given."""
        return replace(self, sampler=sampler or self.sampler, steps=self.steps if steps is None else steps)


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
    denoiser: Denoiser, x: Tensor, sampling: SamplingConfig, rng: BatchRng, label: Tensor | None = None, start: float = 1.0
) -> Iterator[SamplingRecord]:
    """Run a sampler from x (B, C, H, W) at time `start` down to t = 0, yielding a record after each of its steps."""
    if sampling.clamp_estimate:
        denoiser = ClampedDenoiser(denoiser, sampling.dynamic)
    denoise = BoundDenoiser(denoiser, label)
    # Scales are scalars on the CPU, so that a sampler can ask them without waiting for a device.
    times = [denoiser.schedule.at(t) for t in sampling.times.below(start, denoiser.schedule, sampling.steps)]
    steps, state = len(times) - 1, None
    for k in range(steps):
        x, x_hat, state = sampling.sampler.step(denoise, x, times[k], times[k + 1], state, rng)
        yield SamplingRecord(k + 1, steps, float(times[k + 1].t), x, x_hat)


def starting_point(
    denoiser: Denoiser, rng: BatchRng, like: Tensor, start: str = "noise", moments: Moments | None = None
) -> Tensor:
    """x at t = 1, in the shape of `like` (B, C, H, W).

    Start `noise`: N(0, alpha(1)^2 + sigma(1)^2), the variance of noised images of unit variance; so N(0, I) on every
    variance-preserving schedule, also where training ends short of pure noise. Start `data`: alpha(1) x + sigma(1) eps with x
    from the Gaussian of `moments`, which is what training saw at t = 1, up to second moments.
    """
    one = torch.ones((), dtype=torch.float64)
    alpha, sigma = denoiser.schedule.alpha(one), denoiser.schedule.sigma(one)
    if start == "noise":
        return torch.hypot(alpha, sigma) * rng.normal_like(like)
    if moments is None:
        raise UserError("sampling.start data needs the training images' mean and covariance, which this model lacks: "
                        "choose sampling.start noise")  # fmt: skip
    return alpha * moments.sample(rng, like) + sigma * rng.normal_like(like)


def _check_labels(denoiser: Denoiser, label: Tensor | None, count: int) -> None:
    classes = count_classes(denoiser)
    if label is None:
        return
    if label.shape != (count,):
        raise UserError(f"labels must be one an image, ({count},), not {tuple(label.shape)}")
    if classes and not ((label >= -1) & (label < classes)).all():
        raise UserError(f"labels are 0 to {classes - 1}, or -1 for none, not {int(label.min())} to {int(label.max())}")


def sample(
    denoiser: Denoiser,
    shape: tuple[int, int, int, int],
    sampler: Sampler | str | None = None,
    steps: int | None = None,
    *,
    seed: int = 0,
    label: Tensor | None = None,
    config: SamplingConfig | None = None,
    indices: Sequence[int] | None = None,
) -> Tensor:
    """Sample images of `shape` (N, C, H, W) on [-1, 1], with the denoiser as it is: call `.eval()` first.

    Image n depends on (seed, indices[n]) alone, whatever the batch; `indices` are 0 .. N-1 by default. `sampler` is one, or its
    name. `label` is (N,) int64 or None. `config` says all else of sampling. The images lie on the denoiser's device. Raises
    UserError for labels that the network does not have.
    """
    _check_labels(denoiser, label, shape[0])
    if isinstance(sampler, str):
        if sampler not in SAMPLERS:
            raise UserError(f"unknown sampler '{sampler}': {nearest(sampler, SAMPLERS)}")
        sampler = SAMPLERS[sampler]()
    config = (config or SamplingConfig()).override(sampler, steps)
    rng = BatchRng(seed, range(shape[0]) if indices is None else indices)
    tensor = next(chain(denoiser.parameters(), denoiser.buffers()), torch.empty(0))
    x = starting_point(denoiser, rng, torch.empty(shape, device=tensor.device), config.start)
    for record in trajectory(config.guidance.wrap(denoiser), x, config, rng, label):
        x = record.x
    return x.clamp(-1, 1)
