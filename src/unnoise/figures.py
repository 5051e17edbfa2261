"""Figures as PNG files, animations as GIF or MP4, without a window."""

import importlib.util
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unnoise.data.kinds import HEAD, is_generated
from unnoise.data.pixels import to_pil, to_uint8
from unnoise.diffusion.sampling import SamplingRecord
from unnoise.diffusion.schedules import Schedule, add_noise
from unnoise.utils import atomic
from unnoise.utils.errors import UserError
from unnoise.utils.names import MARK
from unnoise.utils.png import png_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def grid(pixels: np.ndarray, columns: int | None = None, min_side: int = 64) -> Image.Image:
    """uint8 (N, H, W, C) as one image, row by row; small images are enlarged by a whole factor to `min_side` pixels."""
    n, h, w, c = pixels.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows, gap, scale = math.ceil(n / columns), 2, max(1, min_side // max(h, w))
    h, w = h * scale, w * scale
    sheet = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, c), 255, dtype=np.uint8)
    for k, image in enumerate(pixels):
        top, left = gap + k // columns * (h + gap), gap + k % columns * (w + gap)
        sheet[top : top + h, left : left + w] = image.repeat(scale, 0).repeat(scale, 1)
    return to_pil(sheet)


def check_name(path: Path, animated: bool = False, overwrite: bool = False) -> None:
    """Raises UserError, before any work is done, if a figure can't have this name or, unless `overwrite`, another file has it."""
    valid = (".gif", ".mp4") if animated else (".png",)
    if path.suffix not in valid:
        raise UserError(f"this is written as {' or '.join(valid)}: give a name that ends so, not '{path}'")
    if path.suffix == ".mp4" and importlib.util.find_spec("av") is None:
        raise UserError("writing .mp4 needs PyAV: pip install 'unnoise[video]', or choose a .gif")
    if not overwrite:
        refuse_foreign(path)


def refuse_foreign(path: Path, remedy: str = "choose another name, or `overwrite` it") -> None:
    """Raises UserError where a file that this program did not write would be replaced."""
    if path.is_file() and not is_ours(path):
        raise UserError(f"'{path}' is there already, and was not written by unnoise: {remedy}")


def is_ours(path: Path) -> bool:
    """Whether this program wrote the PNG, GIF or MP4."""
    if path.suffix == ".mp4":
        return MARK[1].encode() in path.read_bytes()
    with path.open("rb") as file:
        return is_generated(file.read(HEAD))


def save(image: Image.Image, path: Path, text: Mapping[str, str] | None = None, overwrite: bool = False) -> None:
    """Write a PNG atomically, with `text` in it by keys behind the mark of this program."""
    check_name(path, overwrite=overwrite)
    atomic.write(path, lambda p: image.save(p, format="PNG", pnginfo=png_text(text or {})))


def in_range(x: Tensor) -> np.ndarray:
    """x_t (B, C, H, W) to show, uint8 (B, H, W, C): each image scaled to its own range where it exceeds [-1, 1], as
    variance-exploding noise does."""
    return to_uint8(x / x.abs().amax((1, 2, 3), keepdim=True).clamp(min=1))


