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
    """The standard error of `kernel_distance`, by leaving out one image after another of either set (jackknife).

    For two-sample U-statistics (Arvesen 1969): the sum over both sets of (n - 1) / n times the squared deviations of what remains
    when an image is left out. Where both distributions are equal it comes out too large, up to sqrt(2) times.
    """
    within_a, within_b, between = _kernels(a, b)
    variance = 0.0
    for within, across in ((within_a, between), (within_b, between.T)):
        n, m = across.shape
        rows = within.sum(1)  # the diagonal is 0
        without = (rows.sum() - 2 * rows) / ((n - 1) * (n - 2)) - 2 * (across.sum() - across.sum(1)) / ((n - 1) * m)
        variance += (n - 1) / n * float(np.square(without - without.mean()).sum())
    return float(variance**0.5)


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
