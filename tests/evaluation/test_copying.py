"""Models that look training images up are called copying, real images are not."""

import numpy as np
import pytest

from tests.conftest import small
from unnoise.data.dataset import Split, split
from unnoise.evaluation.copying import Copying, Space, find_nearest
from unnoise.evaluation.features import pixel_features


@pytest.fixture(scope="module")
def digits() -> Split:
    return split(small().data.load(), 0.3)


def judge(samples: np.ndarray, digits: Split, flip: bool = False) -> Copying:
    """In pixels and in principal components; held-out images are the last ones."""
    held_out, features = digits.held_out.pixels[-250:], pixel_features(digits.train)
    pairs = []
    for images in (samples, held_out):
        views = [images, images[:, :, ::-1]] if flip else [images]
        pixels = find_nearest(views, digits.train.chunks(100))
        pairs.append((pixels, find_nearest([features(images)], map(features, digits.train.chunks(300)))))
    return Copying.of((pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1]))


def noised(pixels: np.ndarray) -> np.ndarray:
    """Not quite the same."""
    noise = np.random.default_rng(0).integers(-3, 4, pixels.shape)
    return (pixels.astype(int) + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("nearly", [False, True])
def test_a_lookup_model_copies(digits: Split, nearly: bool) -> None:
    samples = digits.train.pixels[100:400]
    found = judge(noised(samples) if nearly else samples, digits)
    assert found.pixels.rate > 0.97 and found.verdict.startswith("it copies: ") and found.pixels.held_out_rate < 0.02
    assert found.pixels.distance_ratio < 0.3 and found.features.distance_ratio < 0.3
    assert set(found.nearest - found.suspicious) == {100}


def test_a_blend_reads_half(digits: Split) -> None:
    samples = np.concatenate([noised(digits.train.pixels[:150]), digits.held_out.pixels[:150]])
    found = judge(samples, digits)
    assert 0.45 <= found.pixels.rate <= 0.55 and found.verdict.startswith("it copies: ")
    assert found.suspicious.max() < 150


def test_real_images_do_not_copy(digits: Split) -> None:
    found = judge(digits.held_out.pixels[:250], digits)
    assert found.verdict.startswith("no sign of copying: ") and found.to_json()["verdict"] == found.verdict
    assert 0.8 < found.pixels.distance_ratio < 1.25 and 0.8 < found.features.distance_ratio < 1.25


def test_mirrored_copies_are_found_where_training_mirrors(digits: Split) -> None:
    samples = digits.train.pixels[:200, :, ::-1]
    assert judge(samples, digits, flip=True).pixels.rate > 0.97
    assert judge(samples, digits).pixels.rate < 0.05


def test_samples_that_are_all_too_near() -> None:
    """Where training images come in pairs, the second nearest is as near as the first; the distances still show it."""
    rng = np.random.default_rng(0)
    training = np.repeat(rng.standard_normal((100, 8)), 2, axis=0) + 0.01 * rng.standard_normal((200, 8))
    near, far = (find_nearest([x], [training]) for x in (training[:80] + 0.02, rng.standard_normal((80, 8))))
    space = Space.of(near, far)
    assert not space.copies and space.near
    assert Copying.of((near, far), (near, far)).verdict.startswith("it may copy: ")


def test_nearest_in_chunks_is_nearest_of_all() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (30, 4, 4, 1)), rng.integers(0, 256, (50, 4, 4, 1))
    distances = np.sqrt(np.square(x[:, None] - y[None]).sum((2, 3, 4)))
    found = find_nearest([x], [y[:1], y[1:20], y[20:]])
    assert np.allclose(found.distances, np.sort(distances, 1)[:, :2]) and np.array_equal(found.index, distances.argmin(1))
    assert find_nearest([y], [y]).rate == 1 and find_nearest([y], [np.repeat(y, 2, axis=0)]).rate == 1


def test_few_held_out_images_prove_little() -> None:
    """Two copies of 20 against none of 5 may be chance; 20 of 100 against none of 100 are not."""
    assert not Space(0.1, 0.0, 1.0, 20, 5).copies
    assert Space(0.2, 0.0, 1.0, 100, 100).copies
