"""`restore`: what a picture may have been, given what is seen of it: mean, spread and samples."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.draws import PictureNoise
from unnoise.errors import UserError
from unnoise.restore.operators import Identity, Operator
from unnoise.restore.posterior import MMPS, Observation, Posterior
from unnoise.sampler import Sampling, SamplingRecord, starting_point, trajectory

AT_ONCE = 64 * 64 * 64  # pixels of all the pictures in a call of the network


@dataclass(frozen=True)
class Restored:
    """Samples (K, B, C, H, W) on [-1, 1]; their mean and standard deviation, each (B, C, H, W).

    The mean is that of the estimates E[x | x_t, y] on the last third of each sample's way, rather than of where it ended: both
    have the expectation E[x | y], and the estimates vary less (Rao & Blackwell).
    """

    samples: Tensor
    mean: Tensor
    std: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "std", self.samples.std(0, correction=min(1, len(self.samples) - 1)))

    def cut(self, size: tuple[int, int]) -> "Restored":
        """The upper left (height, width), on the CPU."""
        h, w = size
        return Restored(self.samples[..., :h, :w].float().cpu(), self.mean[..., :h, :w].float().cpu())


def follow(records: Iterator[SamplingRecord], told: Callable[[float], None]) -> tuple[Tensor, Tensor]:
    """Where a trajectory ends, and the mean of its estimates on the last third of the way; both clipped to [-1, 1]."""
    total, count = torch.zeros(()), 0
    for record in records:
        told(1 / record.steps)
        if 3 * record.step > 2 * record.steps:
            total, count = total + record.x_hat, count + 1
    return record.x.clamp(-1, 1), (total / count).clamp(-1, 1)


def fitted(size: tuple[int, int], least: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The smallest (height, width) that holds `size`, is at least `least`, and is made of multiples."""
    high, wide = (max(low, -(-side // multiple) * multiple) for side, low in zip(size, least, strict=True))
    return high, wide


def restore(
    denoiser: Denoiser,
    y: Tensor,
    operator: Operator | None = None,
    variance: Tensor | float = 0.0,
    shape: tuple[int, int, int] | None = None,
    method: Posterior | None = None,
    sampling: Sampling | None = None,
    samples: int = 8,
    seed: int = 0,
    label: Tensor | None = None,
    told: Callable[[float], None] = lambda _: None,
) -> Restored:
    """Draw from p(x | y) for y = A(x) + n, y (B, ...) as `operator` gives it, `variance` of n on [-1, 1].

    `shape` (C, H, W) is that of x, y's own by default. Where it must be larger than the picture, to fit a network, the operator
    sees a part of it (`operator @ Crop(size)`). Where x is larger than the network takes, give a `Tiled` denoiser.
    Sample k of picture b depends on (seed, k, b) alone. `told` is called after each step with how many samples it was worth.
    Raises UserError for values that are not finite, a negative variance, or an operator that the method can't do.
    """
    sampling, method = sampling or Sampling(), method or MMPS()
    operator = operator or Identity()
    channels, *size = shape or y.shape[1:]
    if samples < 1:
        raise UserError(f"at least 1 sample is needed, not {samples}")
    seen = Observation(y, operator, torch.as_tensor(variance, dtype=y.dtype, device=y.device))
    if not torch.isfinite(y).all():
        raise UserError("what is seen of the picture has values that are not finite: mend it, or mask them out")
    if not (seen.variance >= 0).all():
        raise UserError(f"the noise's variance must be at least 0 everywhere, not {float(seen.variance.min()):.3g}")

    def draw(ks: range) -> tuple[Tensor, Tensor]:
        """Where they end, and what was estimated on the way; each (len(ks), B, C, H, W)."""
        count = len(ks)
        posterior = method.wrap(denoiser, seen.repeated(count))
        noise = reduce(add, (PictureNoise(seed, range(len(y)), f"restore {k}") for k in ks))
        x = starting_point(denoiser, noise, y.new_empty(count * len(y), channels, *size))
        records = trajectory(posterior, x, sampling, noise, None if label is None else label.repeat(count))
        ends, means = (p.reshape(count, len(y), channels, *size) for p in follow(records, lambda part: told(part * count)))
        return ends, means

    each = max(1, AT_ONCE // (len(y) * size[0] * size[1]))
    ends, means = zip(*(draw(range(k, min(k + each, samples))) for k in range(0, samples, each)), strict=True)
    return Restored(torch.cat(ends), torch.cat(means).mean(0))
