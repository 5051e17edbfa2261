"""Noise models, and estimates of how much noise an image holds."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unnoise.data.pixels import HALF_RANGE
from unnoise.restoration.operators import Blur
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

MIN_FRACTION = 0.1  # of an image's values, to estimate its noise from
ROUNDING = 0.5 / HALF_RANGE  # of 8 bits, generously: the least standard deviation that noise on [-1, 1] is given


def estimate_sigma(y: Tensor) -> float:
    """Standard deviation of the white Gaussian noise in one image y (C, H, W) on [-1, 1].

    From the median absolute value of its finest wavelet coefficients (Donoho & Johnstone 1994), of all channels. In an image
    that was clipped only those far from black and white are used, if there are enough of them. On small images it is a rough
    guess. Raises UserError below 8 pixels.
    """
    import pywt

    if min(y.shape[1:]) < 8:
        raise UserError(f"an image of {y.shape[1]}x{y.shape[2]} is too small to estimate its noise: say how much there is")
    finest = torch.from_numpy(pywt.dwtn(y.cpu().double().numpy(), "db2", axes=(1, 2))["dd"])  # (C, about H/2, W/2)

    def robust(coefficients: Tensor) -> float:
        return float(coefficients[coefficients != 0].abs().nan_to_num().median()) / 0.6745 if coefficients.any() else 0.0

    sigma = robust(finest)
    for _ in range(3):
        valid = functional.interpolate(unclipped(y[None], sigma), finest.shape[1:], mode="nearest")[0] > 0
        if valid.float().mean() < MIN_FRACTION:
            break
        sigma = robust(finest[valid])
    return sigma


def unclipped(y: Tensor, sigma: float) -> Tensor:
    """1 where noise can't have clipped y (B, C, H, W), else 0; 1 everywhere if values exceed [-1, 1]."""
    if y.abs().amax() > 1:
        return torch.ones_like(y)
    return (smooth(y).abs() < 1 - 2 * sigma).to(y)


def refine_sigma(
    y: Tensor, sigma: float, denoise: Callable[[Tensor, float], Tensor], max_sigma: float, iterations: int = 12
) -> float:
    """The noise level that agrees with the denoiser's own residual, from a first guess `sigma`, for y (B, C, H, W).

    With E[x | y] the mean of |y - x_hat|^2 is sigma^2 (1 - div x_hat / N) (Stein 1981); the divergence is estimated with one
    random direction, where nothing was clipped. Iterated until sigma changes by less than 1 %, never above `max_sigma`.
    """
    probe = BatchRng(0, range(len(y)), "divergence").normal_like(y).sign()
    weight = unclipped(y, sigma)
    weight = weight / weight.mean() if weight.mean() >= MIN_FRACTION else torch.ones_like(y)
    for _ in range(iterations):
        before = sigma = min(sigma, max_sigma)
        x_hat, small = denoise(y, sigma), 0.1 * sigma
        divergence = float((weight * probe * (denoise(y + small * probe, sigma) - x_hat)).mean()) / small
        found = float((weight * (y - x_hat).square()).mean()) / max(0.05, 1 - divergence)
        sigma = 0.5 * sigma + 0.5 * found**0.5  # damped: the residual itself depends on sigma
        if abs(sigma / before - 1) < 0.01:
            break
    return min(sigma, max_sigma)


class Noise(ABC):
    """Noise whose variance may depend on the image."""

    @abstractmethod
    def variance(self, x: Tensor) -> Tensor:
        """On the scale of [-1, 1], for each value of the clean image x (B, C, H, W)."""

    @abstractmethod
    def add(self, x: Tensor, rng: BatchRng) -> Tensor:
        """x with noise added; not clipped."""


