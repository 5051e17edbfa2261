"""Measures against torch-fidelity, prdc and closed forms; intervals against the values of many draws."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_full

from unnoise.evaluation import distances, neighbours
from unnoise.evaluation.measures import MEASURES, two_sample_accuracy, wilson


def features(n: int, m: int, dimensions: int, shift: float, seed: int = 0, scale: float = 1.1) -> tuple[np.ndarray, np.ndarray]:
    """Of generated and real images: Gaussian, the generated ones wider and shifted."""
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((n, dimensions)) + shift, rng.standard_normal((m, dimensions))


def test_distances_are_those_of_torch_fidelity() -> None:
    a, b = features(300, 300, 12, 0.3)
    tensors = torch.from_numpy(a), torch.from_numpy(b)
    fid = fid_statistics_to_metric(*map(fid_features_to_statistics, tensors), False)["frechet_inception_distance"]
    assert distances.frechet_distance(a, b) == pytest.approx(fid, rel=1e-4)
    how = {"kid_subsets": 1, "kid_subset_size": 300, "kid_kernel": "poly", "rng_seed": 0, "verbose": False}
    kid = kid_features_to_metric(*tensors, **how)["kernel_inception_distance_mean"]
    assert distances.kernel_distance(a, b) == pytest.approx(kid, rel=1e-4)


def test_neighbours_are_those_of_torch_fidelity_and_prdc() -> None:
    a, b = features(250, 200, 6, 0.5)
    found, expected = calculate_precision_recall_full(torch.from_numpy(a), torch.from_numpy(b), 3), {}
    assert (neighbours.precision(a, b), neighbours.recall(a, b)) == pytest.approx(found, abs=1e-4)
    expected = compute_prdc(b, a, nearest_k=neighbours.NEAREST_COVERAGE)
    assert neighbours.density(a, b) == pytest.approx(expected["density"], abs=1e-4)
    assert neighbours.coverage(a, b) == pytest.approx(expected["coverage"], abs=1e-4)


def test_monge_distance_of_gaussians() -> None:
    """Of N(m, s^2 I) and N(0, I) in D dimensions it is 3 D (|m|^2 / D + (s - 1)^2); unequal sets are cut to one size."""
    rng = np.random.default_rng(0)
    a, b = 1.5 * rng.standard_normal((20_000, 5)) + 0.4, rng.standard_normal((22_000, 5))
    assert distances.monge_distance(a, b) == pytest.approx(15 * (0.16 + 0.25), rel=0.03)
    assert distances.monge_distance(a, a) == 0


def test_the_jackknife_is_as_it_is_defined() -> None:
    """One image left out after another."""
    a, b = features(15, 12, 3, 0.5)
    variance = 0.0
    for k, x in enumerate((a, b)):
        pairs = [(np.delete(a, i, 0), b) if k == 0 else (a, np.delete(b, i, 0)) for i in range(len(x))]
        without = np.array([distances.kernel_distance(*pair) for pair in pairs])
        variance += (len(x) - 1) / len(x) * np.square(without - without.mean()).sum()
    kernels = distances._kernels(a, b)
    assert distances._jackknife_variance(*kernels) == pytest.approx(variance)
    assert variance / 2 <= distances.kernel_distance_error(a, b) ** 2 <= variance
    assert distances.kernel_distance_error(np.ones((9, 2)), np.ones((9, 2))) == 0


def test_the_error_is_of_second_order_where_distributions_are_equal() -> None:
    """That is all the deviation there is, of which the jackknife shows twice the square."""
    pairs = [features(80, 70, 20, 0.0, k, scale=1.0) for k in range(150)]
    variance = np.var([distances.kernel_distance(*pair) for pair in pairs])
    kernels = [distances._kernels(*pair) for pair in pairs]
    assert np.mean([distances._second_order_variance(*k) for k in kernels]) == pytest.approx(variance, rel=0.3)
    assert np.mean([distances._jackknife_variance(*k) for k in kernels]) == pytest.approx(2 * variance, rel=0.3)


def test_two_samples_are_told_apart() -> None:
    assert two_sample_accuracy(*features(200, 200, 3, 3.0)) > 0.95
    rng = np.random.default_rng(1)
    assert two_sample_accuracy(rng.standard_normal((300, 3)), rng.standard_normal((200, 3))) == pytest.approx(0.5, abs=0.08)


def test_wilson_holds_fractions_of_nothing_and_all() -> None:
    """The textbook's 0 of 10: up to z^2 / (n + z^2)."""
    assert wilson(0, 10) == pytest.approx((0, 1.96**2 / (10 + 1.96**2)), abs=1e-12)
    assert wilson(1, 10)[1] == 1 and wilson(0.5, 100) == pytest.approx((0.404, 0.596), abs=1e-3)


@pytest.mark.parametrize("name", MEASURES)
def test_the_floor_is_that_of_training_images(name: str) -> None:
    """Equal distributions are no better and no worse than it; a shifted one is worse in the direction that the table says."""
    measure, rng = MEASURES[name], np.random.default_rng(0)
    good, real, training = (rng.standard_normal((120, 3)) for _ in range(3))
    equal, worse = measure(good, real, training), measure(good + np.array([1.5, 0, 0]), real, training)
    assert equal.low <= equal.value <= equal.high and abs(equal.floor - equal.value) <= equal.high - equal.low
    if name != "recall":  # a shifted set reaches as far
        assert (worse.value < equal.value) == measure.higher_is_better
    assert worse.floor == equal.floor == measure.function(training, real)
    assert measure.needs(2048) == (2049 if name == "frechet" else measure.minimum)


def covered(name: str, n: int, m: int, shift: float = 0.3, scale: float = 1.1, dimensions: int = 4, trials: int = 200) -> float:
    """How often the interval of n generated and m real images holds the mean value of such images."""
    measure = MEASURES[name]
    truth = np.mean([measure.function(*features(n, m, dimensions, shift, 10_000 + k, scale)) for k in range(500)])
    found = []
    for k in range(trials):
        a, b = features(n, m, dimensions, shift, k, scale)
        low, high = measure.interval(measure.function(a, b), a, b, k)
        found.append(low <= truth <= high)
    return float(np.mean(found))


@pytest.mark.parametrize(("shift", "scale"), [(0.3, 1.1), (0.1, 1.0), (0.0, 1.0)])
def test_the_interval_of_kid_covers(shift: float, scale: float) -> None:
    """Also where model and data are equal."""
    assert 0.90 <= covered("kid", 70, 60, shift, scale, dimensions=16) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("name", [n for n in MEASURES if n != "kid"])
def test_intervals_cover(name: str, equal: bool) -> None:
    """Of a fraction by more, where Wilson's interval is wider than what halves show; of distances that are about 0 too."""
    found = covered(name, 100, 100, *((0.0, 1.0) if equal else ()))
    wide = 1.0 if equal and name in ("frechet", "mind") else 0.995 if MEASURES[name].fraction_of is not None else 0.98
    assert 0.90 <= found <= wide
