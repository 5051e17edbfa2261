import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unnoise.data.augment import LABELS, augment
from unnoise.presets import PRESETS
from unnoise.recipe import override
from unnoise.training.loop import train
from unnoise.utils.errors import UserError


def only(kind: int, value: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """One kind of change alone, by the draw that gives it."""
    u = torch.ones(len(x), LABELS)
    u[:, kind] = 0
    return augment(x, u, torch.full((len(x), LABELS), value), 0.5)


def ndtri(p: float) -> float:
    return float(torch.special.ndtri(torch.tensor(p, dtype=torch.float64)))


def test_nothing_happens_at_probability_0() -> None:
    x = torch.randn(3, 2, 8, 12)
    augmented, told = augment(x, torch.rand(3, 6), torch.randn(3, 6), 0.0)
    torch.testing.assert_close(augmented, x, rtol=0, atol=1e-5)
    assert not told.any()


def test_each_kind_does_what_it_says() -> None:
    """Against plain flips, quarter turns and shifts; on square images and others."""
    x = torch.randn(1, 1, 8, 8)
    near: dict[str, Any] = {"rtol": 0, "atol": 1e-4}
    augmented, told = only(0, 0.0, x)
    torch.testing.assert_close(augmented, x.flip(3), **near)
    assert told[0].tolist() == [1, 0, 0, 0, 0, 0]
    quarter, told = only(2, ndtri(0.75), x)  # angle = 2 pi 0.75 - pi
    assert float(told[0, 2]) == pytest.approx(math.pi / 2, abs=1e-5)
    torch.testing.assert_close(quarter, torch.rot90(x, -1, (2, 3)), **near)
    half, _ = only(2, ndtri(1 - 1e-9), torch.randn(1, 1, 8, 12))
    wide = torch.randn(1, 1, 8, 12)
    half, _ = only(2, ndtri(1 - 1e-12), wide)
    torch.testing.assert_close(half, wide.flip(2, 3), **near)
    right, told = only(4, 2.0, x)  # 0.125 * 2 * 8 = 2 pixels
    torch.testing.assert_close(right[..., 2:], x[..., :-2], **near)
    assert float(told[0, 4]) == pytest.approx(0.25)
    down, _ = only(5, 1.0, x)
    torch.testing.assert_close(down[..., 1:, :], x[..., :-1, :], **near)


def test_scale_and_stretch_are_about_the_middle() -> None:
    """A blob of known width comes out wider by the factor told."""
    y, x = torch.meshgrid(torch.arange(65.0) - 32, torch.arange(65.0) - 32, indexing="ij")
    blob = torch.exp(-(x**2 + y**2) / (2 * 5**2))[None, None]

    def widths(p: Tensor) -> tuple[float, float]:
        p = p[0, 0] / p.sum()
        return float((p * x**2).sum().sqrt()), float((p * y**2).sum().sqrt())

    larger, told = only(1, 1.0, blob)
    factor = math.exp(float(told[0, 1]))
    assert factor == pytest.approx(2**0.2)
    assert widths(larger) == pytest.approx((5 * factor, 5 * factor), rel=0.02)
    stretched, told = only(3, 1.0, blob)
    assert widths(stretched) == pytest.approx((5 * 2**0.2, 5 / 2**0.2), rel=0.02)


def test_each_kind_happens_as_often_as_asked() -> None:
    torch.manual_seed(0)
    _, told = augment(torch.randn(4000, 1, 4, 4), torch.rand(4000, 6), torch.randn(4000, 6), 0.12)
    torch.testing.assert_close((told != 0).float().mean(0), torch.full((6,), 0.12), rtol=0, atol=0.02)


def test_training_tells_the_network() -> None:
    small = {"network.widths": [16], "network.blocks": 1, "training.steps": 8, "training.minutes": None}
    recipe = override(PRESETS["digits"], small | {"data.augment": 0.5})
    digits = recipe.data.load()
    training = recipe.build_state(digits.shape, 10, "cpu")
    before = training.model.get_parameter("network.augmentation.weight").clone()
    list(train(training, digits, recipe.training, augmented=recipe.data.augment))
    assert not torch.equal(before, training.model.get_parameter("network.augmentation.weight"))
    with pytest.raises(UserError, match="can't be told of augmentation"):
        override(PRESETS["digits"], {"network": "simple-unet", "network.widths": [4, 8], "data.augment": 0.1})
