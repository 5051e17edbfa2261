r"""Guidance: denoisers that wrap a denoiser and extrapolate from a worse estimate through its own.

    x_hat = x_bad + w (x_good - x_bad)                             w = 1 is no guidance

The worse estimate is that without a label (classifier-free guidance, Ho & Salimans 2022) or that of an earlier, less trained
model (autoguidance, Karras et al. 2024, arXiv 2406.02507). Written in epsilon or velocity the formula is the same.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.utils.errors import UserError


class Guidance(ABC):
    """A kind of guidance: a frozen dataclass that wraps a denoiser."""

    needs_guide: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False

    @abstractmethod
    def wrap(self, denoiser: Denoiser, guide: Denoiser | None = None) -> Denoiser:
        """The guided denoiser; `guide` is the less trained one, where it is needed."""


@dataclass(frozen=True)
class NoGuidance(Guidance):
    """The denoiser as it is."""

    def wrap(self, denoiser: Denoiser, guide: Denoiser | None = None) -> Denoiser:
        return denoiser


@dataclass(frozen=True)
class _Scaled(Guidance):
    """Of strength `scale`, where the noise level sigma / alpha lies in (`low`, `high`] (Kynkäänniemi et al. 2024).

    The interval is decided for each image by its own time.
    """

    scale: float = 1.5
    low: float = 0.0
    high: float = 1e9

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise UserError(f"the scale of guidance must be at least 0 (1: none), not {self.scale}")
        if not 0 <= self.low < self.high:
            raise UserError(f"guidance needs 0 <= low < high, not {self.low} and {self.high}")


@dataclass(frozen=True)
class ClassGuidance(_Scaled):
    """Classifier-free guidance: the worse estimate is that without a label.

    `rescale` is how far, from 0 to 1, the standard deviation of the estimate is brought back to that of the unguided one
    (Lin et al. 2024, equations 15 and 16, here for x_hat).
    """

    needs_labels: ClassVar[bool] = True
    rescale: float = 0.0

    def wrap(self, denoiser: Denoiser, guide: Denoiser | None = None) -> Denoiser:
        return ClassGuided(denoiser, self)


@dataclass(frozen=True)
class AutoGuidance(_Scaled):
    """Autoguidance: the worse estimate is that of the run's own early snapshot."""

    needs_guide: ClassVar[bool] = True

    def wrap(self, denoiser: Denoiser, guide: Denoiser | None = None) -> Denoiser:
        if guide is None:
            raise UserError("autoguidance needs an early snapshot, guide.safetensors, which this run lacks: "
                            "choose sampling.guidance none or class")  # fmt: skip
        return AutoGuided(denoiser, guide, self)


GUIDANCES: dict[str, type[Guidance]] = {"none": NoGuidance, "class": ClassGuidance, "auto": AutoGuidance}


class Guided(Denoiser):
    """Guided where the noise level lies in the interval, plain elsewhere; decided for each image of a batch."""

    def __init__(self, denoiser: Denoiser, config: _Scaled) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.config = denoiser, denoiser.schedule, config

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        inside = self._inside(t)
        # A sampler's images share one time, a scalar on the CPU, where asking it costs no wait for a device.
        if t.ndim == 0 and not inside:
            plain: Tensor = self.denoiser(x_t, t, label, **cond)
            return plain
        good, guided = self._guide(x_t, t, label, **cond)
        return guided if t.ndim == 0 else torch.where(inside[:, None, None, None], guided, good)

    def shift(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        """The guided estimate less the plain one, (B, C, H, W), at times t (B,)."""
        good, guided = self._guide(x_t, t, label, **cond)
        return (guided - good) * self._inside(t)[:, None, None, None]

    def _inside(self, t: Tensor) -> Tensor:
        """Whether the noise level lies in the interval, in the shape of t."""
        ratio = self.schedule.ratio(t).clamp(max=1e9)
        return (self.config.low < ratio) & (ratio <= self.config.high)

    @abstractmethod
    def _guide(self, x_t: Tensor, t: Tensor, label: Tensor | None, **cond: Tensor) -> tuple[Tensor, Tensor]:
        """The plain estimate and the guided one."""


class ClassGuided(Guided):
    """Both estimates in one call of the network, on a batch twice as large."""

    config: ClassGuidance

    def _guide(self, x_t: Tensor, t: Tensor, label: Tensor | None, **cond: Tensor) -> tuple[Tensor, Tensor]:
        if label is None:
            raise UserError("class guidance needs labels: the model was trained without, choose sampling.guidance auto")
        both = torch.cat([label, torch.full_like(label, -1)])
        twice = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in cond.items()}
        good, bad = self.denoiser(x_t.repeat(2, 1, 1, 1), t.repeat(2) if t.ndim else t, both, **twice).chunk(2)
        guided = torch.lerp(bad, good, self.config.scale)
        if self.config.rescale:
            std_good, std_guided = (x.flatten(1).std(1)[:, None, None, None] for x in (good, guided))
            guided = torch.lerp(guided, guided * (std_good / std_guided), self.config.rescale)
        return good, guided


class AutoGuided(Guided):
    """The estimate, extrapolated from that of a less trained denoiser."""

    def __init__(self, denoiser: Denoiser, guide: Denoiser, config: AutoGuidance) -> None:
        super().__init__(denoiser, config)
        self.guide = guide

    def _guide(self, x_t: Tensor, t: Tensor, label: Tensor | None, **cond: Tensor) -> tuple[Tensor, Tensor]:
        bad, good = self.guide(x_t, t, label, **cond), self.denoiser(x_t, t, label, **cond)
        return good, torch.lerp(bad, good, self.config.scale)
