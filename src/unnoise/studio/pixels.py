"""Images as the page draws them: RGBA, as base64."""

import base64
from typing import Any

import numpy as np
from torch import Tensor

from unnoise import figures

Json = dict[str, Any]


def to_json(pixels: np.ndarray) -> Json:
    """uint8 (H, W, 1, 3 or 4)."""
    h, w, c = pixels.shape
    rgba = np.full((h, w, 4), 255, dtype=np.uint8)
    rgba[..., : max(c, 3)] = pixels
    return {"width": w, "height": h, "rgba": base64.b64encode(rgba.tobytes()).decode()}


def all_to_json(pixels: np.ndarray) -> list[Json]:
    """uint8 (N, H, W, C)."""
    return [to_json(image) for image in pixels]


def in_range(x: Tensor) -> list[Json]:
    """x_t (N, C, H, W), each image scaled to its own range where it exceeds [-1, 1]."""
    return all_to_json(figures.in_range(x))
