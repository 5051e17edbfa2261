"""Pixels of 8 and 16 bits and the range [-1, 1] that networks work in: the only place that converts between them."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unnoise.utils.runtime import copy_to

HALF_RANGE = 127.5  # grey levels in a unit of [-1, 1]
HALF_RANGE_16 = 32767.5  # the same for 16 bits


def from_uint8(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (B, H, W, C) -> float32 (B, C, H, W) on [-1, 1]."""
    return copy_to(torch.tensor(pixels), device).permute(0, 3, 1, 2).float() / HALF_RANGE - 1


def to_uint8(x: Tensor) -> np.ndarray:
    """(B, C, H, W) on [-1, 1] -> uint8 (B, H, W, C), clipped and rounded."""
    return ((x.float().clamp(-1, 1) + 1) * HALF_RANGE).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def to_pil(pixels: np.ndarray) -> Image.Image:
    """uint8 (H, W, C) as a Pillow image: grey, grey and alpha, colour, or colour and alpha."""
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)


def from_uint16(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint16 (B, H, W, C) -> float32 (B, C, H, W) on [-1, 1]."""
    return torch.from_numpy(pixels.astype(np.float32)).to(device).permute(0, 3, 1, 2) / HALF_RANGE_16 - 1


def to_uint16(x: Tensor) -> np.ndarray:
    """(B, C, H, W) on [-1, 1] -> uint16 (B, H, W, C), clipped and rounded."""
    levels = ((x.double().clamp(-1, 1) + 1) * HALF_RANGE_16).round().permute(0, 2, 3, 1)
    return levels.cpu().numpy().astype(np.uint16)
