"""Pictures of pictures: grids, strips and curves, as PNG files, without a window."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from unnoise import files


def to_uint8(x: Tensor) -> np.ndarray:
    """(B, C, H, W) in [-1, 1] -> uint8 (B, H, W, C), clipped and rounded."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def to_image(pixels: np.ndarray) -> Image.Image:
    """uint8 (H, W, 1 or 3) as a Pillow picture."""
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)


def grid(pixels: np.ndarray, columns: int | None = None, least: int = 64) -> Image.Image:
    """uint8 (N, H, W, C) as one picture, row by row; small pictures are enlarged by a whole factor to `least` pixels."""
    n, h, w, c = pixels.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows, gap, scale = math.ceil(n / columns), 2, max(1, least // max(h, w))
    h, w = h * scale, w * scale
    sheet = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, c), 255, dtype=np.uint8)
    for k, picture in enumerate(pixels):
        top, left = gap + k // columns * (h + gap), gap + k % columns * (w + gap)
        sheet[top : top + h, left : left + w] = picture.repeat(scale, 0).repeat(scale, 1)
    return to_image(sheet)


def strip(stages: Sequence[tuple[Tensor, Tensor]], count: int = 10) -> Image.Image:
    """One picture's way from noise, from pairs (x_t, x_hat) each (1, C, H, W): x_t above, the estimate below."""
    chosen = [stages[i] for i in np.linspace(0, len(stages) - 1, min(count, len(stages))).round().astype(int)]
    # x_t of a variance-exploding schedule is far outside [-1, 1]: scale each stage to its own range.
    above = np.concatenate([to_uint8(x / x.abs().amax().clamp(min=1)) for x, _ in chosen])
    below = np.concatenate([to_uint8(x_hat) for _, x_hat in chosen])
    return grid(np.concatenate([above, below]), columns=len(chosen))


def save(picture: Image.Image, path: Path) -> None:
    """Write a PNG atomically."""
    files.write(path, lambda p: picture.save(p, format="PNG"))


def loss_curve(steps: Sequence[int], losses: Sequence[float], path: Path) -> None:
    """Loss against step, with a running mean, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="0.8", linewidth=0.8, label="each step")
    width = max(1, len(losses) // 50)
    if len(losses) >= width:
        mean = np.convolve(losses, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], mean, color="C0", label=f"mean of {width}")
    axes.set(xlabel="step", ylabel="training loss")
    axes.legend(frameon=False)
    files.write(path, lambda p: figure.savefig(p, dpi=120))
