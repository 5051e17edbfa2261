"""Images as arrays, and the split into those trained on and those held out."""

import numpy as np
import pytest

from unnoise.data.dataset import ImageDataset, hash_images, split
from unnoise.utils.errors import UserError


def test_copies_never_straddle_the_split() -> None:
    rng = np.random.default_rng(0)
    unique = rng.integers(0, 256, (300, 4, 4, 1), dtype=np.uint8)
    images = ImageDataset(np.concatenate([unique, unique, unique[:50]]))
    parts = split(images, 0.3)
    assert not set(parts.train.hashes.tolist()) & set(parts.held_out.hashes.tolist())
    assert 0.2 < len(parts.held_out) / len(images) < 0.4
    more = split(ImageDataset(np.concatenate([rng.integers(0, 256, (99, 4, 4, 1), dtype=np.uint8), images.pixels])), 0.3)
    assert set(parts.held_out.hashes.tolist()) <= set(more.held_out.hashes.tolist())
    official = ImageDataset(unique[[0, 1, 2, 0]], test=np.array([False, False, False, True]))
    assert len(split(official, 0.1).train) == 2  # the copy of a test image is not trained on
    with pytest.raises(UserError, match="all 2 images are held out"):
        split(ImageDataset(unique[[0, 0]], test=np.array([False, True])), 0.1)


def test_a_subset_of_a_subset_keeps_images_labels_and_hashes_together() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)
    images = ImageDataset(pixels, np.arange(10), tuple("0123456789"), np.arange(10) >= 5)
    part = images.subset(np.arange(10) % 2 == 0).subset(np.array([False, True, True, False, True]))
    assert np.array_equal(part.pixels, pixels[[2, 4, 8]]) and part.labels is not None and part.test is not None
    assert part.labels.tolist() == [2, 4, 8] and part.test.tolist() == [False, False, True]
    assert np.array_equal(part.hashes, hash_images(pixels[[2, 4, 8]]))
    assert np.array_equal(np.concatenate(list(part.chunks(2))), part.pixels)


def test_the_fingerprint_is_of_every_pixel_and_label() -> None:
    pixels, labels = np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 1, 0])
    known = ImageDataset(pixels, labels, ("a", "b")).fingerprint()
    assert ImageDataset(pixels.copy(), labels.copy(), ("a", "b")).fingerprint() == known
    other = pixels.copy()
    other[2, 3, 3, 0] = 1
    for changed in (ImageDataset(other, labels), ImageDataset(pixels, 1 - labels), ImageDataset(pixels),
                    ImageDataset(pixels.reshape(3, 2, 8, 1), labels)):  # fmt: skip
        assert changed.fingerprint() != known