def _strip(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], names: Sequence[str], path: Path,
           overwrite: bool) -> None:  # fmt: skip
    """Rows of uint8 images (H, W, C), a title above each column and a name before each row."""
    figure = _figure(1.3 * len(titles) + 0.3, 1.3 * len(rows) + 0.3)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            cell = axes[r, c]
            cell.imshow(to_pil(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            cell.set(xticks=[], yticks=[])
            cell.set_frame_on(False)
            if r == 0:
                cell.set_title(titles[c], fontsize=9)
        axes[r, 0].set_ylabel(names[r], fontsize=9)
    _save(figure, path, overwrite)


def forward_strip(schedule: Schedule, x: Tensor, noise: Tensor, path: Path, count: int = 10,
                  overwrite: bool = False) -> None:  # fmt: skip
    """One image x (1, C, H, W) in [-1, 1] under the same noise at `count` times: steps 0, T/10, 2T/10, ... of T."""
    if schedule.steps is None:
        t = torch.linspace(0, 1, count, dtype=torch.float64)
    else:
        t = (torch.arange(count) * schedule.steps // count + 1).double() / schedule.steps
    titles = [_name_time(float(v), schedule) for v in t]
    _strip([[in_range(add_noise(schedule, x, v, noise))[0] for v in t]], titles, ["x_t"], path, overwrite)


def _name_time(t: float, schedule: Schedule) -> str:
    """The step of a schedule with steps, else the time."""
    if t == 0:
        return "image"
    return f"t = {t:.2g}" if schedule.steps is None else f"t = {t * schedule.steps - 1:.0f}"


def select_steps(records: Iterable[SamplingRecord], count: int = 10, every: int | None = None) -> list[SamplingRecord]:
    """`count` of a trajectory's records, evenly spaced, or each `every`-th; the last is always among them."""
    selected: list[SamplingRecord] = []
    for r in records:
        n = min(count, r.steps)
        due = r.step * n // r.steps > (r.step - 1) * n // r.steps if every is None else r.step % every == 0 or r.step == r.steps
        if due:
            selected.append(r)
    return selected


def reverse_strip(records: Sequence[SamplingRecord], schedule: Schedule, path: Path, overwrite: bool = False) -> None:
    """A trajectory: x_t above, the estimate x_hat that led to it below."""
    rows = [[in_range(r.x[:1])[0] for r in records], [to_uint8(r.x_hat[:1])[0] for r in records]]
    _strip(rows, [_name_time(r.t, schedule) for r in records], ["x_t", "estimate"], path, overwrite)


def schedule_curves(schedules: Mapping[str, Schedule], path: Path, overwrite: bool = False) -> None:
    """alpha, sigma and log SNR of each schedule over t, side by side."""
    t = torch.linspace(0, 1, 501, dtype=torch.float64)
    figure = _figure(11, 3.4)
    alpha, sigma, log_snr = figure.subplots(1, 3)
    for name, schedule in schedules.items():
        alpha.plot(t, schedule.alpha(t), label=name)
        sigma.plot(t, schedule.sigma(t))
        log_snr.plot(t[1:], schedule.log_snr(t[1:]))
    alpha.set(title="alpha")
    sigma.set(title="sigma", yscale="symlog")  # a variance-exploding sigma goes far beyond 1
    log_snr.set(title="log SNR", ylim=(-15, 15))
    for axes in (alpha, sigma, log_snr):
        axes.set(xlabel="t (0: the image, 1: the most noise)")
        axes.grid(alpha=0.2)
    alpha.legend(frameon=False, fontsize=8)
    _save(figure, path, overwrite)


def loss_curve(
    steps: Sequence[int],
    losses: Sequence[float],
    path: Path,
    held_out: tuple[Sequence[int], Sequence[float]] | None = None,
    overwrite: bool = False,
) -> None:
    """Loss against step, with a running mean and, where there is one, the loss on held-out images."""
    figure = _figure(7, 4)
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="0.8", linewidth=0.8, label="each step")
    width = max(1, len(losses) // 50)
    mean = np.convolve(losses, np.ones(width) / width, mode="valid")
    axes.plot(steps[width - 1 :], mean, color="C0", label=f"mean of {width}")
    if held_out is not None:
        axes.plot(*held_out, color="C1", marker="o", markersize=3, label="held out, averaged weights")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend(frameon=False)
    _save(figure, path, overwrite)


def animation(records: Iterable[SamplingRecord], path: Path, every: int | None = None, overwrite: bool = False) -> None:
    """Images becoming clear, a frame a step (at most 100), or each `every`-th step."""
    check_name(path, animated=True, overwrite=overwrite)
    frames = [grid(in_range(r.x)) for r in select_steps(records, 100, every)]
    film(frames, path, overwrite=overwrite)


def film(frames: Sequence[Image.Image], path: Path, seconds: float = 5.0, hold: float = 1.5,
         overwrite: bool = False) -> None:  # fmt: skip
    """Frames one after the other, the last one held: `path` ends in .gif, or in .mp4 (needs PyAV)."""
    check_name(path, animated=True, overwrite=overwrite)
    each = seconds / len(frames)
    if path.suffix == ".gif":
        times = [round(1000 * each)] * (len(frames) - 1) + [round(1000 * hold)]
        how = {"save_all": True, "append_images": frames[1:], "duration": times, "loop": 0, "comment": MARK[1].encode()}
        atomic.write(path, lambda p: frames[0].save(p, "GIF", **how))
    else:
        rate = max(1, round(1 / each))
        atomic.write(path, lambda p: _write_mp4(p, [*frames, *[frames[-1]] * round(hold * rate)], rate))


def _write_mp4(path: Path, frames: Sequence[Image.Image], rate: int) -> None:
    import av

    with av.open(str(path), "w") as file:
        file.metadata["comment"] = MARK[1]
        stream: Any = file.add_stream("libx264", rate=rate)
        width, height = (side // 2 * 2 for side in frames[0].size)  # 4:2:0 colour needs even sides
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_image(frame.convert("RGB").crop((0, 0, width, height)))))
        file.mux(stream.encode())


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path, overwrite: bool) -> None:
    check_name(path, overwrite=overwrite)
    atomic.write(path, lambda p: figure.savefig(p, dpi=120, metadata=dict([MARK])))
