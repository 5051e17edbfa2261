r"""Guidance: denoisers that wrap a denoiser and push its estimate away from a worse one.

    x_hat = x_bad + w (x_good - x_bad)                             w = 1 is no guidance

The worse estimate is that without a label (classifier-free guidance, Ho & Salimans 2022) or that of an earlier, less trained
model (autoguidance, Karras et al. 2024, arXiv 2406.02507). In noise and in velocity the formula is the same.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unnoise.denoiser import Denoiser
from unnoise.errors import UserError


class Guidance(ABC):
    """What a recipe holds of guidance: a frozen dataclass that wraps a denoiser."""

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
    """Of strength `scale`, where the noise level sigma / alpha lies in (`low`, `high`] (Kynkäänniemi et al. 2024)."""

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
    """Away from the estimate that knows no label. `rescale` brings the spread of the estimate back by that share
    (Lin et al. 2024, equations 15 and 16, here for the picture)."""

    needs_labels: ClassVar[bool] = True
    rescale: float = 0.0

    def wrap(self, denoiser: Denoiser, guide: Denoiser | None = None) -> Denoiser:
        return ClassGuided(denoiser, self)


@dataclass(frozen=True)
class AutoGuidance(_Scaled):
    """Away from the estimate of the run's own early snapshot."""

    needs_guide: ClassVar[bool] = True

    def wrap(self, denoiser: Denoiser, guide: Denoiser | None = None) -> Denoiser:
        if guide is None:
            raise UserError("autoguidance needs an early snapshot, guide.safetensors, which this run lacks: "
                            "choose --sampling.guidance none or class")  # fmt: skip
        return AutoGuided(denoiser, guide, self)


GUIDANCES: dict[str, type[Guidance]] = {"none": NoGuidance, "class": ClassGuidance, "auto": AutoGuidance}


class _Guided(Denoiser):
    """Guided where the noise level lies in the interval, plain elsewhere."""

    def __init__(self, denoiser: Denoiser, how: _Scaled) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.how = denoiser, denoiser.schedule, how

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        ratio = self.schedule.ratio(t if t.ndim == 0 else t[0]).clamp(max=1e9)  # a sampler's pictures are all at one time
        if not self.how.low < ratio <= self.how.high:
            plain: Tensor = self.denoiser(x_t, t, label)
            return plain
        return self._guide(x_t, t, label)

    @abstractmethod
    def _guide(self, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor: ...


class ClassGuided(_Guided):
    """Both estimates in one call of the network, on a batch twice as large."""

    how: ClassGuidance

    def _guide(self, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        if label is None:
            raise UserError("class guidance needs labels: the model was trained without, choose --sampling.guidance auto")
        both = torch.cat([label, torch.full_like(label, -1)])
        good, bad = self.denoiser(x_t.repeat(2, 1, 1, 1), t.repeat(2) if t.ndim else t, both).chunk(2)
        guided = torch.lerp(bad, good, self.how.scale)
        if not self.how.rescale:
            return guided
        wanted, has = (x.flatten(1).std(1)[:, None, None, None] for x in (good, guided))
        return torch.lerp(guided, guided * (wanted / has), self.how.rescale)


class AutoGuided(_Guided):
    """The estimate, away from that of a less trained denoiser."""

    def __init__(self, denoiser: Denoiser, guide: Denoiser, how: AutoGuidance) -> None:
        super().__init__(denoiser, how)
        self.guide = guide

    def _guide(self, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return torch.lerp(self.guide(x_t, t, label), self.denoiser(x_t, t, label), self.how.scale)
