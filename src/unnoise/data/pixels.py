"""uint8 pixels and the range [-1, 1] that networks work in: the only place that converts between them."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

HALF_RANGE = 127.5  # grey levels in a unit of [-1, 1]


def from_uint8(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (B, H, W, C) -> float32 (B, C, H, W) on [-1, 1]."""
    return torch.tensor(pixels).to(device).permute(0, 3, 1, 2).float() / HALF_RANGE - 1


def to_uint8(x: Tensor) -> np.ndarray:
    """(B, C, H, W) on [-1, 1] -> uint8 (B, H, W, C), clipped and rounded."""
    return ((x.float().clamp(-1, 1) + 1) * HALF_RANGE).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def to_pil(pixels: np.ndarray) -> Image.Image:
    """uint8 (H, W, 1 or 3) as a Pillow image."""
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
