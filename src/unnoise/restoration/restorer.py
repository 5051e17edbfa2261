"""`Restorer`: what restores images of any size with a denoiser of one size."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.samplers import DDPM
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.restoration.noise import CorrelatedNoise, refine_sigma
from unnoise.restoration.operators import Crop
from unnoise.restoration.posteriors import Measurement, Posterior, Spectral, denoise, denoise_by_sampling
from unnoise.restoration.restore import OnProgress, Restored, follow, ignore, padded_size, restore
from unnoise.restoration.spectrum import find_correlation
from unnoise.restoration.tiling import TiledDenoiser
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

QUICK_STEPS = 10  # of a sample that only the noise is read from
MAX_LARGER = 4  # times the pixels trained on: larger images are taken a tile at a time


@dataclass(frozen=True)
class Restorer:
    """Restores with a denoiser that was trained on images of `shape` (C, H, W) and takes sides that `size_divisor` divides.

    `sampling` is how samples are made; restoration never clamps estimates and starts from noise, whatever it says of these.
    Images are (B, C, H, W) on [-1, 1] and come back on the CPU. Labels are (B,) int64 or None.
    """

    denoiser: Denoiser
    shape: tuple[int, int, int]
    size_divisor: int
    sampling: SamplingConfig
    device: str = "cpu"

    def denoise(self, y: Tensor, sigma: float, label: Tensor | None = None) -> Tensor:
        """E[x | y] for images y with white noise of `sigma` in them, by one call of the network.

        Edges are mirrored outwards to a size that the network takes. Raises UserError for noise beyond the schedule's, values
        that are not finite, and images smaller than `size_divisor`.
        """
        denoiser, padded = self._pad(y)
        x = denoise(denoiser, padded, sigma, label)
        return x[..., : y.shape[2], : y.shape[3]].cpu()

    def sample_denoised(
        self, y: Tensor, sigma: float, samples: int = 8, seed: int = 0, label: Tensor | None = None,
        on_progress: OnProgress = ignore,
    ) -> Restored:  # fmt: skip
        """Samples of p(x | y), sharper than its mean: the sampler goes on from y's own time. As `denoise` for the rest."""
        denoiser, padded = self._pad(y)
        found = []
        for k in range(samples):
            rng = BatchRng(seed, range(len(y)), f"restore {k}")
            records = denoise_by_sampling(denoiser, padded, sigma, self._unclamped(), rng, label)
            found.append(follow(records, on_progress))
        ends, means = (torch.stack(parts) for parts in zip(*found, strict=True))
        return Restored(ends, means.mean(0)).crop((y.shape[2], y.shape[3]))

    def restore(self, measurement: Measurement, method: Posterior | None = None, samples: int = 8, seed: int = 0,
                label: Tensor | None = None, on_progress: OnProgress = ignore) -> Restored:  # fmt: skip
        """Samples of the images behind a measurement, of any size: beyond their edges they are sampled until they fit."""
        c, *size = measurement.shape
        padded = padded_size((size[0], size[1]), self.shape[1:], self.check_size((size[0], size[1])))
        operator = measurement.operator if padded == tuple(size) else measurement.operator @ Crop((size[0], size[1]))
        on_device = Measurement(measurement.y.to(self.device), operator, measurement.variance.to(self.device), (c, *padded))
        found = restore(self._sized(padded), on_device, method, self._unclamped(), samples, seed, label, on_progress)
        return found.crop((size[0], size[1]))

    def refine_sigma(self, y: Tensor, guess: float, label: Tensor | None = None) -> float:
        """The noise level of y (1, C, H, W), from a guess, by the residual that the denoiser leaves."""
        highest = float(self.denoiser.schedule.ratio(torch.ones((), dtype=torch.float64)))
        return refine_sigma(y, max(guess, 0.002), partial(self.denoise, label=label), highest)

    def find_correlation(self, y: Tensor, sigma: float, label: Tensor | None = None) -> CorrelatedNoise | None:
        """The noise of y (1, C, H, W), where white noise of `sigma` was estimated, if it is correlated; None if it is white."""
        quick = replace(self, sampling=replace(self.sampling, steps=QUICK_STEPS))

        def sample(measurement: Measurement, seed: int) -> Tensor:
            labels = None if label is None else label.repeat(len(measurement.y))
            return quick.restore(measurement, Spectral(), 1, seed, labels).samples[0]

        return find_correlation(y, sigma, self.shape[1:], sample)

    def check_size(self, size: tuple[int, int]) -> int:
        """`size_divisor`. Raises UserError for images smaller than it."""
        if min(size) < self.size_divisor:
            raise UserError(f"this run's network needs images of at least {self.size_divisor}x{self.size_divisor} pixels, "
                            f"not {size[0]}x{size[1]}")  # fmt: skip
        return self.size_divisor

    def _pad(self, y: Tensor) -> tuple[Denoiser, Tensor]:
        """The denoiser for y, and y padded to fit it."""
        if not torch.isfinite(y).all():
            raise UserError("the image has values that are not finite: mend it first")
        h, w = y.shape[2:]
        padded = padded_size((h, w), (1, 1), self.check_size((h, w)))
        mirrored = np.pad(y.cpu().numpy(), [(0, 0), (0, 0), (0, padded[0] - h), (0, padded[1] - w)], mode="symmetric")
        return self._sized(padded), torch.from_numpy(mirrored).to(self.device)

    def _sized(self, size: tuple[int, int]) -> Denoiser:
        """The denoiser, tiled for images much larger than those trained on."""
        h, w = self.shape[1:]
        fits = size[0] * size[1] <= MAX_LARGER * h * w or size[0] < h or size[1] < w
        return self.denoiser if fits else TiledDenoiser(self.denoiser, (h, w))

    def _unclamped(self) -> SamplingConfig:
        """Without any clamping to [-1, 1]."""
        sampler = self.sampling.sampler
        sampler = replace(sampler, clamp=False) if isinstance(sampler, DDPM) else sampler
        return replace(self.sampling, sampler=sampler, clamp_estimate=False)
