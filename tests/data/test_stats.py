"""Statistics of a data set."""

import io
from typing import Any

import numpy as np
from PIL import Image

from tests.data.files import PIXELS
from unnoise.data.dataset import ImageDataset, Split, split
from unnoise.data.stats import describe, describe_classes, near_duplicates


def test_near_duplicates_across_the_split() -> None:
    """A recompressed copy is found, another image is not."""
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 256, (20, 6, 6, 1)), np.ones((1, 8, 8, 3))).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(smooth[3]).save(out, "JPEG", quality=80)
    parts = Split(ImageDataset(smooth[:10]), ImageDataset(np.stack([smooth[15], np.asarray(Image.open(out))])))
    assert near_duplicates(parts) == [(1, 3)]


def test_the_statistics_are_right() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1])
    images = ImageDataset(PIXELS[[0, 1, 2, 3, 4, 0]], labels, ("cat", "dog"), skipped=("'x.jpg': truncated",))
    found: dict[str, Any] = dict(describe(images, split(images, 0.3)))
    assert found["classes"] == "2: 'cat': 2, 'dog': 4" and found["exact duplicates"].startswith("1 ")
    x = images.pixels / 127.5 - 1
    assert f"mean {x.mean():.3f}, standard deviation {x.std():.3f}" in found["pixels on [-1, 1]"] and found["unreadable"] == "1"


def test_an_imbalance_is_said_where_it_is_strong() -> None:
    for counts, words in (((20, 20), None), ((20, 3), None), ((30, 3), "'a' has 30 images and 'b' 3"), ((2, 0), "'b' 0")):
        found = dict(describe_classes(np.repeat([0, 1], counts), ("a", "b")))
        assert found["classes"] == f"2: 'a': {counts[0]}, 'b': {counts[1]}"
        assert words in found["imbalance"] if words else "imbalance" not in found
