"""The front door: names are lazy, and the ideal ten lines work as they stand."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import unnoise as un
from tests.conftest import SMALL
from unnoise.data.pixels import to_uint8
from unnoise.registry import TABLES

TINY: dict[str, Any] = {k: v for k, v in SMALL.items() if k not in ("training.minutes", "target")} | {
    "training.label_dropout": 0.1
}


def test_names_are_lazy() -> None:
    """The package alone and its directory load neither torch nor numpy; every public name is there, from its own module."""
    code = (
        "import sys, unnoise as un\n"
        "assert 'train' in dir(un) and len(dir(un)) > 50\n"
        "assert not {'torch', 'numpy', 'PIL'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(getattr(un, name) is not None for name in dir(un))
    with pytest.raises(AttributeError, match="tarin"):
        un.tarin  # type: ignore[attr-defined]  # noqa: B018


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with my/photos and blurred.png."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "photos").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(12):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(tmp_path / "my" / "photos" / f"{k}.png")
    Image.fromarray(rng.integers(90, 160, (16, 24, 3), dtype=np.uint8)).save(tmp_path / "blurred.png")
    return tmp_path


class MyNet(nn.Module):
    """One convolution, scaled by the time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        out: Tensor = self.conv(x) * torch.sigmoid(c_noise)[:, None, None, None]
        return out


def test_the_ten_lines(photos: Path) -> None:
    """But for the budget and the network's size, which would take an hour."""
    run = un.train("my/photos", size=16, steps=2, out="runs/photos", **TINY | {"network.patch": 1})
    model = un.load("runs/photos")
    assert run.folder.path == Path("runs/photos") and model.info.recipe == run.info.recipe
    images = model.sample(16, seed=0, sampler=un.DPMpp2M(), steps=20)
    assert images.shape == (16, 16, 16, 3) and images.dtype == np.uint8
    y = un.read_image("blurred.png")
    found = model.restore(y, un.Blur.gaussian(1.5), noise=un.GaussianNoise(5))
    assert found.mean.shape == found.std.shape == y.shape and float(found.std.max()) > 0
    un.write_image(found.mean, "sharp.png")
    assert Image.open("sharp.png").size == (24, 16)

    try:

        @un.register("quadratic-schedule")
        @dataclass(frozen=True)
        class Quadratic(un.Schedule):
            def alpha(self, t: Tensor) -> Tensor:
                return 1 - t**2

            def sigma(self, t: Tensor) -> Tensor:
                return t

        own = un.train("my/photos", size=16, steps=2, out="runs/own", schedule=Quadratic(), target="velocity",
                       **TINY | {"network.patch": 1, "training.times": "uniform"})  # fmt: skip
        assert own.model.sample(2).shape == (2, 16, 16, 3)
    finally:
        TABLES[un.Schedule].pop("quadratic-schedule", None)

    denoiser = un.NetworkDenoiser(MyNet(3), un.Cosine(), un.Velocity())
    steps = [record.step for record in un.fit(denoiser, un.ImageFolder("my/photos", 64), steps=3)]
    assert steps == [1, 2, 3] and not denoiser.training
    x = un.sample(denoiser, (4, 3, 64, 64), un.DDIM(), steps=5)
    assert x.shape == (4, 3, 64, 64) and float(x.abs().max()) <= 1


