r"""Augmentation that does not leak into samples (Karras et al. 2022, appendix F.2).

Each image is transformed by a random affine map whose parameters condition the network, the augmentation labels. Sampling uses
labels of 0, the identity. Each kind of transformation is applied with the same probability, independently.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

KINDS = 6  # flip, scale, rotation, stretch, shift across, shift down
LABELS = 7  # flip, log scale, cos(angle) - 1, sin(angle), log stretch, shift across, shift down
WHOLE_PIXELS = 32  # sides of at most so many pixels are shifted by whole ones: between them there is little else to see


def augment(x: Tensor, u: Tensor, z: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """Augment x (B, C, H, W), given uniform u (B, 6) and standard normal z (B, 6): gives the images and their labels (B, 7).

    Distributions as in the paper's table 6: scale and stretch 2^(0.2 z), angles uniform, shifts 0.125 z of the side, whole pixels
    on sides of at most 32. Beyond its edges the image is mirrored.
    """
    applied = (u < probability).to(x)
    flip = applied[:, 0]
    scale, stretch = (0.2 * math.log(2) * z[:, k].to(x) * applied[:, k] for k in (1, 3))
    angle = (2 * math.pi * torch.special.ndtr(z[:, 2]) - math.pi).to(x) * applied[:, 2]
    across, down = (_shift(z[:, k].to(x), side) * applied[:, k] for k, side in ((4, x.shape[3]), (5, x.shape[2])))
    x = functional.grid_sample(x, _grid(x, flip, scale, angle, stretch, across, down), padding_mode="reflection",
                               align_corners=False)  # fmt: skip
    return x, torch.stack([flip, scale, angle.cos() - 1, angle.sin(), stretch, across, down], dim=1)


def _shift(z: Tensor, side: int) -> Tensor:
    """As a fraction of the side, whole pixels of a small one."""
    shift = 0.125 * z
    return (shift * side).round() / side if side <= WHOLE_PIXELS else shift


def _grid(x: Tensor, flip: Tensor, scale: Tensor, angle: Tensor, stretch: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """The position in x of each pixel of the result, (B, H, W, 2): the inverse of flip, scale and rotation, stretch, shift."""
    aspect = x.shape[3] / x.shape[2]  # angles are in pixels, grid_sample's coordinates run from -1 to 1 on both sides
    cos, sin = angle.cos(), angle.sin()
    inverse = torch.exp(-scale)
    a, b = torch.exp(-stretch), torch.exp(stretch)
    mirror = 1 - 2 * flip
    rows = [mirror * inverse * a * cos, mirror * inverse * b * sin / aspect, -2 * across,
            -inverse * a * sin * aspect, inverse * b * cos, -2 * down]  # fmt: skip
    return functional.affine_grid(torch.stack(rows, dim=1).reshape(-1, 2, 3), list(x.shape), align_corners=False)
