"""Networks: `(x, c_noise, label) -> like x`. They know nothing of diffusion.

c_noise is a fourth of the logarithm of the noise level, or the step for a network with `counts_steps = True`.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn


class NetworkPlan(ABC):
    """What a recipe holds of a network: a frozen dataclass that builds it."""

    takes_labels: ClassVar[bool] = True

    @abstractmethod
    def build(self, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        """The network for pictures of `channels` x `size` (height, width), with `classes` classes (0: no labels).

        Raises UserError where the size does not fit.
        """
