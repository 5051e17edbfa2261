"""Between uint8 and [-1, 1]."""

import numpy as np
import pytest
import torch

from unnoise.data.pixels import from_uint8, to_pil, to_uint8


def test_every_value_comes_back() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x = from_uint8(pixels)
    assert x.dtype == torch.float32 and float(x.min()) == -1 and float(x.max()) == 1
    assert np.array_equal(to_uint8(x), pixels)
    assert np.array_equal(to_uint8(x.double()), pixels)


def test_axes_and_scale() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), dtype=np.uint8)
    x = from_uint8(pixels)
    assert x.shape == (2, 3, 3, 5)
    for n, row, column, channel in np.ndindex(*pixels.shape):
        assert float(x[n, channel, row, column]) == pytest.approx(pixels[n, row, column, channel] / 127.5 - 1, abs=1e-6)
    assert np.array_equal(to_uint8(x), pixels)
    for p in (pixels[0], pixels[0][..., :1]):
        assert np.array_equal(np.asarray(to_pil(p)).reshape(p.shape), p)


def test_values_beyond_the_range_are_clipped_and_others_rounded() -> None:
    x = torch.tensor([-7.0, -1.001, 0.003, 0.005, 1.001, 9.0]).reshape(1, 1, 1, 6)
    assert to_uint8(x).ravel().tolist() == [0, 0, 128, 128, 255, 255]  # 127.88 and 128.14 of 255
