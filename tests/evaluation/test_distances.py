"""Distances against closed forms; features in which images of two classes lie apart."""

import numpy as np
import pytest

from tests.conftest import small
from unnoise.data.dataset import ImageDataset, split
from unnoise.evaluation.distances import frechet_distance, kernel_distance
from unnoise.evaluation.features import classifier_features
from unnoise.utils.errors import UserError


def test_frechet_distance_of_gaussians() -> None:
    """|m|^2 + tr(A + B - 2 (A^(1/2) B A^(1/2))^(1/2)) for matrices that do not commute."""
    rng = np.random.default_rng(0)
    roots = [rng.standard_normal((4, 4)) for _ in range(2)]
    shift = np.array([1.0, -2.0, 0.5, 0.0])
    a, b = (rng.standard_normal((200_000, 4)) @ root.T for root in roots)
    values, vectors = np.linalg.eigh(roots[0] @ roots[0].T)
    half = vectors * np.sqrt(values) @ vectors.T
    root = np.sqrt(np.linalg.eigvalsh(half @ roots[1] @ roots[1].T @ half)).sum()
    expected = shift @ shift + sum(np.trace(r @ r.T) for r in roots) - 2 * root
    assert frechet_distance(a + shift, b) == pytest.approx(expected, rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_is_unbiased() -> None:
    """Its mean over many small samples is that of large ones, and 0 for equal distributions."""
    rng = np.random.default_rng(0)
    pairs = [(rng.standard_normal((20, 3)), rng.standard_normal((30, 3))) for _ in range(2000)]
    equal = [kernel_distance(a, b) for a, b in pairs]
    shifted = [kernel_distance(a + 0.5, b) for a, b in pairs]
    assert abs(np.mean(equal)) < 4 * np.std(equal) / 2000**0.5
    large = kernel_distance(rng.standard_normal((4000, 3)) + 0.5, rng.standard_normal((4000, 3)))
    assert np.mean(shifted) == pytest.approx(large, rel=0.15) and large > 0.1


def test_features_tell_classes_apart() -> None:
    """And are the same when they are made again."""
    digits = split(small().data.load(), 0.2)
    features = classifier_features(digits.train, steps=150)
    held_out = digits.held_out
    assert held_out.labels is not None
    found = features(held_out.pixels)
    assert found.shape == (len(held_out), 64) and found.dtype == np.float64
    zeros, ones = (found[held_out.labels == k] for k in (0, 1))
    half = len(zeros) // 2
    assert kernel_distance(zeros, ones) > 20 * abs(kernel_distance(zeros[:half], zeros[half:]))
    assert np.array_equal(found, classifier_features(digits.train, steps=150)(held_out.pixels))
    with pytest.raises(UserError, match="needs labels"):
        classifier_features(ImageDataset(np.zeros((4, 8, 8, 1), np.uint8)))
