"""Networks: `(x, c_noise, label) -> like x`. They know nothing of diffusion.

A network may also take `augmented` (B, 6): how each picture was moved (`unnoise.data.augment`), None if none was.
c_noise is a fourth of the logarithm of the noise level, or the step for a network with `counts_steps = True`.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from unnoise.errors import UserError


class Unit(nn.Module):
    """A part of a network that is one where memory is saved: its inside is computed again, or its weights gathered, at once."""


class NetworkPlan(ABC):
    """What a recipe holds of a network: a frozen dataclass that builds it."""

    takes_labels: ClassVar[bool] = True
    takes_augmentation: ClassVar[bool] = True

    @property
    @abstractmethod
    def multiple(self) -> int:
        """Height and width must be multiples of it."""

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises UserError where (height, width) does not fit, naming one that does."""
        if any(side % self.multiple for side in size):
            fits = [max(self.multiple, round(side / self.multiple) * self.multiple) for side in size]
            raise UserError(f"this network needs height and width in multiples of {self.multiple}, not {size[0]}x{size[1]}: "
                            f"try --size {fits[0]},{fits[1]}, or fewer --network.widths")  # fmt: skip

    @abstractmethod
    def build(self, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        """The network for pictures of `channels` x `size` (height, width), with `classes` classes (0: no labels).

        Raises UserError where the size does not fit.
        """
