r"""Distances between two sets of images, from features (N, D) of each. 0 for equal distributions; lower is better.

Frechet distance (Heusel et al. 2017): |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), biased upwards for few images.
Kernel distance (KID, Binkowski et al. 2018): the squared maximum mean discrepancy under (x^T y / D + 1)^3, unbiased.
Monge distance (MIND, Berthet et al. 2026, arXiv 2605.06797): 3 D times the squared Wasserstein distance of the features along a
random direction, in the mean over directions; biased upwards, but less than the Frechet distance.
"""

from functools import cache

import numpy as np

from unnoise.utils import rng

DIRECTIONS = 1000  # as in torch-fidelity
Kernels = tuple[np.ndarray, np.ndarray, np.ndarray]


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Between features a (N, D) and b (M, D). Compare only distances of equally many images: it falls with N."""
    covariances = [np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b)]
    values, vectors = np.linalg.eigh(covariances[0])
    half = vectors * np.sqrt(values.clip(0))
    # half^T C_b half is symmetric and has the eigenvalues of C_a C_b, at least 0 but for rounding.
    root = np.sqrt(np.linalg.eigvalsh(half.T @ covariances[1] @ half).clip(0)).sum()
    difference = a.mean(0) - b.mean(0)
    return float(difference @ difference + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Between features a (N, D) and b (M, D), both of 2 or more: around 0 for equal distributions, also below."""
    within_a, within_b, between = _kernels(a, b)
    return float(_mean_of_pairs(within_a) + _mean_of_pairs(within_b) - 2 * between.mean())


def kernel_distance_error(a: np.ndarray, b: np.ndarray) -> float:
    """The standard error of `kernel_distance`, by the jackknife, which counts the variance of second order W twice.

    V of the jackknife less 2 W^2 / V, W at most V / 2: where the distributions are equal, so that all is of second order, that is
    V / 2; where they are far apart it is V.
    """
    kernels = _kernels(a, b)
    variance = _jackknife_variance(*kernels)
    if not variance:
        return 0.0
    second = min(_second_order_variance(*kernels), variance / 2)
    return float((variance - 2 * second**2 / variance) ** 0.5)


def _jackknife_variance(within_a: np.ndarray, within_b: np.ndarray, between: np.ndarray) -> float:
    """By leaving out one image after another of either set, as for two-sample U-statistics (Arvesen 1969).

    The sum over both sets of (n - 1) / n times the squared deviations of what remains when an image is left out.
    """
    variance = 0.0
    for within, across in ((within_a, between), (within_b, between.T)):
        n, m = across.shape
        rows = within.sum(1)  # the diagonal is 0
        without = (rows.sum() - 2 * rows) / ((n - 1) * (n - 2)) - 2 * (across.sum() - across.sum(1)) / ((n - 1) * m)
        variance += (n - 1) / n * float(np.square(without - without.mean()).sum())
    return variance


def _second_order_variance(within_a: np.ndarray, within_b: np.ndarray, between: np.ndarray) -> float:
    """Of Hoeffding's decomposition: that of the kernel less what depends on one image alone."""
    variance = 0.0
    for within in (within_a, within_b):
        n = len(within)
        rows = within.sum(1) / (n - 1)
        centred = within - rows[:, None] - rows + rows.mean()
        np.fill_diagonal(centred, 0)
        variance += 2 * float(np.square(centred).sum()) / (n * (n - 1) * n * (n - 3))
    n, m = between.shape
    centred = between - between.mean(1, keepdims=True) - between.mean(0) + between.mean()
    return float(variance + 4 * np.square(centred).sum() / (n * m * (n - 1) * (m - 1)))


def _kernels(a: np.ndarray, b: np.ndarray) -> Kernels:
    """(x^T y / D + 1)^3 within a (N, N) and within b (M, M), of no image with itself, and between them (N, M)."""
    dimensions = a.shape[1]
    within_a, within_b, between = ((x @ y.T / dimensions + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    np.fill_diagonal(within_a, 0)
    np.fill_diagonal(within_b, 0)
    return within_a, within_b, between


def _mean_of_pairs(within: np.ndarray) -> float:
    n = len(within)
    return float(within.sum()) / (n * (n - 1))


def monge_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Between features a (N, D) and b (M, D), of which the first min(N, M) are taken, always along the same directions."""
    n, dimensions = min(len(a), len(b)), a.shape[1]
    along_a, along_b = (np.sort(x[:n] @ _directions(dimensions), axis=0) for x in (a, b))  # each (n, DIRECTIONS)
    return float(3 * dimensions * np.square(along_a - along_b).mean())


@cache
def _directions(dimensions: int) -> np.ndarray:
    """Unit vectors, uniform over all directions, (D, DIRECTIONS)."""
    vectors = rng.stream(0, "directions", dimensions).standard_normal((dimensions, DIRECTIONS))
    found: np.ndarray = vectors / np.linalg.norm(vectors, axis=0)
    return found
