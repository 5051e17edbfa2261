"""Operators against their adjoints, and against what they say they do."""

import pytest
import torch

from unnoise.restoration.operators import (
    BlockDCT,
    Blur,
    Crop,
    Custom,
    Downsample,
    Grey,
    Identity,
    Mask,
    Operator,
    Signs,
)
from unnoise.utils.errors import UserError

SIZE = (16, 16)
OPERATORS: dict[str, tuple[Operator, int]] = {  # and the channels that they take
    "identity": (Identity(), 1),
    "mask": (Mask.random(SIZE, 0.5), 3),
    "box": (Mask.box(SIZE, 3, 4, 6, 8), 1),
    "crop": (Crop((11, 13)), 3),
    "down-box": (Downsample(4), 3),
    "down-bicubic": (Downsample(2, "bicubic"), 3),
    "gaussian": (Blur.gaussian(1.2), 3),
    "motion": (Blur.motion(5, 30), 1),
    "grey": (Grey(), 3),
    "coded": (Downsample(4) @ Signs(1), 1),
    "jpeg": (BlockDCT(), 3),
    "jpeg-grey": (BlockDCT(), 1),
    "custom": (Custom(lambda x: torch.roll(x, 2, -1) - 0.5 * x), 1),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint(name: str) -> None:
    """<A x, y> = <x, A^T y>, to 1e-5; and A is linear."""
    operator, channels = OPERATORS[name]
    torch.manual_seed(0)
    x, other = torch.randn(2, 2, channels, *SIZE, dtype=torch.float64)
    y = torch.randn_like(operator(x))
    left, right = (operator(x) * y).sum(), (x * operator.adjoint(y, x)).sum()
    assert float((left - right).abs() / left.abs()) < 1e-5
    torch.testing.assert_close(operator(2 * x - other), 2 * operator(x) - operator(other))


def test_operators_are_what_they_say() -> None:
    """Means of boxes, the fraction missing, the variance of a blur, the length and the angle of a motion."""
    x = torch.arange(256.0).reshape(1, 1, 16, 16)
    assert float(Downsample(4)(x)[0, 0, 0, 0]) == float(x[0, 0, :4, :4].mean())
    mask = Mask.random((64, 64), 0.8).mask
    assert float(1 - mask.mean()) == pytest.approx(0.8, abs=0.02)
    spike = torch.zeros(1, 1, 31, 31)
    spike[..., 15, 15] = 1
    blurred = Blur.gaussian(1.5)(spike)[0, 0]
    at = torch.arange(31.0) - 15
    assert float((blurred.sum(0) * at.square()).sum()) == pytest.approx(1.5**2, rel=0.02)
    line = Blur.motion(8, 0)(spike)[0, 0]
    assert float(line[15].sum()) == pytest.approx(1, abs=1e-5) and float(line.sum(1)[14]) == 0
    tilted = Blur.motion(8, 90)(spike)[0, 0]
    torch.testing.assert_close(tilted, line.T)
    with pytest.raises(UserError, match="the mask has 16x16 pixels and the image 8x8"):
        Mask.random(SIZE, 0.5)(torch.zeros(1, 1, 8, 8))
    with pytest.raises(UserError, match="only colour"):
        Grey()(torch.zeros(1, 1, 8, 8))


def test_smaller_images_stay_aligned() -> None:
    """Where the factor does not divide a side, what is beyond the last whole block changes nothing."""
    ramp = torch.linspace(-1, 1, 15).expand(1, 1, 15, 15)
    torch.testing.assert_close(Downsample(4, "bicubic")(ramp), Downsample(4, "bicubic")(ramp[..., :12, :12]))


IMAGE = (24, 36)
SIZED: dict[str, Operator] = {
    "identity": Identity(),
    "mask": Mask.random(IMAGE, 0.3),
    "box 2": Downsample(2),
    "box 12": Downsample(12),
    "bicubic 3": Downsample(3, "bicubic"),
    "bicubic 4": Downsample(4, "bicubic"),
    "gaussian": Blur.gaussian(2.0),
    "motion": Blur.motion(9, 20),
    "grey": Grey(),
    "signs": Signs(),
    "custom": Custom(lambda x: -x),
    "small and grey": Downsample(2) @ Grey(),
    "twice": Downsample(2, "bicubic") @ Blur.gaussian(1.0) @ Downsample(3) @ Mask.random(IMAGE, 0.3),
}


@pytest.mark.parametrize("name", SIZED)
def test_image_size(name: str) -> None:
    """From the measurement of an image its size comes back."""
    y = SIZED[name](torch.zeros(1, 3, *IMAGE))
    assert SIZED[name].image_size((y.shape[2], y.shape[3])) == IMAGE


def test_bad_operators() -> None:
    """Refused when they are made."""
    for make, hint in (
        (lambda: Blur.gaussian(0), "greater than 0 pixels"),
        (lambda: Downsample(2, "cubic"), "box or bicubic"),
    ):
        with pytest.raises(UserError, match=hint):
            make()


def test_a_composition_is_linear_only_if_both_are() -> None:
    """Whichever of the two is not."""
    bent = Custom(lambda x: x.square(), linear=False)
    assert not (bent @ Crop((4, 4))).linear and not (Crop((4, 4)) @ bent).linear and (Grey() @ Crop((4, 4))).linear
