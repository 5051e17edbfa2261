import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise import figures
from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.diffusion.samplers import DDIM
from unnoise.diffusion.sampling import SamplingConfig, SamplingRecord, trajectory
from unnoise.diffusion.schedules import SCHEDULES, Flow, Linear
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng


def records(steps: int, count: int = 1) -> list[SamplingRecord]:
    ramp = torch.linspace(-1, 1, 64).reshape(1, 8, 8)
    denoiser = GaussianDenoiser(Flow(), Moments(ramp, torch.zeros(0, 1, 8, 8), torch.tensor(0.3)))
    noise = BatchRng(0, range(count))
    x = noise.normal_like(torch.empty(count, 1, 8, 8))
    return list(trajectory(denoiser, x, SamplingConfig(DDIM(), steps=steps), noise))


@pytest.mark.parametrize("steps", [1, 4, 10, 33, 300])
def test_stages_are_evenly_spread_to_the_last(steps: int) -> None:
    kept = [r.step for r in figures.select_steps(records(steps), 10)]
    assert len(kept) == min(10, steps) and kept[-1] == steps
    assert steps < 10 or max(np.diff(kept)) - min(np.diff(kept)) <= 1


def _columns(path: Path) -> np.ndarray:
    """The figure as grey numbers."""
    return np.asarray(Image.open(path).convert("L"))


def test_figures_are_images(tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    for name, schedule in SCHEDULES.items():
        figures.forward_strip(schedule(), x, torch.zeros_like(x), tmp_path / f"{name}.png")
        assert _columns(tmp_path / f"{name}.png").std() > 5
    figures.schedule_curves({name: make() for name, make in SCHEDULES.items()}, tmp_path / "schedules.png")
    figures.reverse_strip(figures.select_steps(records(30)), Flow(), tmp_path / "reverse.png")
    figures.loss_curve([1, 2, 3], [3.0, 2.0, 1.0], tmp_path / "loss.png")
    assert {p.suffix for p in tmp_path.iterdir()} == {".png"}  # and nothing temporary
    with pytest.raises(UserError, match=r"ends so, not '.*loss\.jpg'"):
        figures.loss_curve([1], [1.0], tmp_path / "loss.jpg")


def test_figures_show_what_they_are_given(tmp_path: Path) -> None:
    """The same input twice is the same image; another input is another."""

    def drawn(draw: Callable[[Path], None]) -> np.ndarray:
        draw(tmp_path / "f.png")
        return _columns(tmp_path / "f.png").astype(int)

    bright, dark = torch.ones(1, 1, 8, 8), -torch.ones(1, 1, 8, 8)
    many, few = (figures.select_steps(records(30, 1), n) for n in (10, 9))
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
        a, b = drawn(first), drawn(second)
        assert np.array_equal(a, drawn(first)) and (np.abs(a - b) > 30).sum() > 200
    assert len(few) == 9


def test_forward_strip_shows_the_notebooks_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(figures, "_strip", lambda rows, titles, names, path: seen.extend(titles))
    figures.forward_strip(Linear(300), torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), tmp_path / "f.png")
    assert seen == [f"t = {k}" for k in range(0, 300, 30)]
    figures.forward_strip(Flow(), torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), tmp_path / "f.png", count=3)
    assert seen[-3:] == ["image", "t = 0.5", "t = 1"]


def test_grid_is_pixel_exact() -> None:
    pixels = np.arange(5 * 64, dtype=np.uint8).reshape(5, 8, 8, 1)
    sheet = np.asarray(figures.grid(pixels, columns=4, min_side=8))
    assert sheet.shape == (2 * 10 + 2, 4 * 10 + 2)
    assert np.array_equal(sheet[12:20, 2:10], pixels[4, :, :, 0])


def test_animations(tmp_path: Path) -> None:
    figures.animation(records(12, 4), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 12  # type: ignore[attr-defined]
    figures.animation(records(12, 4), tmp_path / "a.mp4")
    import av

    with av.open(str(tmp_path / "a.mp4")) as film:
        frames = [f.to_ndarray(format="gray") for f in film.decode(video=0)]
    assert len(frames) >= 12
    end = np.asarray(figures.grid(to_uint8(records(12, 4)[-1].x)))
    h, w = frames[-1].shape
    assert np.abs(frames[-1].astype(int) - end[:h, :w]).mean() < 12
    with pytest.raises(UserError, match=r"\.gif or \.mp4"):
        figures.animation(records(2), tmp_path / "a.webm")
