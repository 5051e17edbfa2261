"""Augmentation against plain flips, turns and shifts."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import small
from unnoise.data.augment import KINDS, LABELS, augment
from unnoise.presets import PRESETS
from unnoise.recipe import override
from unnoise.training.loop import train
from unnoise.utils.errors import UserError


def only(kind: int, value: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """One kind of augmentation alone, from the normal number `value`."""
    u = torch.ones(len(x), KINDS)
    u[:, kind] = 0
    return augment(x, u, torch.full((len(x), KINDS), value), 0.5)


def ndtri(p: float) -> float:
    return float(torch.special.ndtri(torch.tensor(p, dtype=torch.float64)))


def test_nothing_happens_at_probability_0() -> None:
    x = torch.randn(3, 2, 8, 12)
    augmented, labels = augment(x, torch.rand(3, 6), torch.randn(3, 6), 0.0)
    torch.testing.assert_close(augmented, x, rtol=0, atol=1e-5)
    assert not labels.any()


def test_each_kind_does_what_it_says() -> None:
    """Against plain flips, quarter turns and shifts; on square images and others."""
    x = torch.randn(1, 1, 8, 8)
    near: dict[str, Any] = {"rtol": 0, "atol": 1e-4}
    augmented, labels = only(0, 0.0, x)
    torch.testing.assert_close(augmented, x.flip(3), **near)
    assert labels[0].tolist() == [1, 0, 0, 0, 0, 0, 0]
    quarter, labels = only(2, ndtri(0.75), x)  # angle = 2 pi 0.75 - pi
    assert labels[0, 2:4].tolist() == pytest.approx([-1, 1], abs=1e-5)  # cos - 1 and sin: near 0 for small turns, no jump at pi
    torch.testing.assert_close(quarter, torch.rot90(x, -1, (2, 3)), **near)
    wide = torch.randn(1, 1, 8, 12)
    half, _ = only(2, ndtri(1 - 1e-12), wide)
    torch.testing.assert_close(half, wide.flip(2, 3), **near)
    right, labels = only(4, 2.0, x)  # 0.125 * 2 * 8 = 2 pixels
    torch.testing.assert_close(right[..., 2:], x[..., :-2], **near)
    assert float(labels[0, 5]) == pytest.approx(0.25)
    down, _ = only(5, 1.0, x)
    torch.testing.assert_close(down[..., 1:, :], x[..., :-1, :], **near)


def test_scale_and_stretch_are_about_the_middle() -> None:
    """A blob of known width comes out wider by the factor in its labels."""
    y, x = torch.meshgrid(torch.arange(65.0) - 32, torch.arange(65.0) - 32, indexing="ij")
    blob = torch.exp(-(x**2 + y**2) / (2 * 5**2))[None, None]

    def widths(p: Tensor) -> tuple[float, float]:
        p = p[0, 0] / p.sum()
        return float((p * x**2).sum().sqrt()), float((p * y**2).sum().sqrt())

    larger, labels = only(1, 1.0, blob)
    factor = math.exp(float(labels[0, 1]))
    assert factor == pytest.approx(2**0.2)
    assert widths(larger) == pytest.approx((5 * factor, 5 * factor), rel=0.02)
    stretched, labels = only(3, 1.0, blob)
    assert widths(stretched) == pytest.approx((5 * 2**0.2, 5 / 2**0.2), rel=0.02)


def test_each_kind_happens_as_often_as_asked() -> None:
    torch.manual_seed(0)
    _, labels = augment(torch.randn(4000, 1, 40, 40), torch.rand(4000, KINDS), torch.randn(4000, KINDS), 0.12)
    torch.testing.assert_close((labels != 0).float().mean(0), torch.full((LABELS,), 0.12), rtol=0, atol=0.02)


def test_small_images_are_shifted_by_whole_pixels() -> None:
    """Every pixel of a shifted small image is one of the original's."""
    x = torch.rand(64, 1, 8, 8)
    u, z = torch.ones(64, KINDS), torch.randn(64, KINDS)
    u[:, 4:] = 0
    shifted, labels = augment(x, u, z, 0.5)
    pixels = labels[:, 5:] * 8
    torch.testing.assert_close(pixels, pixels.round())
    assert (pixels != 0).any()
    for k in range(64):
        assert torch.cdist(shifted[k].reshape(-1, 1), x[k].reshape(-1, 1)).amin(1).max() < 1e-5
    _, labels = augment(torch.rand(64, 1, 40, 40), u, z, 0.5)
    pixels = labels[:, 5:] * 40
    assert (pixels - pixels.round()).abs().max() > 0.1


def test_training_gives_the_network_the_labels() -> None:
    """The layer that reads them begins at 0 and learns only if they reach it."""
    recipe = small(network__widths=[16], training__steps=8, data__augment=0.5)
    digits = recipe.data.load()
    state = recipe.build_state(digits.shape, 10)
    before = state.model.get_parameter("network.augment.weight").clone()
    list(train(state, digits, recipe.training, augment=recipe.data.augment or 0.0))
    assert not torch.equal(before, state.model.get_parameter("network.augment.weight"))
    with pytest.raises(UserError, match="takes no augmentation labels"):
        override(PRESETS["digits"], {"network": "simple-unet", "network.widths": [4, 8], "data.augment": 0.1})
