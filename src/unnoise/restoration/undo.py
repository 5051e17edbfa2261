"""Undoing the degradation of one image: white noise whose level is known or not, and any other task.

found = Undoing(restorer, samples=8).undo(y, Deblur(1.5, noise=GaussianNoise(2)))
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unnoise.data.pixels import HALF_RANGE
from unnoise.restoration.noise import CorrelatedNoise
from unnoise.restoration.posteriors import POSTERIORS
from unnoise.restoration.restore import OnProgress, Restored, ignore
from unnoise.restoration.restorer import Restorer
from unnoise.restoration.tasks import Denoise, Task


@dataclass(frozen=True)
class Found:
    """The restored image x (1, C, H, W), the standard deviation of its samples, and what was done.

    `sigma` is the level of white noise on [-1, 1] that was removed; None where it was no white noise.
    """

    x: Tensor
    std: Tensor | None
    said: str
    sigma: float | None = None


@dataclass(frozen=True)
class Undoing:
    """How it is done: the `mode` is `mean`, for white noise alone, one `sample`, or the `average` of `samples`.

    `method` is a name in `POSTERIORS`, by default the one that suits the task; `label` (1,) or None. `on_progress` is called with
    how many more samples are done; in the mode mean, with 1 in all.
    """

    restorer: Restorer
    label: Tensor | None = None
    mode: str = "average"
    samples: int = 8
    method: str | None = None
    seed: int = 0
    on_progress: OnProgress = ignore

    @property
    def count(self) -> int:
        return self.samples if self.mode == "average" else 1

    def denoise(self, y: Tensor, sigma: float, estimated: bool = False) -> Found:
        """Remove white noise of `sigma` from y (1, C, H, W); one that is `estimated` is refined, and may turn out correlated."""
        if estimated:
            sigma = self.restorer.refine_sigma(y, sigma, self.label)
            noise = self.restorer.find_correlation(y, sigma, self.label)
            if noise is not None:
                return self._remove(y, noise)
        said = f"sigma {sigma * HALF_RANGE:.1f} of 255" + " (estimated)" * estimated
        if self.mode != "mean":
            found = self.restorer.sample_denoised(y, sigma, self.count, self.seed, self.label, self.on_progress)
            return Found(found.mean, self._std(found), said, sigma)
        x = self.restorer.denoise(y, sigma, self.label)
        self.on_progress(1)
        return Found(x, None, said, sigma)

    def _remove(self, y: Tensor, noise: CorrelatedNoise) -> Found:
        """Remove correlated noise, which one call of the network can't: the mean is that of samples."""
        whole = self
        if self.mode == "mean":
            whole = replace(self, mode="average", on_progress=lambda part: self.on_progress(part / self.samples))
        found = whole.undo(y, Denoise(noise))
        return replace(found, said=f"correlated noise (estimated), {noise}; {found.said}")

    def undo(self, y: Tensor, task: Task) -> Found:
        """Undo any other degradation of y (1, C, h, w)."""
        name = self.method or task.operator().method
        method = POSTERIORS[name]()
        found = self.restorer.restore(task.measure(y), method, self.count, self.seed, self.label, self.on_progress)
        h, w = task.shown_size((y.shape[2], y.shape[3]))
        std, several = self._std(found), self.count > 1
        said = f"{'mean of ' if several else ''}{self.count} sample{'s' * several} by {name}"
        if several and not method.calibrated:
            said += ", their deviation not calibrated"
        return Found(found.mean[..., :h, :w], None if std is None else std[..., :h, :w], said)

    def _std(self, found: Restored) -> Tensor | None:
        return found.std if self.count > 1 else None


def psnr(y: Tensor, clean: Tensor) -> float:
    """Decibels, of images (1, C, H, W) on [-1, 1], y clipped, where both have pixels."""
    h, w = min(y.shape[2], clean.shape[2]), min(y.shape[3], clean.shape[3])
    error = y.clamp(-1, 1)[..., :h, :w] - clean[..., :h, :w]
    return float(10 * torch.log10(4 / error.double().square().mean()))
