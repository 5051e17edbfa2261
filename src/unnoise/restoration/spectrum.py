r"""Whether the noise of an image is white, and if not, its spectrum, found with the denoiser's own knowledge of images.

Texture and smooth noise have alike spectra, which statistics of one image can't tell apart, and a denoiser can: it knows images.
So the noise's parameters theta are those of greatest likelihood by expectation maximisation (Dempster, Laird & Rubin 1977) with
a diffusion model as the prior, as in Gibbs diffusion (Heurtel-Depeiges et al. 2024, arXiv:2402.19455):

    E: x ~ p(x | y, theta), sampled;  P(k) = mean |cosine transform of y - x|^2 at the frequency k
    M: theta minimises sum_k log S(k; theta) + P(k) / S(k; theta)                (Whittle 1953)

The first E step, which takes the noise for white, says whether it is: its residual is flat then. Stripes, which a denoiser takes
for image, are found before that.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from unnoise.data.pixels import HALF_RANGE
from unnoise.restoration.noise import CorrelatedNoise, estimate_sigma, smooth_power
from unnoise.restoration.operators import Cosines, Identity, cosines
from unnoise.restoration.posteriors import Measurement

Sample = Callable[[Measurement, int], Tensor]  # a sample (B, C, H, W) of p(x | y), by a seed
CONTRAST = 1.6  # between standard deviations of frequencies, or of channels: below it noise counts as white
STRIPES = 10.0  # times the power of the nearest frequencies; that of 43 clean photographs was at most 8
MIN_SIGMA = 2.0  # of 255: less is left as it is
ITERATIONS = 4
PATCHES = 4
FITTING = 150  # steps


def find_correlation(y: Tensor, sigma: float, size: tuple[int, int], sample: Sample) -> CorrelatedNoise | None:
    """The noise of an image y (1, C, H, W) on [-1, 1] in which white noise was estimated as `sigma`; None if it is white.

    It is looked at in the smoothest patches of `size`. Correlated noise is far stronger than the `sigma` that its finest
    frequencies show.
    """
    rows, columns = stripes(y), stripes(y.mT)
    striped = any(rows + columns)
    if sigma * HALF_RANGE < MIN_SIGMA and not striped:
        return None
    each = [max(estimate_sigma(channel[None]), 1e-4) for channel in y[0]]
    levels = tuple(float(sigma * HALF_RANGE * s / max(estimate_sigma(y[0]), 1e-4)) for s in each)
    noise = CorrelatedNoise(0.0, 0.5, rows, columns, levels)
    patches = smoothest(y, size)
    power = residual_power(patches, noise, sample, 0)
    smooth = contrast(power) > CONTRAST
    if not (striped or smooth or max(levels) > CONTRAST * min(levels)):
        return None
    if smooth:
        noise = replace(noise, sigma=levels, white=tuple(level / 2 for level in levels))
    for k in range(ITERATIONS):
        power = power if k == 0 else residual_power(patches, noise, sample, k)
        noise = fit_smooth(power, noise) if smooth else replace(noise, white=_levels(_inner(power).mean((1, 2))))
    return noise


def stripes(y: Tensor) -> tuple[float, ...]:
    """The standard deviation of horizontal stripes in y (1, C, H, W) for each channel, of 255; 0 where there are none.

    Stripes are in the means of rows alone, the images' own lines also in the next frequencies k = 1, 2, 3 along the rows. Of both
    the finest wavelets down the image are taken, and their median, which a few edges do not change (Donoho & Johnstone 1994).
    """
    import pywt

    width = y.shape[3]
    none = (0.0,) * y.shape[1]
    if width < 8 or y.shape[2] < 8:
        return none
    lowest = y[0].cpu().double() @ cosines(width)[:4].T  # (C, H, 4)
    finest = torch.from_numpy(pywt.dwt(lowest.numpy(), "db2", axis=1)[1])
    robust = finest.abs().median(1, keepdim=True).values / 0.6745
    if float(robust[..., 0].square().mean()) < STRIPES * float(robust[..., 1:].square().mean()):
        return none
    power = torch.minimum(finest.abs(), 3 * robust).square().mean(1)  # (C, 4): less at random than the median
    return _levels((power[:, 0] - power[:, 1:].mean(1)).clamp(min=0) / width)


def smoothest(y: Tensor, size: tuple[int, int]) -> Tensor:
    """Up to `PATCHES` patches (B, C, h, w) of an image y (1, C, H, W): those with the least structure of 4 pixels and more."""
    h, w = (min(side, whole) for side, whole in zip(size, y.shape[2:], strict=True))
    rows, columns = range(0, y.shape[2] - h + 1, h), range(0, y.shape[3] - w + 1, w)
    patches = torch.cat([y[..., top : top + h, left : left + w] for top in rows for left in columns])
    structure = functional.avg_pool2d(patches, 4).flatten(2).var(2).mean(1)
    clipped = (patches.abs() > 0.98).float().mean((1, 2, 3))  # black and white hide noise
    return patches[(structure + 10 * clipped).argsort()[:PATCHES]]


def residual_power(patches: Tensor, noise: CorrelatedNoise, sample: Sample, seed: int) -> Tensor:
    """The E step: P (C, h, w) on the scale of [-1, 1]."""
    x = sample(Measurement.of(patches, Identity(), noise), seed)
    return Cosines()(patches.cpu() - x.cpu()).square().mean(0)


def contrast(power: Tensor) -> float:
    """How many times the standard deviation at middle frequencies exceeds that at the highest, for power (C, h, w)."""
    down, along = (torch.arange(n) / n for n in power.shape[1:])
    low, high = (torch.minimum(down[:, None], along), torch.maximum(down[:, None], along))
    middle, highest = (low > 0) & (high >= 1 / 8) & (high < 1 / 2), low >= 3 / 4
    return float((power[:, middle].mean() / power[:, highest].mean()).sqrt())


def fit_smooth(power: Tensor, noise: CorrelatedNoise) -> CorrelatedNoise:
    """The M step for `sigma`, `width` and `white`, from those of `noise`, by gradients: of power (C, h, w)."""
    c, h, w = power.shape
    inner = _inner(power / power.mean())
    scale = float(power.mean().sqrt()) * HALF_RANGE
    with torch.enable_grad():
        start = [
            torch.tensor(noise.sigma).expand(c) / scale,
            torch.tensor(noise.white).expand(c) / scale,
            torch.tensor(noise.width),
        ]
        logs = [value.clamp(min=0.01).log().detach().clone().requires_grad_() for value in start]
        optimizer = torch.optim.Adam(logs, lr=0.1)
        for _ in range(FITTING):
            sigma, white, width = (v.exp() for v in logs)
            s = (sigma.square()[:, None, None] * smooth_power(width, h, w) + white.square()[:, None, None])[:, 1:, 1:]
            optimizer.zero_grad()
            (s.log() + inner / s).mean().backward()
            optimizer.step()
            logs[2].data.clamp_(-3, 1)  # 0.05 to 2.7 pixels
    sigma, white, width = (v.detach().exp() for v in logs)
    return replace(noise, sigma=_levels((sigma * scale / HALF_RANGE).square()), width=float(width),
                   white=_levels((white * scale / HALF_RANGE).square()))  # fmt: skip


def _inner(power: Tensor) -> Tensor:
    """Without the frequencies of stripes."""
    return power[:, 1:, 1:]


def _levels(variance: Tensor) -> tuple[float, ...]:
    """Standard deviations of 255 from variances (C,) on the scale of [-1, 1]."""
    return tuple(float(v) ** 0.5 * HALF_RANGE for v in variance)