def _unit(x: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1], clipped."""
    return ((x + 1) / 2).clamp(0, 1)


@dataclass(frozen=True)
class GaussianNoise(Noise):
    """White Gaussian noise of standard deviation `sigma`, in grey levels of 255."""

    sigma: float = 25.0

    def __post_init__(self) -> None:
        _positive("sigma", self.sigma)

    def variance(self, x: Tensor) -> Tensor:
        return torch.full_like(x, (self.sigma / HALF_RANGE) ** 2)

    def add(self, x: Tensor, rng: BatchRng) -> Tensor:
        return x + self.sigma / HALF_RANGE * rng.normal_like(x)


@dataclass(frozen=True)
class PoissonNoise(Noise):
    """Photon counts: a white pixel counts `peak` photons on average."""

    peak: float = 30.0

    def __post_init__(self) -> None:
        _positive("peak", self.peak)

    def variance(self, x: Tensor) -> Tensor:
        # Half a photon at least keeps the weight of a dark pixel finite.
        return 4 * (_unit(x) * self.peak).clamp(min=0.5) / self.peak**2

    def add(self, x: Tensor, rng: BatchRng) -> Tensor:
        return 2 * rng.poisson(_unit(x) * self.peak) / self.peak - 1


@dataclass(frozen=True)
class SpeckleNoise(Noise):
    """Multiplicative noise, v (1 + `sigma` n) for values v on [0, 1], as in radar and ultrasound."""

    sigma: float = 0.2

    def __post_init__(self) -> None:
        _positive("sigma", self.sigma)

    def variance(self, x: Tensor) -> Tensor:
        return (2 * self.sigma * _unit(x)).square().clamp(min=1e-5)

    def add(self, x: Tensor, rng: BatchRng) -> Tensor:
        return 2 * _unit(x) * (1 + self.sigma * rng.normal_like(x)) - 1


@dataclass(frozen=True)
class CameraNoise(Noise):
    """Sensor noise: variance `gain` v + `read`^2 for values v on [0, 1] (Foi et al. 2008)."""

    gain: float = 0.01
    read: float = 0.02

    def __post_init__(self) -> None:
        _positive("gain", self.gain)
        _positive("read", self.read)

    def variance(self, x: Tensor) -> Tensor:
        return 4 * (self.gain * _unit(x) + self.read**2)

    def add(self, x: Tensor, rng: BatchRng) -> Tensor:
        return x + self.variance(x).sqrt() * rng.normal_like(x)


PerChannel = float | tuple[float, ...]


@dataclass(frozen=True)
class CorrelatedNoise(Noise):
    r"""Gaussian noise that is alike in neighbouring pixels, as of demosaicing, resizing, compression or the lines of a sensor.

    White noise smoothed by a Gaussian of `width` pixels, of standard deviation `sigma` after it; stripes, one value for each of
    the `rows` or `columns`; and `white` noise. In grey levels of 255, for all channels or one for each. It is stationary, so its
    covariance is nearly diagonal in the cosine basis, with the spectrum (H x W pixels, k_y < H, k_x < W)

        S(k) = sigma^2 g(k) / mean(g) + [k_x = 0] rows^2 W + [k_y = 0] columns^2 H + white^2,
        g(k) = exp(-width^2 pi^2 ((k_y / H)^2 + (k_x / W)^2)),

    the squared transform of the Gaussian (Jain 1989, Fundamentals of Digital Image Processing, chapter 5: the cosine basis as the
    limit of the eigenvectors of a stationary covariance).
    """

    sigma: PerChannel = 20.0
    width: float = 0.7
    rows: PerChannel = 0.0
    columns: PerChannel = 0.0
    white: PerChannel = 1.0

    def __post_init__(self) -> None:
        values = [v for part in (self.sigma, self.rows, self.columns, self.white) for v in _each(part)]
        if not (all(0 <= v < 1e6 for v in (*values, self.width)) and any(values)):
            raise UserError("the parts of correlated noise must be at least 0, one of them greater than 0")

    def spectrum(self, shape: torch.Size) -> Tensor:
        """The variance of each cosine coefficient on the scale of [-1, 1], (C, H, W), for images of a shape (..., C, H, W)."""
        c, h, w = shape[-3:]
        rows, columns = torch.zeros(h, w), torch.zeros(h, w)
        rows[:, 0], columns[0] = w, h
        low = smooth_power(torch.tensor(self.width), h, w)
        parts = ((self.sigma, low), (self.rows, rows), (self.columns, columns), (self.white, torch.ones(h, w)))
        return torch.stack([self._power(level, c) * power for level, power in parts]).sum(0)

    def __str__(self) -> str:
        """Its parts, e.g. `20.1 of 255 over 0.7 pixels and 1.0 white`."""
        parts = ((self.sigma, f" smooth over {self.width:.1f} pixels"), (self.rows, " in rows"), (self.columns, " in columns"),
                 (self.white, " white"))  # fmt: skip
        found = ["/".join(f"{v:.1f}" for v in _each(level)) + what for level, what in parts if any(_each(level))]
        return "sigma " + ", ".join(found)

    def _power(self, level: PerChannel, channels: int) -> Tensor:
        return (torch.tensor(_each(level)).expand(channels) / HALF_RANGE).square()[:, None, None]

    def variance(self, x: Tensor) -> Tensor:
        """Of each pixel."""
        return self.spectrum(x.shape).mean((1, 2), keepdim=True).to(x).expand_as(x)

    def add(self, x: Tensor, rng: BatchRng) -> Tensor:
        sigma, rows, columns, white = (
            self._power(level, x.shape[1]).sqrt().to(x) for level in (self.sigma, self.rows, self.columns, self.white)
        )
        smoothed = rng.normal_like(x)
        if self.width > 0:
            blur = Blur.gaussian(self.width)
            k = blur.kernel.shape[-1] // 2
            wider = x.new_empty(*x.shape[:2], x.shape[2] + 2 * k, x.shape[3] + 2 * k)
            smoothed = blur(rng.normal_like(wider))[..., k:-k, k:-k] / blur.kernel.square().sum().sqrt()
        lines = rows * rng.normal_like(x[..., :1]) + columns * rng.normal_like(x[..., :1, :])
        return x + sigma * smoothed + lines + white * rng.normal_like(x)


def smooth_power(width: Tensor, h: int, w: int) -> Tensor:
    """g / mean(g) of `CorrelatedNoise`, (h, w), for a `width` () in pixels."""
    down, along = (torch.exp(-(width * math.pi * torch.arange(n) / n).square()) for n in (h, w))
    return torch.outer(down / down.mean(), along / along.mean())


def _each(level: PerChannel) -> tuple[float, ...]:
    return level if isinstance(level, tuple) else (level,)


def measured_variance(noise: Noise | None, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """The variance of the noise in a measurement y (B, C, H, W): read off the smoothed y where it depends on the image.

    `mask` (H, W) is 1 where anything was measured. Without noise it is that of rounding to 8 bits.
    """
    if noise is None:
        return torch.full_like(y, ROUNDING**2)
    clean = y if isinstance(noise, GaussianNoise) else smooth(y, mask)
    return noise.variance(clean).clamp(min=ROUNDING**2)


NOISES: dict[str, type[Noise]] = {
    "gaussian": GaussianNoise,
    "poisson": PoissonNoise,
    "speckle": SpeckleNoise,
    "camera": CameraNoise,
    "correlated": CorrelatedNoise,
}


def _positive(name: str, value: float) -> None:
    if not 0 < value < 1e6:
        raise UserError(f"{name} must be greater than 0 and below a million, not {value}")


def smooth(y: Tensor, mask: Tensor | None = None) -> Tensor:
    """y (B, C, H, W) blurred, to read variances from; only of pixels where `mask` (H, W) is 1."""
    if min(y.shape[-2:]) <= 5:
        return y.mean((-2, -1), keepdim=True).expand_as(y)
    blur = Blur.gaussian(1.5)
    if mask is None:
        return blur(y)
    return blur(y * mask) / blur(mask.expand_as(y)).clamp(min=1e-3)


def salt_and_pepper_mask(y: Tensor, min_difference: float = 0.15) -> Tensor:
    """1 where a value of y (B, C, H, W) is intact, 0 where it is black or white and far from the median of its neighbours."""
    edges = "reflect" if min(y.shape[-2:]) > 1 else "replicate"
    median = functional.unfold(functional.pad(y, (1, 1, 1, 1), mode=edges).flatten(0, 1)[:, None], 3)
    median = median.reshape(*y.shape[:2], 9, *y.shape[2:]).median(dim=2).values
    return 1 - ((y.abs() > 0.995) & ((y - median).abs() > min_difference)).float()
