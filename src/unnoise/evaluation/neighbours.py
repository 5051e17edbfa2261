r"""Whether images lie where other images lie, by balls around features (N, D) that reach to the k-th nearest of their own set.

Precision and recall (Kynkaanniemi et al. 2019, equation 2, k = 3): the fraction of generated images in any ball around a real
one, and of real images in any ball around a generated one. Density and coverage (Naeem et al. 2020, equations 3 and 4, k = 5): in
how many balls of real images a generated one lies, over k; and the fraction of real images whose ball holds any generated one.
"""

import numpy as np

NEAREST, NEAREST_COVERAGE = 3, 5  # k, as in the papers


def precision(generated: np.ndarray, real: np.ndarray) -> float:
    """How realistic: the fraction of generated images (N, D) among real ones (M, D), M > 3."""
    return float(_in_balls(generated, real, NEAREST).any(1).mean())


def recall(generated: np.ndarray, real: np.ndarray) -> float:
    """How diverse: the fraction of real images (M, D) among generated ones (N, D), N > 3. A single outlier can raise it."""
    return precision(real, generated)


def density(generated: np.ndarray, real: np.ndarray) -> float:
    """How realistic, outliers apart: about 1 for equal distributions, above where they crowd where real ones do; M > 5."""
    return float(_in_balls(generated, real, NEAREST_COVERAGE).sum(1).mean()) / NEAREST_COVERAGE


def coverage(generated: np.ndarray, real: np.ndarray) -> float:
    """How diverse, outliers apart: the fraction of real images (M, D), M > 5, with a generated one nearby.

    With equally many images of the same distribution 1 - 2^-5 = 0.97 (their lemma 2), fewer with fewer generated images.
    """
    return float(_in_balls(generated, real, NEAREST_COVERAGE).any(0).mean())


def _in_balls(points: np.ndarray, centres: np.ndarray, k: int) -> np.ndarray:
    """Whether each of points (N, D) is in the ball of each of centres (M, D), (N, M) bool."""
    from sklearn.metrics import pairwise_distances  # only here: importing it takes a second, which training has better uses for
    from sklearn.neighbors import NearestNeighbors

    nearest, _ = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(centres).kneighbors()  # of the others
    found: np.ndarray = pairwise_distances(points, centres) < nearest[:, -1]
    return found
