"""Words are NumPy's Philox to the bit, also as torch computes them elsewhere; normal numbers are normal."""

import numpy as np
import pytest
import torch
from scipy import stats

from unnoise.utils import philox, rng

KEYS = (0, 1, 2**64 - 1, 2**127, 2**128 - 1, rng.key(0, "noise", 3))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("first", [0, 2**32 - 3, 2**62, 2**63 - 4, 2**64 - 8])
def test_words_are_numpys(key: int, first: int) -> None:
    """With carries from and into every half; after the last counter NumPy's goes on in its second word, which is refused."""
    expected = np.random.Philox(key=key, counter=first).random_raw(28).view(np.int64).reshape(7, 4)
    assert np.array_equal(philox.philox(key, first, 7, "cpu").numpy(), expected)
    assert np.array_equal(philox.random_words(key, first, 7).numpy(), expected)
    with pytest.raises(ValueError):
        philox.random_words(key, 2**64 - 8, 8)


def test_high_words_are_those_of_exact_products() -> None:
    edges = [0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1, 2**63, 2**64 - 2**32, 2**64 - 1]
    values = edges + [int(v) for v in np.random.default_rng(0).integers(0, 2**64, 40, dtype=np.uint64)]
    words = torch.tensor([philox._signed(v) for v in values])
    high, low = philox.multiply(words[:, None], words[None])
    products = [[a * b for b in values] for a in values]
    assert high.tolist() == [[philox._signed(p >> 64) for p in row] for row in products]
    assert low.tolist() == [[philox._signed(p % 2**64) for p in row] for row in products]


def test_rows_do_not_depend_on_the_others() -> None:
    """Nor on the device: on `meta` everything is computed there."""
    whole = philox.normal(KEYS[-1], slice(0, 9), (3, 5, 7))
    for part in (slice(0, 4), slice(4, 5), slice(5, 9), slice(3, 3)):
        assert torch.equal(philox.normal(KEYS[-1], part, (3, 5, 7)), whole[part])
    assert not torch.equal(whole[:4], philox.normal(KEYS[0], slice(0, 4), (3, 5, 7)))
    elsewhere = philox.normal(KEYS[-1], slice(4, 5), (3, 5, 7), "meta")
    assert elsewhere.shape == (1, 3, 5, 7) and elsewhere.is_meta and elsewhere.dtype == whole.dtype


def test_numbers_are_normal() -> None:
    """A million: moments to order 4, the distribution as a whole, both halves of pairs, beyond 3 and 4, and no correlation."""
    rows = philox.normal(KEYS[-1], slice(0, 1000), (1000,)).double().numpy()
    z, pairs = rows.ravel(), rows.reshape(1000, 2, 500)
    for order, moment in enumerate((0, 1, 0, 3), 1):
        standard_error = (stats.norm.moment(2 * order) - moment**2) ** 0.5 / 1000
        assert abs(np.mean(np.power(z, order)) - moment) < 4 * standard_error
    assert stats.kstest(z, "norm").pvalue > 1e-3
    for beyond in (3, 4):
        expected = 2e6 * stats.norm.sf(beyond)
        assert abs(np.sum(np.abs(z) > beyond) - expected) < 4 * expected**0.5
    assert abs(np.corrcoef(pairs[:, 0].ravel(), pairs[:, 1].ravel())[0, 1]) < 4 * 500_000**-0.5


def test_the_transform_is_exact_and_finite_at_its_ends() -> None:
    """Against float64, at radii from the smallest to the largest; most of the error is that of rounding u and the angle."""
    radii = np.array([0, 1, 2, 100, 2**23, 2**24 + 1, 2**31 - 1, -(2**31), -(2**24) - 1, -100, -1], dtype=np.int64)
    angles = np.linspace(-(2**31), 2**31 - 1, 1000).astype(np.int64)
    halves = np.stack(np.broadcast_arrays(radii[:, None], angles[None]), 1).astype(np.int32)  # (radius, half, angle)
    z = philox.box_muller(torch.from_numpy(halves.reshape(len(radii), -1)).view(torch.int64)).double().numpy()
    u = (radii % 2**32 + 0.5) / 2**32
    radius, angle = np.sqrt(-2 * np.log(u))[:, None], angles * (np.pi / 2**31)
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)
    rounded = radius[:, 0] < 1e-3  # u is 1 within float32: such numbers are 0
    assert np.abs(z - expected)[~rounded].max() < 2e-6 and np.abs(z[rounded]).max() < 1e-3
    assert np.isfinite(z).all() and 6.7 < np.abs(z).max() < 6.8
