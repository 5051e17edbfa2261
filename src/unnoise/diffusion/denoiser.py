r"""Denoisers: estimates x_hat of the clean image, all that samplers, the loss and restoration know of a model.

A network F knows nothing of diffusion. Preconditioning turns it into an estimate of x (Karras et al. 2022, equation 7):

    x_hat = c_skip x_t + c_out F(c_in x_t, c_noise, label)

What F is asked to predict is the choice of these coefficients, and of nothing else.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unnoise.diffusion.schedules import Schedule, per_image
from unnoise.utils.errors import UserError
from unnoise.utils.precision import autocast


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


def unit_variance(alpha: Tensor, sigma: Tensor) -> Tensor:
    """The factor that gives x_t unit variance where images have it: 1 on every variance-preserving schedule."""
    return (alpha.square() + sigma.square()).rsqrt()


@dataclass(frozen=True)
class Epsilon(Target):
    """F = eps (Ho et al. 2020): x_hat = (x_t - sigma F) / alpha. Undefined where alpha is 0."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        return Coefficients(unit_variance(alpha, sigma), 1 / alpha, -sigma / alpha)


@dataclass(frozen=True)
class X0(Target):
    """F = x: x_hat = F."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        return Coefficients(unit_variance(alpha, sigma), torch.zeros_like(alpha), torch.ones_like(alpha))


@dataclass(frozen=True)
class Velocity(Target):
    """F = c (alpha eps - sigma x) (Salimans & Ho 2022, section 4), so x = c^2 alpha x_t - c sigma F.

    c = (alpha^2 + sigma^2)^(-1/2) is 1 in the paper, whose schedule preserves the variance.
    """

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        c = unit_variance(alpha, sigma)
        return Coefficients(c, c.square() * alpha, -c * sigma)


@dataclass(frozen=True)
class FlowVelocity(Target):
    """F = eps - x, the velocity of rectified flow (Liu et al. 2022), so x = (x_t - sigma F) / (alpha + sigma)."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        total = alpha + sigma
        return Coefficients(unit_variance(alpha, sigma), 1 / total, -sigma / total)


@dataclass(frozen=True)
class EDM(Target):
    """Input and output of unit variance, error amplified as little as possible (Karras et al. 2022, table 1), for any schedule.

    Theirs has alpha = 1; theirs applied to x_t / alpha at noise level sigma / alpha gives the form here.
    `sigma_data` is the standard deviation of the images' pixels; 0 has it measured when a run begins.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if self.sigma_data < 0:
            raise UserError(f"sigma_data must be at least 0 (0: measured when a run begins), not {self.sigma_data}")

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        if not self.sigma_data:
            raise UserError("target.sigma_data 0 is measured when a run begins: give the images' standard deviation here")
        variance = (alpha * self.sigma_data).square() + sigma.square()
        return Coefficients(
            c_in=variance.rsqrt(),
            c_skip=alpha * self.sigma_data**2 / variance,
            c_out=sigma * self.sigma_data * variance.rsqrt(),
        )


TARGETS: dict[str, type[Target]] = {
    "epsilon": Epsilon,
    "x0": X0,
    "velocity": Velocity,
    "flow": FlowVelocity,
    "edm": EDM,
}


def count_classes(denoiser: "Denoiser") -> int | None:
    """How many classes the denoiser's network has, 0 for none; None where it does not say."""
    found = getattr(getattr(denoiser, "network", None), "classes", None)
    return found if isinstance(found, int) else None


def check_start(schedule: Schedule, target: Target) -> None:
    """Raises UserError for a target from whose prediction no image follows where sampling starts."""
    if isinstance(target, EDM):
        return
    one = torch.ones((), dtype=torch.float64)
    if not all(torch.isfinite(value) for value in target.coefficients(schedule.alpha(one), schedule.sigma(one))):
        raise UserError(f"the target {type(target).__name__.lower()} can't start from pure noise, where this schedule's alpha is "
                        "0: choose target velocity or flow")  # fmt: skip


