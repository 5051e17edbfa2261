r"""Distances between two sets of images, from features (N, D) of each.

Frechet distance (Heusel et al. 2017): |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), biased upwards for few images.
Kernel distance (KID, Binkowski et al. 2018): the squared maximum mean discrepancy under (x^T y / D + 1)^3, unbiased.
"""

import numpy as np


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Between features a (N, D) and b (M, D). Compare only distances of equally many images: it falls with N."""
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The eigenvalues of a product of two positive matrices are real and at least 0 but for rounding.
    root = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
    difference = a.mean(0) - b.mean(0)
    return float(difference @ difference + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Between features a (N, D) and b (M, D), both of 2 or more: around 0 for equal distributions, also below."""
    n, m = len(a), len(b)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        product: np.ndarray = x @ y.T / x.shape[1] + 1
        return product**3

    within_a, within_b = kernel(a, a), kernel(b, b)
    own = (within_a.sum() - np.trace(within_a)) / (n * (n - 1)) + (within_b.sum() - np.trace(within_b)) / (m * (m - 1))
    return float(own - 2 * kernel(a, b).mean())
