"""The loss on held-out images, by noise level."""

import numpy as np
import torch

from unnoise.data.dataset import ImageDataset
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.loss import Loss, diffusion_loss
from unnoise.diffusion.timesteps import TrainingTimes
from unnoise.utils import rng
from unnoise.utils.runtime import SINGLE, Runtime

LEVELS = 8  # of noise


@torch.no_grad()
def held_out_loss(denoiser: Denoiser, images: ImageDataset, loss: Loss, times: TrainingTimes, seed: int = 0,
                  runtime: Runtime = SINGLE, max_images: int = 256) -> list[float]:  # fmt: skip
    """The loss at `LEVELS` noise levels, evenly spaced over those that training sees; their mean is comparable to its loss.

    Of at most `max_images` images, spread evenly over all, always under the same noise, so that only the denoiser changes it.
    """
    count = min(max_images, len(images))
    mine = slice(0, count) if images.per_process or count < runtime.world_size else runtime.shard(count)
    chosen = np.linspace(0, len(images) - 1, count).round().astype(int)[mine]
    x = images.tensor(chosen, runtime.device)
    label = None if images.labels is None else torch.from_numpy(images.labels[chosen]).to(runtime.device)
    sums = []
    for level in range(LEVELS):
        t = times(torch.full((len(x),), (level + 0.5) / LEVELS), denoiser.schedule).to(runtime.device)
        noise = rng.normal(rng.stream(seed, "held out", level), (count, *x.shape[1:]))[mine].to(runtime.device)
        with runtime.autocast():
            sums.append(diffusion_loss(denoiser, x, t, noise, label, loss).sum())
    total = runtime.sum(torch.stack([*sums, torch.tensor(float(len(x)), device=runtime.device)]))
    return [float(v) for v in total[:-1] / total[-1]]