def test_the_same_images_given_in_other_ways_train_the_same(photos: Path) -> None:
    """A file, an array, a torch Dataset and a source, to the bit; a run of images in memory resumes when they are given again."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    np.save("images.npy", pixels)
    dataset = TensorDataset(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    data = {"file": "images.npy", "array": pixels, "dataset": dataset, "source": un.Array("images.npy")}
    weights = {}
    for name, images in data.items():
        run = un.train(images, size=8, steps=3, out=f"runs/{name}", preset="digits", progress=False, **TINY)
        weights[name] = run.folder.model.read_bytes()
    assert len(set(weights.values())) == 1
    with pytest.raises(un.UserError, match=r"give them again, unnoise\.resume\(run, data=images\)"):
        un.resume("runs/array")
    with pytest.raises(un.UserError, match="is not what 'runs/array' was trained on"):
        un.resume("runs/array", data=255 - pixels)
    assert un.resume("runs/array", data=pixels).state.step == 3
    assert np.array_equal(un.load("runs/array").sample(3), un.load("runs/file").sample(3))


def test_images_in_memory_keep_their_size(photos: Path) -> None:
    run = un.train(np.zeros((20, 12, 8), np.uint8), steps=1, out="runs/a", progress=False, **TINY)
    assert run.info.shape == (1, 12, 8) and run.info.recipe.data.size == (12, 8)


def test_sampling_from_python(digits_run: Any) -> None:
    model = un.load(digits_run.folder.path)
    pixels, x = model.sample(5, seed=3), model.sample(5, seed=3, output="tensor")
    assert np.array_equal(to_uint8(x), pixels) and x.shape == (5, 1, 8, 8)
    assert np.array_equal(model.sample(5, seed=3, sampler="ddim"), model.sample(5, seed=3, sampler=un.DDIM()))
    assert not np.array_equal(model.sample(5, seed=4), pixels)
    one, other = model.sample(4, label="7"), model.sample(4, label="1")
    assert not np.array_equal(one, other)
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"label": "cat"}, "unknown label 'cat'"), ({"sampler": "dim"}, "did you mean 'ddim'"), ({"output": "png"}, "uint8"),
        ({"steps": 0}, "at least 1"), ({"n": 0}, "at least 1"),
    ]  # fmt: skip
    for wrong, words in mistakes:
        with pytest.raises(un.UserError, match=words):
            model.sample(**wrong)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data": "my/fotos"}, "check the path"),
        ({"data": "my/photos", "preset": "digts"}, "did you mean 'digits'"),
        ({"data": "my/photos", "shedule": "cosine"}, "did you mean 'schedule'"),
        ({"data": "my/photos", "schedule": "cosin"}, "did you mean 'cosine'"),
        ({"data": np.zeros((4, 8, 8), np.float32)}, "must be uint8"),
        ({"data": np.zeros((0, 8, 8), np.uint8)}, "holds no images"),
        ({"data": None}, "not a NoneType"),
        ({"data": "my/photos", "size": 17, "network.widths": [16, 32]}, "in multiples of"),
        ({"data": "my/photos", "steps": -1}, "greater than 0"),
    ],
)
def test_mistakes_write_nothing(photos: Path, arguments: dict[str, Any], words: str) -> None:
    whole: dict[str, Any] = {"size": 16, "steps": 1, "out": "runs/x"} | arguments
    with pytest.raises(un.UserError, match=words):
        un.train(**whole)
    assert not Path("runs").exists()


def test_progress_in_a_notebook(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that changes in place, through IPython's display."""
    shown: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            shown.append(data["text/plain"])

    def display(data: dict[str, str], raw: bool, display_id: bool) -> Handle:
        shown.append(data["text/plain"])
        return Handle()

    monkeypatch.setattr("unnoise.runs.progress.REFRESH_EVERY", 0.0)
    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    un.train("digits", steps=3, out="runs/d", **TINY)
    assert len(shown) == 3 and shown[-1].startswith("step 3 [##############################] loss ")


def test_fit_holds_the_average_even_when_it_is_left() -> None:
    """The denoiser ends as the average of its weights, or as the weights themselves where there is no average."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    weights = {}
    for ema in (0.1, 0.0):
        torch.manual_seed(0)
        denoiser = un.NetworkDenoiser(MyNet(1), un.Flow(), un.Velocity())
        for record in un.fit(denoiser, pixels, steps=50, config=un.TrainingConfig(ema=ema, precision="fp32", warmup=0)):
            raw = denoiser.get_parameter("network.conv.weight").detach().clone()
            if record.step == 20:
                break
        weights[ema] = raw, denoiser.get_parameter("network.conv.weight").detach()
        assert not denoiser.training
    assert torch.equal(*weights[0.0]) and not torch.equal(*weights[0.1])
    with pytest.raises(un.UserError, match="give steps or minutes"):
        next(un.fit(denoiser, pixels))


def test_fit_leaves_test_images_out() -> None:
    from unnoise.training.fit import read_data

    pixels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * np.ones((1, 8, 8, 1), np.uint8)
    images = read_data(un.ImageDataset(pixels, test=np.array([True, False, False, True])))
    assert images.pixels[:, 0, 0, 0].tolist() == [1, 2]
