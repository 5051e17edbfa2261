r"""Augmentation that does not leak into samples (Karras et al. 2022, appendix F.2).

Each picture is moved by a random affine map, and the network is told which: drawn pictures are asked for with all numbers 0,
the map that changes nothing. Every kind of change happens to a picture with the same probability, by itself.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

NUMBERS = 6  # what the network is told: x flip, log scale, angle, log stretch, shift across, shift down


def augment(x: Tensor, u: Tensor, z: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """x (B, C, H, W) with uniform draws u (B, 6) and normal draws z (B, 6): the moved pictures, and how, (B, 6).

    Spreads as in the paper's table 6: scale and stretch 2^(0.2 z), angles uniform, shifts 0.125 z of the side. What comes in
    from outside is the picture mirrored at its edges.
    """
    happens = (u < probability).to(x)
    flip = happens[:, 0]
    scale, stretch = (0.2 * math.log(2) * z[:, k].to(x) * happens[:, k] for k in (1, 3))
    angle = (2 * math.pi * torch.special.ndtr(z[:, 2]) - math.pi).to(x) * happens[:, 2]
    across, down = (0.125 * z[:, k].to(x) * happens[:, k] for k in (4, 5))
    moved = functional.grid_sample(x, _grid(x, flip, scale, angle, stretch, across, down), padding_mode="reflection",
                                   align_corners=False)  # fmt: skip
    return moved, torch.stack([flip, scale, angle, stretch, across, down], dim=1)


def _grid(x: Tensor, flip: Tensor, scale: Tensor, angle: Tensor, stretch: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Where each place of the result comes from, (B, H, W, 2): the inverse of mirror, scale and turn, stretch, shift."""
    aspect = x.shape[3] / x.shape[2]  # angles are of pixels, grid_sample's sides both run from -1 to 1
    cos, sin = angle.cos(), angle.sin()
    inverse = torch.exp(-scale)
    a, b = torch.exp(-stretch), torch.exp(stretch)
    mirror = 1 - 2 * flip
    rows = [mirror * inverse * a * cos, mirror * inverse * b * sin / aspect, -2 * across,
            -inverse * a * sin * aspect, inverse * b * cos, -2 * down]  # fmt: skip
    return functional.affine_grid(torch.stack(rows, dim=1).reshape(-1, 2, 3), list(x.shape), align_corners=False)