class Denoiser(nn.Module, ABC):
    """An estimate of the clean image."""

    schedule: Schedule

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        """x_t (B, C, H, W), t (B,) or () in [0, 1], label (B,) int64 or None -> x_hat (B, C, H, W).

        A label of -1, as None, is no label. `cond` is further conditioning, each (B, ...), for networks that take it.
        """

    def output_scale(self, t: Tensor) -> Tensor:
        """|c_out|: an error of x_hat divided by it is an error of the network's own output. 1 if there is none."""
        return torch.ones_like(t)


class NetworkDenoiser(Denoiser):
    """A network with its preconditioning.

    The network is `(x, c_noise, label) -> like x`; c_noise is log(sigma / alpha) / 4 (Karras et al. 2022, table 1) or, for
    a network with `counts_steps = True`, the step 0 .. T-1 (T = 1000 on a continuous schedule, where it is no integer).
    Scales are computed in float32 or better, outside autocast.
    """

    def __init__(self, network: nn.Module, schedule: Schedule, target: Target) -> None:
        super().__init__()
        self.network, self.schedule, self.target = network, schedule, target

    def c_noise(self, t: Tensor) -> Tensor:
        """The network's time input, (B,) -> (B,)."""
        return self._step(t) if self.counts_steps else self._level(self.schedule.ratio(t))

    @property
    def counts_steps(self) -> bool:
        return getattr(self.network, "counts_steps", False)

    def _step(self, t: Tensor) -> Tensor:
        return t * (self.schedule.steps or 1000) - 1

    def _level(self, ratio: Tensor) -> Tensor:
        return ratio.clamp(1e-4, 1e4).log() / 4

    def _coefficients(self, t: Tensor) -> Coefficients:
        return Coefficients(*self.target.coefficients(self.schedule.alpha(t), self.schedule.sigma(t)))

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        t = t.expand(len(x_t))
        return self._estimate(x_t, self._coefficients(t), self.c_noise(t), label, **cond)

    def at_scales(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """x_hat where x_t (B, C, H, W) = alpha x + sigma eps, each (B,) float64: for programs that know no schedule.

        Only sigma / alpha decides how noisy x_t is; alpha may be another than the schedule's.
        """
        ratio = sigma / alpha
        c_noise = self._step(self.schedule.time_at(ratio)) if self.counts_steps else self._level(ratio)
        return self._estimate(x_t, self.target.coefficients(alpha, sigma), c_noise, label)

    def _estimate(self, x_t: Tensor, coefficients: Coefficients, c_noise: Tensor, label: Tensor | None, **cond: Tensor) -> Tensor:
        c_in, c_skip, c_out = (per_image(c, x_t) for c in coefficients)
        output = self.network(c_in * x_t, c_noise.to(x_t), label, **cond)
        if not isinstance(output, Tensor) or output.shape != x_t.shape:
            raise UserError(f"the network {type(self.network).__name__} must return a tensor like its x, {tuple(x_t.shape)}, not "
                            f"{tuple(output.shape) if isinstance(output, Tensor) else f'a {type(output).__name__}'}")  # fmt: skip
        x_hat: Tensor = c_skip * x_t + c_out * output.to(x_t.dtype)
        return x_hat

    def output_scale(self, t: Tensor) -> Tensor:
        return self._coefficients(t).c_out.abs()

    def compile_network(self) -> None:
        """Compile the network (torch.compile) at its next call; its weights keep their names."""
        self.network.compile(dynamic=False)


class AutocastDenoiser(Denoiser):
    """A denoiser that runs in bfloat16; what surrounds it, such as comparing its estimate with a measurement, stays float32."""

    def __init__(self, denoiser: Denoiser, device: str) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.device = denoiser, denoiser.schedule, device

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        with autocast(self.device, True):
            x_hat: Tensor = self.denoiser(x_t, t, label, **cond)
        return x_hat

    def output_scale(self, t: Tensor) -> Tensor:
        return self.denoiser.output_scale(t)
