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

ENOUGH = 0.1  # of a picture, to estimate its noise from


def estimate_sigma(y: Tensor) -> float:
    """Standard deviation of the white Gaussian noise in one picture y (C, H, W) on [-1, 1].

    From the median size of its finest wavelet coefficients (Donoho & Johnstone 1994), of all channels. In a picture that was
    clipped only those count that lie far from black and white, if there are enough of them. On small pictures it is a guess.
    Raises UserError below 8 pixels.
    """
    import pywt

    if min(y.shape[1:]) < 8:
        raise UserError(f"a picture of {y.shape[1]}x{y.shape[2]} is too small to estimate its noise: say how much there is")
    finest = torch.from_numpy(pywt.dwtn(y.double().cpu().numpy(), "db2", axes=(1, 2))["dd"])  # (C, about H/2, W/2)

    def robust(coefficients: Tensor) -> float:
        return float(coefficients[coefficients != 0].abs().nan_to_num().median()) / 0.6745 if coefficients.any() else 0.0

    sigma = robust(finest)
    for _ in range(3):
        counts = functional.interpolate(inside(y[None], sigma), finest.shape[1:], mode="nearest")[0] > 0
        if counts.float().mean() < ENOUGH:
            break
        sigma = robust(finest[counts])
    return sigma


def inside(y: Tensor, sigma: float) -> Tensor:
    """Which values of y (B, C, H, W) noise can't have clipped, as 1: all, if some go beyond [-1, 1]."""
    if y.abs().amax() > 1:
        return torch.ones_like(y)
    return (smoothed(y).abs() < 1 - 2 * sigma).to(y)


def refine_sigma(y: Tensor, sigma: float, denoise: Callable[[Tensor, float], Tensor], most: float, rounds: int = 12) -> float:
    """A noise level that the denoiser's own residual agrees with, from a first guess `sigma`, for y (B, C, H, W).

    With E[x | y] the mean of |y - x_hat|^2 is sigma^2 (1 - div x_hat / N) (Stein 1981); the divergence is estimated with one
    random direction, where nothing was clipped. Solved for sigma until it moves by less than 1 %, never above `most`.
    """
    probe = PictureNoise(0, range(len(y)), "divergence").normal_like(y).sign()
    counts = inside(y, sigma)
    counts = counts / counts.mean() if counts.mean() >= ENOUGH else torch.ones_like(y)
    for _ in range(rounds):
        before = sigma = min(sigma, most)
        x_hat, small = denoise(y, sigma), 0.1 * sigma
        divergence = float((counts * probe * (denoise(y + small * probe, sigma) - x_hat)).mean()) / small
        found = float((counts * (y - x_hat).square()).mean()) / max(0.05, 1 - divergence)
        sigma = 0.5 * sigma + 0.5 * found**0.5  # half way: the residual itself depends on sigma
        if abs(sigma / before - 1) < 0.01:
            break
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
    if not 0 < value < 1e6:
        raise UserError(f"{name} must be greater than 0 and below a million, not {value}")


def smoothed(y: Tensor, kept: Tensor | None = None) -> Tensor:
    """A rough picture of what is below the noise, to read variances from; only from where `kept` (H, W) is 1."""
    if min(y.shape[-2:]) <= 5:
        return y.mean((-2, -1), keepdim=True).expand_as(y)
    smooth = Blur.gaussian(1.5)
    if kept is None:
        return smooth(y)
    return smooth(y * kept) / smooth(kept.expand_as(y)).clamp(min=1e-3)


def salt_and_pepper(y: Tensor, least: float = 0.15) -> Tensor:
    """Which values (B, C, H, W) are whole, as 1: neither at an end of [-1, 1] and far from the median of their neighbours."""
    edges = "reflect" if min(y.shape[-2:]) > 1 else "replicate"
    median = functional.unfold(functional.pad(y, (1, 1, 1, 1), mode=edges).flatten(0, 1)[:, None], 3)
    median = median.reshape(*y.shape[:2], 9, *y.shape[2:]).median(dim=2).values
    return 1 - ((y.abs() > 0.995) & ((y - median).abs() > least)).float()
