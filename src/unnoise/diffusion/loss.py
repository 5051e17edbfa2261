r"""The training loss, one number per image.

    loss_b = w_b mean_{c,h,w} rho((x_hat - x) / c_out(t))

(x_hat - x) / c_out is the error of the network's own output, whatever it predicts: with the target epsilon and
rho = |.| this is the mean absolute error of the predicted noise, with EDM's preconditioning and rho = (.)^2 it is
EDM's weighted loss (Karras et al. 2022, equation 8).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.schedules import add_noise, per_image
from unnoise.utils.errors import UserError


class Loss(ABC):
    """rho: the loss of each error, elementwise."""

    @abstractmethod
    def __call__(self, error: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class L1(Loss):
    """|e|."""

    def __call__(self, error: Tensor) -> Tensor:
        return error.abs()


@dataclass(frozen=True)
class L2(Loss):
    """e^2."""

    def __call__(self, error: Tensor) -> Tensor:
        return error.square()


@dataclass(frozen=True)
class Huber(Loss):
    """e^2 / 2 up to `delta`, then delta (|e| - delta / 2) (Huber 1964)."""

    delta: float = 1.0

    def __post_init__(self) -> None:
        if self.delta <= 0:
            raise UserError(f"Huber's delta must be positive, not {self.delta}")

    def __call__(self, error: Tensor) -> Tensor:
        return functional.huber_loss(error, error.new_zeros(()).expand_as(error), reduction="none", delta=self.delta)


@dataclass(frozen=True)
class PseudoHuber(Loss):
    """sqrt(e^2 + c^2) - c (Charbonnier et al. 1997): |e| but for errors about as small as c, where it is smooth."""

    c: float = 0.03

    def __post_init__(self) -> None:
        if self.c <= 0:
            raise UserError(f"pseudo-Huber's c must be positive, not {self.c}")

    def __call__(self, error: Tensor) -> Tensor:
        return (error.square() + self.c**2).sqrt() - self.c


LOSSES: dict[str, type[Loss]] = {"l1": L1, "l2": L2, "huber": Huber, "pseudo-huber": PseudoHuber}


def diffusion_loss(
    denoiser: Denoiser,
    x: Tensor,
    t: Tensor,
    noise: Tensor,
    label: Tensor | None = None,
    loss: Loss | None = None,
    weight: Tensor | None = None,
    **cond: Tensor,
) -> Tensor:
    """The loss of each image, (B,).

    x and noise are (B, C, H, W), t (B,), label and weight (B,) or None; `loss` is L2 by default; `cond` goes to the denoiser.
    """
    x_hat = denoiser(add_noise(denoiser.schedule, x, t, noise), t, label, **cond)
    error = (x_hat - x) / per_image(denoiser.output_scale(t), x)
    each = (loss or L2())(error).flatten(1).mean(1)
    return each if weight is None else weight * each
