"""What a network is, and what a recipe holds of one.

A network is a module `(x, c_noise, label) -> like x`: x (B, C, H, W); c_noise (B,), a quarter of the logarithm of the noise level
or, for a network with `counts_steps = True`, the step; label (B,) int64 or None, where -1 is no label. It may also take
`augment_labels` (B, 7), the augmentation of each image (`unnoise.data.augment`), None for none.
"""

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from unnoise.utils.errors import UserError, nearest


class Unit(nn.Module):
    """A part of a network that is checkpointed (activation checkpointing) or gathered (FSDP) as one."""


class NetworkConfig(ABC):
    """The configuration of a network: a frozen dataclass that builds it."""

    @property
    def takes_labels(self) -> bool:
        return True

    @property
    def takes_augmentation(self) -> bool:
        """Whether the network takes `augment_labels`."""
        return True

    @property
    @abstractmethod
    def size_divisor(self) -> int:
        """Height and width must be multiples of it."""

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises UserError where (height, width) does not fit, naming one that does."""
        if any(side % self.size_divisor for side in size):
            fits = [max(self.size_divisor, round(side / self.size_divisor) * self.size_divisor) for side in size]
            raise UserError(f"this network needs height and width in multiples of {self.size_divisor}, not {size[0]}x{size[1]}: "
                            f"try data.size {fits[0]},{fits[1]}, or fewer network.widths")  # fmt: skip

    @abstractmethod
    def build(self, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        """The network for images of `channels` x `size` (height, width), with `classes` classes (0: no labels).

        Raises UserError where the size does not fit.
        """


PLAIN = (bool, int, float, str, tuple, list, type(None))  # defaults that a recipe can hold
GIVEN = ("channels", "size", "classes")  # constructor arguments that the data decide


@dataclass(frozen=True)
class ModuleConfig(NetworkConfig):
    """A plain `nn.Module` class as a network.

    Its constructor gets those of `channels`, `size` (height, width) and `classes` that it names, and `options`, (name, value)
    pairs, to which the constructor's own defaults are added, so that a recipe keeps them. A class attribute `size_divisor` says
    what height and width must be multiples of.
    """

    module: type[nn.Module]
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for name in ("name", "module"):
            if name in self.parameters:
                raise UserError(
                    f"the constructor of {self.module.__name__} takes '{name}', which recipes use themselves: rename it"
                )
        for name, _ in self.options:
            if name not in self.parameters or name in GIVEN:
                own = [n for n in self.parameters if n not in GIVEN]
                raise UserError(f"unknown field '{name}' of the network {self.module.__name__}: "
                                f"{nearest(name, own) if own else 'its constructor takes none'}")  # fmt: skip
        missing = [name for name, p in self.parameters.items()
                   if p.default is p.empty and name not in GIVEN and name not in dict(self.options)]  # fmt: skip
        if missing:
            raise UserError(f"the constructor of {self.module.__name__} needs '{missing[0]}', which is none of "
                            f"{', '.join(GIVEN)}: give it a default, or set network.{missing[0]}")  # fmt: skip
        defaults = {n: p.default for n, p in self.parameters.items() if n not in GIVEN and isinstance(p.default, PLAIN)}
        object.__setattr__(self, "options", tuple((defaults | dict(self.options)).items()))

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Those of the constructor, without *args and **kwargs."""
        found = inspect.signature(self.module).parameters
        return {n: p for n, p in found.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}

    @property
    def takes_labels(self) -> bool:
        return "classes" in self.parameters

    @property
    def takes_augmentation(self) -> bool:
        return "augment_labels" in inspect.signature(self.module.forward).parameters

    @property
    def size_divisor(self) -> int:
        return int(getattr(self.module, "size_divisor", 1))

    def build(self, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        self.check_size(size)
        given = {"channels": channels, "size": size, "classes": classes}
        return self.module(**{k: v for k, v in given.items() if k in self.parameters}, **dict(self.options))
