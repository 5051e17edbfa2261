"""Out of distribution: how unlike the training images an image is."""

import numpy as np
from torch import Tensor

from unnoise.data.dataset import ImageDataset
from unnoise.data.pixels import to_uint8
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.loss import Loss
from unnoise.diffusion.timesteps import TrainingTimes
from unnoise.evaluation.held_out import held_out_loss
from unnoise.utils.runtime import Runtime


def ood_score(denoiser: Denoiser, x: Tensor, size: tuple[int, int], loss: Loss, times: TrainingTimes,
              held_out: float, seed: int = 0, device: str = "cpu") -> float | None:  # fmt: skip
    """The loss on the middle of images x (B, C, H, W) over that on held-out images: far above 1 is out of distribution.

    `size` is the (height, width) trained on, `held_out` the held-out loss. None where x is smaller than that.
    """
    h, w = size
    top, left = (x.shape[2] - h) // 2, (x.shape[3] - w) // 2
    if top < 0 or left < 0:
        return None
    images = ImageDataset(to_uint8(x[..., top : top + h, left : left + w]))
    return float(np.mean(held_out_loss(denoiser, images, loss, times, seed, Runtime(device)))) / held_out
