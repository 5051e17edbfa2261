"""`restore`: samples of p(x | y), their mean and standard deviation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.sampling import SamplingConfig, SamplingRecord, starting_point, trajectory
from unnoise.restoration.posteriors import POSTERIORS, Measurement, Posterior
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

MAX_PIXELS = 64 * 64 * 64  # of all images in a call of the network
OnProgress = Callable[[float], None]  # is called with how many more samples are done, such as 0.1


def ignore(_: float) -> None:
    """Progress that nobody asked for."""


@dataclass(frozen=True)
class Restored:
    """Samples (K, B, C, H, W) on [-1, 1]; their mean and standard deviation, each (B, C, H, W).

    The mean is that of the estimates E[x | x_t, y] over the last third of each trajectory, rather than of its end: both
    have the expectation E[x | y], and the estimates vary less (Rao & Blackwell).
    """

    samples: Tensor
    mean: Tensor
    std: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "std", self.samples.std(0, correction=min(1, len(self.samples) - 1)))

    def crop(self, size: tuple[int, int]) -> "Restored":
        """The upper left (height, width), on the CPU."""
        h, w = size
        return Restored(self.samples[..., :h, :w].float().cpu(), self.mean[..., :h, :w].float().cpu())


def follow(records: Iterator[SamplingRecord], on_progress: OnProgress = ignore) -> tuple[Tensor, Tensor]:
    """The end of a trajectory and the mean of its estimates over the last third, both clipped to [-1, 1]."""
    total, count = torch.zeros(()), 0
    for record in records:
        on_progress(1 / record.steps)
        if 3 * record.step > 2 * record.steps:
            total, count = total + record.x_hat, count + 1
    return record.x.clamp(-1, 1), (total / count).clamp(-1, 1)


def padded_size(size: tuple[int, int], min_size: tuple[int, int], divisor: int) -> tuple[int, int]:
    """The smallest (height, width) that holds `size`, is at least `min_size`, and is a multiple of `divisor`."""
    h, w = (max(low, -(-side // divisor) * divisor) for side, low in zip(size, min_size, strict=True))
    return h, w


def restore(
    denoiser: Denoiser,
    measurement: Measurement,
    method: Posterior | None = None,
    sampling: SamplingConfig | None = None,
    samples: int = 8,
    seed: int = 0,
    label: Tensor | None = None,
    on_progress: OnProgress = ignore,
) -> Restored:
    """Sample p(x | y) for a measurement of B images, by default with the method that suits its operator.

    Where x must be larger than the image, to fit a network, the measurement is of a part of it (`operator @ Crop(size)`); where
    x is larger than the network takes, give a `TiledDenoiser`. Sample k of image b depends on (seed, k, b) alone. Raises
    UserError for values that are not finite, a negative variance, or an operator that the method can't handle.
    """
    sampling, method = sampling or SamplingConfig(), method or POSTERIORS[measurement.operator.method]()
    y, shape = measurement.y, measurement.shape
    if samples < 1:
        raise UserError(f"at least 1 sample is needed, not {samples}")
    if not torch.isfinite(y).all():
        raise UserError("the measurement has values that are not finite: mend it, or mask them out")
    if not (measurement.variance >= 0).all():
        raise UserError(f"the noise's variance must be at least 0 everywhere, not {float(measurement.variance.min()):.3g}")

    def sample(ks: range) -> tuple[Tensor, Tensor]:
        """The ends of trajectories and the means of their estimates, each (len(ks), B, C, H, W)."""
        count = len(ks)
        posterior = method.wrap(denoiser, measurement.repeated(count))
        rng = reduce(add, (BatchRng(seed, range(len(y)), f"restore {k}") for k in ks))
        x = starting_point(denoiser, rng, y.new_empty(count * len(y), *shape))
        records = trajectory(posterior, x, sampling, rng, None if label is None else label.repeat(count))
        ends, means = (p.reshape(count, len(y), *shape) for p in follow(records, lambda part: on_progress(part * count)))
        return ends, means

    each = max(1, MAX_PIXELS // (len(y) * shape[1] * shape[2]))
    ends, means = zip(*(sample(range(k, min(k + each, samples))) for k in range(0, samples, each)), strict=True)
    return Restored(torch.cat(ends), torch.cat(means).mean(0))
