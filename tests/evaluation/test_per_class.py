"""Classes that are learned are told from classes that are not."""

import numpy as np

from unnoise.evaluation.per_class import Labelled, measure_classes

CLASSES = ("good", "mixed up", "far", "few", "none")


def labelled(counts: list[int], seed: int) -> Labelled:
    """Clusters, an axis for each class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(5), counts)
    return Labelled(rng.standard_normal((len(labels), 6)) / 3 + 3 * np.eye(6)[labels], labels)


def test_each_class_by_itself() -> None:
    generated, real, training = labelled([60, 60, 60, 8, 0], 0), labelled([60, 30, 7, 40, 40], 1), labelled([90] * 5, 2)
    swapped = generated.labels == 1
    generated.features[swapped] += 3 * (np.eye(6)[2] - np.eye(6)[1])  # samples of class 1 are of class 2
    found = measure_classes("some", generated, real, training, CLASSES)
    assert [(of.n, of.real) for of in found.values()] == [(60, 60), (60, 30), (60, 7), (8, 40), (0, 40)]
    assert [of.recognised for of in found.values()] == [1.0, 0.0, 1.0, 1.0, None]
    assert all(of.real_recognised == 1 for of in found.values())
    assert [list(of.measures) for of in found.values()] == [["frechet (some)"], ["kid (some)"], [], [], []]
    good, mixed = found["good"].measures["frechet (some)"], found["mixed up"].measures["kid (some)"]
    assert abs(good.value - good.floor) < 0.3 and mixed.low > 5 * abs(mixed.floor)
    assert "recognised 100% of 40 held-out images" in str(found["none"]) and "frechet (some)" in str(found["good"])


def test_a_single_class() -> None:
    one = labelled([50, 0, 0, 0, 0], 0)
    found = measure_classes("some", one, one, one, ("only",))
    assert found["only"].recognised == 1
