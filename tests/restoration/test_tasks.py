"""Tasks against Pillow, against the noise that they assume, and against the contract that the command relies on."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from unnoise.restoration.noise import NOISES, GaussianNoise
from unnoise.restoration.operators import BlockDCT, Blur, Mask
from unnoise.restoration.tasks import (
    TASKS,
    Colourise,
    Deblur,
    Dejpeg,
    Denoise,
    Inpaint,
    SaltAndPepper,
    Size,
    Task,
    Upscale,
)
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

MADE: dict[str, Callable[[Size], Task]] = {  # for clean images of a size
    "denoise": lambda size: Denoise(),
    **{f"denoise {name}": lambda size, noise=noise: Denoise(noise()) for name, noise in NOISES.items()},  # type: ignore[misc]
    "salt-and-pepper": lambda size: SaltAndPepper(),
    "inpaint": lambda size: Inpaint(Mask.random(size, 0.4).mask),
    "inpaint noisy": lambda size: Inpaint(Mask.random(size, 0.4).mask, GaussianNoise(10.0)),
    "upscale": lambda size: Upscale(4),
    "upscale box": lambda size: Upscale(3, "box"),
    "upscale noisy": lambda size: Upscale(2, noise=GaussianNoise(10.0)),
    "deblur": lambda size: Deblur(),
    "deblur motion": lambda size: Deblur(length=7.0, degrees=30.0, noise=GaussianNoise(3.0)),
    "colourise": lambda size: Colourise(),
    "dejpeg": lambda size: Dejpeg.of_quality(50, colour=True),
    "dejpeg whole chroma": lambda size: Dejpeg(Dejpeg.of_quality(50, colour=True).tables, subsampled=False),
}
each_task = pytest.mark.parametrize("name", MADE)


def smooth_image(size: Size, channels: int = 3) -> Tensor:
    """A clean image like a photograph's background, (1, C, H, W), away from black and white."""
    g = torch.Generator().manual_seed(0)
    return (Blur.gaussian(2.5)(torch.randn(1, channels, *size, generator=g)) * 2).clamp(-0.8, 0.8)


def test_every_task_is_tested() -> None:
    """A new one is tested by being made above."""
    assert {name.split()[0] for name in MADE} == set(TASKS)


@each_task
@pytest.mark.parametrize("size", [(32, 48), (24, 24), (17, 23), (33, 18)], ids=str)
def test_task_contract(name: str, size: Size) -> None:
    """Sizes are as stated; the operator gives what was measured; `check` gives the size of the image behind it."""
    task = MADE[name](size)
    y = task.degrade(smooth_image(size), BatchRng(0, [0]))
    degraded = (y.shape[2], y.shape[3])
    assert degraded == task.degraded_size(size)
    measurement = task.measure(y)
    clean = (measurement.shape[1], measurement.shape[2])
    assert clean == task.clean_size(degraded) == task.check(y.shape[1], degraded)
    assert measurement.operator(torch.zeros(1, *measurement.shape)).shape == measurement.y.shape
    assert measurement.variance.expand_as(measurement.y).min() > 0
    assert measurement.shape[0] == 3
    if "upscale" in name:
        assert all(side - task.factor < found <= side for side, found in zip(size, clean, strict=True))  # type: ignore[attr-defined]
        assert task.shown_size(degraded) == clean
    elif "dejpeg" in name:
        unit = 8 if "whole" in name else 16
        assert task.shown_size(degraded) == size and all(side % unit == 0 for side in clean)
        assert all(0 <= found - side < unit for side, found in zip(size, clean, strict=True))
    else:
        assert task.shown_size(degraded) == clean == size


@each_task
def test_the_clean_image_explains_the_measurement(name: str) -> None:
    """y - A(x), in standard deviations of its noise: 1 where there is noise, next to nothing where there is none."""
    size = (64, 96)
    x, task = smooth_image(size), MADE[name](size)
    if "upscale box" in name:
        size = (63, 96)
        x = x[..., :63, :]
    measurement = task.measure(task.degrade(x, BatchRng(0, [0])))
    error = (measurement.y - measurement.operator(x)) / measurement.variance.sqrt()
    found = float(error.square().mean().sqrt())
    if name == "salt-and-pepper":
        assert float((error.abs() < 0.5).float().mean()) > 0.999  # but for a value or two that were not detected
    elif "dejpeg" in name:
        assert found < 1.1  # a smooth image's high frequencies are far below the step that they were rounded to
    elif task.noise is None:
        assert found < 0.5
    elif "inpaint" in name:
        assert found == pytest.approx(0.6**0.5, rel=0.05)  # nothing differs where nothing was measured
    elif "correlated" in name:
        assert found == pytest.approx(1, rel=0.25)  # at edges a stationary covariance is not quite diagonal in cosines
    else:
        assert found == pytest.approx(1, rel=0.05)


