"""How much noise a picture holds: when nobody says, and where it depends on the picture."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unnoise.draws import PictureNoise
from unnoise.errors import UserError
from unnoise.restore.operators import Blur


def estimate_sigma(y: Tensor) -> float:
    """Standard deviation of the white Gaussian noise in one picture y (C, H, W), in the units of y.

    From the median of its finest wavelet coefficients (Donoho & Johnstone 1994), by scikit-image, averaged over channels.
    It reads low on strong noise that was clipped, and on very small pictures what is estimated is a guess.
    """
    from skimage.restoration import estimate_sigma as by_wavelets

    return float(by_wavelets(y.double().cpu().numpy(), average_sigmas=True, channel_axis=0))


def refine_sigma(y: Tensor, sigma: float, denoise: Callable[[Tensor, float], Tensor], most: float, rounds: int = 4) -> float:
    """A noise level that the denoiser's own residual agrees with, from a first guess `sigma`, for y (B, C, H, W).

    With E[x | y] the mean of |y - x_hat|^2 is sigma^2 (1 - div x_hat / N) (Stein 1981); the divergence is estimated with one
    random direction. Solved for sigma a few times over, never above `most`.
    """
    probe = PictureNoise(0, range(len(y)), "divergence").normal_like(y).sign()
    for _ in range(rounds):
        sigma = min(sigma, most)
        x_hat, small = denoise(y, sigma), 0.1 * sigma
        divergence = float((probe * (denoise(y + small * probe, sigma) - x_hat)).mean()) / small
        found = float((y - x_hat).square().mean()) / max(0.05, 1 - divergence)
        sigma = 0.5 * sigma + 0.5 * found**0.5  # half way: the residual itself depends on sigma
    return min(sigma, most)


class Noise(ABC):
    """Noise whose variance depends on the picture."""

    @abstractmethod
    def variance(self, x: Tensor) -> Tensor:
        """On [-1, 1], for each value of the clean picture x (B, C, H, W) on [-1, 1]."""

    @abstractmethod
    def add(self, x: Tensor, noise: PictureNoise) -> Tensor:
        """y, drawn; not clipped."""


def _unit(x: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1], cut there."""
    return ((x + 1) / 2).clamp(0, 1)


@dataclass(frozen=True)
class GaussianNoise(Noise):
    """The same everywhere; `sigma` in 1/255."""

    sigma: float = 25.0

    def __post_init__(self) -> None:
        _positive("sigma", self.sigma)

    def variance(self, x: Tensor) -> Tensor:
        return torch.full_like(x, (self.sigma / 127.5) ** 2)

    def add(self, x: Tensor, noise: PictureNoise) -> Tensor:
        return x + self.sigma / 127.5 * noise.normal_like(x)


@dataclass(frozen=True)
class PoissonNoise(Noise):
    """Photons: a white pixel counts `peak` of them on average."""

    peak: float = 30.0

    def __post_init__(self) -> None:
        _positive("peak", self.peak)

    def variance(self, x: Tensor) -> Tensor:
        # A dark pixel counts some, once blurred: half a photon keeps its weight finite.
        return 4 * (_unit(x) * self.peak).clamp(min=0.5) / self.peak**2

    def add(self, x: Tensor, noise: PictureNoise) -> Tensor:
        return 2 * noise.poisson(_unit(x) * self.peak) / self.peak - 1


@dataclass(frozen=True)
class SpeckleNoise(Noise):
    """Each value times 1 + `sigma` n, as in radar and ultrasound."""

    sigma: float = 0.2

    def __post_init__(self) -> None:
        _positive("sigma", self.sigma)

    def variance(self, x: Tensor) -> Tensor:
        return (2 * self.sigma * _unit(x)).square().clamp(min=1e-5)

    def add(self, x: Tensor, noise: PictureNoise) -> Tensor:
        return 2 * _unit(x) * (1 + self.sigma * noise.normal_like(x)) - 1


@dataclass(frozen=True)
class CameraNoise(Noise):
    """A sensor's: variance `gain` v + `read`^2 for values v on [0, 1] (Foi et al. 2008)."""

    gain: float = 0.01
    read: float = 0.02

    def __post_init__(self) -> None:
        _positive("gain", self.gain)
        _positive("read", self.read)

    def variance(self, x: Tensor) -> Tensor:
        return 4 * (self.gain * _unit(x) + self.read**2)

    def add(self, x: Tensor, noise: PictureNoise) -> Tensor:
        return x + self.variance(x).sqrt() * noise.normal_like(x)


NOISES: dict[str, type[Noise]] = {
    "gaussian": GaussianNoise,
    "poisson": PoissonNoise,
    "speckle": SpeckleNoise,
    "camera": CameraNoise,
}


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UserError(f"{name} must be greater than 0, not {value}")


def smoothed(y: Tensor) -> Tensor:
    """A rough picture of what is below the noise, to read variances from."""
    return Blur.gaussian(1.5)(y) if min(y.shape[-2:]) > 5 else y.mean((-2, -1), keepdim=True).expand_as(y)


def salt_and_pepper(y: Tensor, least: float = 0.15) -> Tensor:
    """Which values (B, C, H, W) are whole, as 1: neither at an end of [-1, 1] and far from the median of their neighbours."""
    median = functional.unfold(functional.pad(y, (1, 1, 1, 1), mode="reflect").flatten(0, 1)[:, None], 3)
    median = median.reshape(*y.shape[:2], 9, *y.shape[2:]).median(dim=2).values
    return 1 - ((y.abs() > 0.995) & ((y - median).abs() > least)).float()
