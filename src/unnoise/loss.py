r"""The loss: how wrong a denoiser's estimate is, one number a picture.

    loss_b = w_b mean_{c,h,w} rho((x_hat - x) / c_out(t))

(x_hat - x) / c_out is the error of the network's own output, whatever it predicts: with the noise target and
rho = |.| this is the mean absolute error of the predicted noise, with Karras preconditioning and rho = (.)^2 it is
EDM's weighted loss (Karras et al. 2022, equation 8).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from unnoise.denoiser import Denoiser
from unnoise.errors import UserError
from unnoise.noise import add_noise, per_picture


class Penalty(ABC):
    """rho: an error to what it costs, elementwise."""

    @abstractmethod
    def __call__(self, error: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class L1(Penalty):
    """|e|."""

    def __call__(self, error: Tensor) -> Tensor:
        return error.abs()


@dataclass(frozen=True)
class L2(Penalty):
    """e^2."""

    def __call__(self, error: Tensor) -> Tensor:
        return error.square()


@dataclass(frozen=True)
class Huber(Penalty):
    """e^2 / 2 up to `delta`, then delta (|e| - delta / 2) (Huber 1964)."""

    delta: float = 1.0

    def __post_init__(self) -> None:
        if self.delta <= 0:
            raise UserError(f"Huber's delta must be positive, not {self.delta}")

    def __call__(self, error: Tensor) -> Tensor:
        return functional.huber_loss(error, error.new_zeros(()).expand_as(error), reduction="none", delta=self.delta)


LOSSES: dict[str, type[Penalty]] = {"l1": L1, "l2": L2, "huber": Huber}


def diffusion_loss(
    denoiser: Denoiser,
    x: Tensor,
    t: Tensor,
    noise: Tensor,
    label: Tensor | None = None,
    penalty: Penalty | None = None,
    weight: Tensor | None = None,
    augmented: Tensor | None = None,
) -> Tensor:
    """The loss of each picture, (B,): x and noise (B, C, H, W), t (B,), label and weight (B,) or None; L2 by default.

    `augmented` (B, 6) says how pictures were moved, for denoisers that can be told.
    """
    told = {} if augmented is None else {"augmented": augmented}
    x_hat = denoiser(add_noise(denoiser.schedule, x, t, noise), t, label, **told)
    error = (x_hat - x) / per_picture(denoiser.output_scale(t), x)
    loss = (penalty or L2())(error).flatten(1).mean(1)
    return loss if weight is None else weight * loss
