"""Figures against what they were given: pixels where they can be compared, else that another input gives another figure."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise import figures
from unnoise.data.pixels import to_uint8
from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.diffusion.samplers import DDIM
from unnoise.diffusion.sampling import SamplingConfig, SamplingRecord, trajectory
from unnoise.diffusion.schedules import SCHEDULES, Flow, Linear
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng


def sample_records(steps: int, count: int = 1) -> list[SamplingRecord]:
    """Of a trajectory to images of a ramp."""
    ramp = torch.linspace(-1, 1, 64).reshape(1, 8, 8)
    denoiser = GaussianDenoiser(Flow(), Moments(ramp, torch.zeros(0, 1, 8, 8), torch.tensor(0.3)))
    rng = BatchRng(0, range(count))
    x = rng.normal_like(torch.empty(count, 1, 8, 8))
    return list(trajectory(denoiser, x, SamplingConfig(DDIM(), steps=steps), rng))


@pytest.mark.parametrize("steps", [1, 4, 10, 33, 300])
def test_selected_steps_are_evenly_spaced_to_the_last(steps: int) -> None:
    """As many as asked for where there are so many, gaps that differ by at most one step, and the last."""
    selected = [r.step for r in figures.select_steps(sample_records(steps), 10)]
    assert len(selected) == min(10, steps) and selected[-1] == steps
    assert steps < 10 or max(np.diff(selected)) - min(np.diff(selected)) <= 1


def test_every_so_many_steps() -> None:
    """Each third of ten, and the last."""
    assert [r.step for r in figures.select_steps(sample_records(10), every=3)] == [3, 6, 9, 10]


def read_grey(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"))


def test_figures_are_images(tmp_path: Path) -> None:
    """Each is a PNG that is not of one colour, and nothing temporary is left; another name is refused."""
    x = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    for name, schedule in SCHEDULES.items():
        figures.forward_strip(schedule(), x, torch.zeros_like(x), tmp_path / f"{name}.png")
        assert read_grey(tmp_path / f"{name}.png").std() > 5
    figures.schedule_curves({name: make() for name, make in SCHEDULES.items()}, tmp_path / "schedules.png")
    figures.reverse_strip(figures.select_steps(sample_records(30)), Flow(), tmp_path / "reverse.png")
    figures.loss_curve([1, 2, 3], [3.0, 2.0, 1.0], tmp_path / "loss.png")
    assert {p.suffix for p in tmp_path.iterdir()} == {".png"}
    with pytest.raises(UserError, match=r"ends so, not '.*loss\.jpg'"):
        figures.loss_curve([1], [1.0], tmp_path / "loss.jpg")


def test_figures_show_what_they_are_given(tmp_path: Path) -> None:
    """The same input twice is the same image; another input is another."""

    def render(draw: Callable[[Path], None]) -> np.ndarray:
        draw(tmp_path / "f.png")
        return read_grey(tmp_path / "f.png").astype(int)

    bright, dark = torch.ones(1, 1, 8, 8), -torch.ones(1, 1, 8, 8)
    many, few = (figures.select_steps(sample_records(30, 1), n) for n in (10, 9))
    other = [dataclasses.replace(r, x_hat=-r.x_hat) for r in many]
    schedules = {name: make() for name, make in SCHEDULES.items()}
    pairs: list[tuple[Callable[[Path], None], Callable[[Path], None]]] = [
        (lambda p: figures.loss_curve([1, 2], [3.0, 1.0], p), lambda p: figures.loss_curve([1, 2], [1.0, 3.0], p)),
        (lambda p: figures.reverse_strip(many, Flow(), p), lambda p: figures.reverse_strip(other, Flow(), p)),
        (lambda p: figures.schedule_curves(schedules, p),
         lambda p: figures.schedule_curves({**schedules, "cosine": Linear(300)}, p)),
        (lambda p: figures.forward_strip(Flow(), bright, 0 * bright, p),
         lambda p: figures.forward_strip(Flow(), dark, 0 * dark, p)),
    ]  # fmt: skip
    for first, second in pairs:
        a, b = render(first), render(second)
        assert np.array_equal(a, render(first)) and (np.abs(a - b) > 30).sum() > 200
    assert len(few) == 9


def test_forward_strip_shows_the_notebooks_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps 0, 30, ..., 270 of 300; on a continuous schedule times from the image to 1."""
    shown: list[str] = []
    monkeypatch.setattr(figures, "_strip", lambda rows, titles, *_: shown.extend(titles))
    figures.forward_strip(Linear(300), torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), tmp_path / "f.png")
    assert shown == [f"t = {k}" for k in range(0, 300, 30)]
    figures.forward_strip(Flow(), torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), tmp_path / "f.png", count=3)
    assert shown[-3:] == ["image", "t = 0.5", "t = 1"]


def test_grid_is_pixel_exact() -> None:
    """Image 4 of 5 begins the second row, between gaps of 2 pixels."""
    pixels = np.arange(5 * 64, dtype=np.uint8).reshape(5, 8, 8, 1)
    sheet = np.asarray(figures.grid(pixels, columns=4, min_side=8))
    assert sheet.shape == (2 * 10 + 2, 4 * 10 + 2)
    assert np.array_equal(sheet[12:20, 2:10], pixels[4, :, :, 0])


def test_animations(tmp_path: Path) -> None:
    """A frame a step, GIF and MP4; the last frame is the grid of the samples."""
    figures.animation(sample_records(12, 4), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 12  # type: ignore[attr-defined]
    figures.animation(sample_records(12, 4), tmp_path / "a.mp4")
    import av

    with av.open(str(tmp_path / "a.mp4")) as film:
        frames = [f.to_ndarray(format="gray") for f in film.decode(video=0)]
    assert len(frames) >= 12
    end = np.asarray(figures.grid(to_uint8(sample_records(12, 4)[-1].x)))
    h, w = frames[-1].shape
    assert np.abs(frames[-1].astype(int) - end[:h, :w]).mean() < 12
    with pytest.raises(UserError, match=r"\.gif or \.mp4"):
        figures.animation(sample_records(2), tmp_path / "a.webm")


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.png": lambda path: figures.save(Image.new("L", (8, 8)), path),
    "curve.png": lambda path: figures.loss_curve([1, 2], [0.5, 0.4], path),
    "a.gif": lambda path: figures.film([Image.new("L", (8, 8)), Image.new("L", (8, 8), 9)], path),
    "a.mp4": lambda path: figures.film([Image.new("L", (64, 64)), Image.new("L", (64, 64), 9)], path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_only_our_own_files_are_written_over(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    WRITERS[name](path)
    Image.new("RGB", (9, 9)).save(path.with_suffix(".png"))  # another's, under the same name
    path.with_suffix(".png").rename(path)
    theirs = path.read_bytes()
    with pytest.raises(UserError, match="is there already, and was not written by unnoise"):
        WRITERS[name](path)
    assert path.read_bytes() == theirs
