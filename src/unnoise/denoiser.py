r"""A denoiser estimates the clean picture; it is the only thing that samplers, losses and restoring know of a model.

A network F knows nothing of diffusion. Preconditioning turns it into an estimate of x (Karras et al. 2022, equation 7):

    x_hat = c_skip x_t + c_out F(c_in x_t, c_noise, label)

What F is asked to predict is the choice of these coefficients, and of nothing else.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unnoise.noise import Schedule, per_picture


class Coefficients(NamedTuple):
    """c_in, c_skip, c_out of shape (B,) or ()."""

    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor


class Target(ABC):
    """What the network is asked to predict."""

    @abstractmethod
    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        """The preconditioning at scales alpha and sigma, each of shape (B,) or ()."""


@dataclass(frozen=True)
class NoiseTarget(Target):
    """F = z (Ho et al. 2020): x_hat = (x_t - sigma F) / alpha. Undefined where alpha is 0."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        return Coefficients(torch.ones_like(alpha), 1 / alpha, -sigma / alpha)


@dataclass(frozen=True)
class PictureTarget(Target):
    """F = x."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        one = torch.ones_like(alpha)
        return Coefficients(one, torch.zeros_like(one), one)


@dataclass(frozen=True)
class VelocityTarget(Target):
    """F = alpha z - sigma x (Salimans & Ho 2022, section 4), so x = (alpha x_t - sigma F) / (alpha^2 + sigma^2)."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        total = alpha.square() + sigma.square()
        return Coefficients(total.rsqrt(), alpha / total, -sigma / total)


@dataclass(frozen=True)
class FlowTarget(Target):
    """F = z - x, the velocity of rectified flow (Liu et al. 2022), so x = (x_t - sigma F) / (alpha + sigma)."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        total = alpha + sigma
        return Coefficients(torch.ones_like(alpha), 1 / total, -sigma / total)


@dataclass(frozen=True)
class KarrasTarget(Target):
    """Input and output of unit variance, least error amplified (Karras et al. 2022, table 1), for any schedule.

    Theirs has alpha = 1; theirs applied to x_t / alpha at noise level sigma / alpha gives the form here.
    `sigma_data` is the standard deviation of the pictures' pixels.
    """

    sigma_data: float = 0.5

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        variance = (alpha * self.sigma_data).square() + sigma.square()
        return Coefficients(
            c_in=variance.rsqrt(),
            c_skip=alpha * self.sigma_data**2 / variance,
            c_out=sigma * self.sigma_data * variance.rsqrt(),
        )


TARGETS: dict[str, type[Target]] = {
    "noise": NoiseTarget,
    "picture": PictureTarget,
    "velocity": VelocityTarget,
    "flow": FlowTarget,
    "karras": KarrasTarget,
}


class Denoiser(nn.Module, ABC):
    """An estimate of the clean picture."""

    schedule: Schedule

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, C, H, W), times (B,) or () in [0, 1], classes (B,) or None -> x_hat (B, C, H, W)."""

    def output_scale(self, t: Tensor) -> Tensor:
        """|c_out|: an error of x_hat divided by it is an error of the network's own output. 1 if there is none."""
        return torch.ones_like(t)


class NetworkDenoiser(Denoiser):
    """A network with its preconditioning.

    The network is `(x, c_noise, label) -> like x`; c_noise is log(sigma / alpha) / 4 (Karras et al. 2022, table 1) or, for
    a network that says `counts_steps`, the integer step 0 .. T-1 (T = 1000 on a continuous schedule, and no integer).
    Scales are computed outside autocast in float32 or better; only the network runs in lower precision.
    """

    def __init__(self, network: nn.Module, schedule: Schedule, target: Target) -> None:
        super().__init__()
        self.network, self.schedule, self.target = network, schedule, target

    def c_noise(self, t: Tensor) -> Tensor:
        """What the network is told of the time, (B,) -> (B,)."""
        if getattr(self.network, "counts_steps", False):
            return t * (self.schedule.steps or 1000) - 1
        return self.schedule.ratio(t).clamp(1e-4, 1e4).log() / 4

    def _coefficients(self, t: Tensor) -> Coefficients:
        return self.target.coefficients(self.schedule.alpha(t), self.schedule.sigma(t))

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, augmented: Tensor | None = None) -> Tensor:
        """As for every denoiser; `augmented` (B, 6) tells the network in training how pictures were moved."""
        t = t.expand(len(x_t))
        told = {} if augmented is None else {"augmented": augmented}
        c_in, c_skip, c_out = (per_picture(c, x_t) for c in self._coefficients(t))
        output = self.network(c_in * x_t, self.c_noise(t).to(x_t), label, **told)
        x_hat: Tensor = c_skip * x_t + c_out * output.to(x_t.dtype)
        return x_hat

    def output_scale(self, t: Tensor) -> Tensor:
        return self._coefficients(t).c_out.abs()

    def compile_network(self) -> None:
        """Let torch compile the network, at its next call; weights and their names stay."""
        self.network.compile(dynamic=False)