def test_jpeg_is_pillows() -> None:
    """Quantised with a file's own tables, our coefficients give the image that Pillow decodes, to its rounding."""
    rng = np.random.default_rng(0)
    smooth = np.clip(np.cumsum(np.cumsum(rng.normal(size=(16, 16)), 0), 1) * 3 + 120, 0, 255)
    x = torch.from_numpy(smooth.round()).float()[None, None] / 127.5 - 1
    task = Dejpeg.of_quality(30, colour=False)
    decoded = task.degrade(x, BatchRng(0, [0]))
    operator, measurement = BlockDCT(), task.measure(x)  # x itself, rounded as the encoder does it
    ours = operator.adjoint(measurement.y, x)  # orthonormal: the adjoint is the inverse
    assert float((ours.clamp(-1, 1) - decoded).abs().max()) * 127.5 <= 1.5


@pytest.mark.parametrize("quality", [20, 75, 90])
def test_a_files_coefficients_are_found(quality: int) -> None:
    """The coefficients read from a decoded colour file are the encoder's to half a step, nearly: uniform within it."""
    torch.manual_seed(0)
    x = (0.3 * torch.randn(1, 3, 1, 1) + Blur.gaussian(3.0)(torch.randn(1, 3, 64, 64)) * 2).clamp(-0.8, 0.8)
    task = Dejpeg.of_quality(quality, colour=True)
    measurement = task.measure(task.degrade(x, BatchRng(0, [0])))
    error = (measurement.y - measurement.operator(x)) / (12 * measurement.variance).sqrt()  # in steps
    for plane in (error[:, : 64 * 64], error[:, 64 * 64 :]):  # luma, chroma
        assert float(plane.abs().quantile(0.999)) < 0.9 and float(plane.square().mean().sqrt()) < 1.1 / 12**0.5


def test_noise_beside_a_hole_is_read_from_what_is_there() -> None:
    """Next to missing pixels, which are black, photon noise is estimated as if these did not exist."""
    mask = torch.ones(16, 16)
    mask[:, 8:] = 0
    y = torch.where(mask > 0, 0.6, -1.0).reshape(1, 1, 16, 16)
    measurement = Inpaint(mask, NOISES["poisson"]()).measure(y)
    assert measurement.variance[0, 0, 8, 7].item() == pytest.approx(measurement.variance[0, 0, 8, 0].item(), rel=1e-3)


@each_task
@pytest.mark.parametrize("channels", [1, 3])
def test_check_refuses_what_the_operator_cannot_take(name: str, channels: int) -> None:
    """For degraded images of many sizes: where it lets one pass, the operator takes the image behind it; else it does not."""
    task = MADE[name]((9, 12))
    passed = []
    for size in [(1, 1), (2, 3), (3, 3), (4, 4), (5, 9), (9, 12), (12, 9), (40, 5), (64, 64)]:
        clean = task.clean_size(size)
        try:
            task.operator()(torch.zeros(1, 3 if isinstance(task, Colourise) else channels, *clean))
            taken = True
        except UserError:
            taken = False
        try:
            assert task.check(channels, size) == clean
            passed.append(size)
        except UserError:
            assert not taken, size
        else:
            assert taken, size
    refused = {"inpaint": 8, "inpaint noisy": 8, "deblur": 6, "deblur motion": 4}.get(name, 0)  # of these nine
    assert len(passed) == 9 - refused


def test_what_check_and_degraded_size_refuse() -> None:
    """A blur wider than the image, a mask of another size, images too small to be made smaller."""
    for call, hint in (
        (lambda: Deblur(width=3.0).check(3, (9, 20)), "a blur that reaches 9 pixels is too wide for an image of 9x20"),
        (lambda: Inpaint(torch.ones(16, 16)).check(1, (8, 16)), "the mask has 16x16 pixels and the image 8x16"),
        (lambda: Upscale(4).degraded_size((3, 9)), "an image of 3x9 can't be made 4 times smaller"),
        (lambda: Upscale(1), "2 to 16 times larger, not 1"),
        (lambda: Dejpeg.of_quality(96, colour=True), "from 1 to 95, not 96"),
    ):
        with pytest.raises(UserError, match=hint):
            call()
    assert Deblur(width=3.0).check(3, (10, 20)) == (10, 20)
    assert Upscale(4).degraded_size((4, 9)) == (1, 2) and Upscale(4).check(3, (1, 2)) == (4, 8)
    assert Colourise().check(1, (5, 7)) == Colourise().check(3, (5, 7)) == (5, 7)
