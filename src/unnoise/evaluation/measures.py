r"""Measures of how like real images generated ones are: each with what it needs, its interval and its floor.

Intervals are of 95 %: where the value would lie with other images of the same model and of the same data, equally many. Of values
that are biased for few images they hold that bias too. Three methods:

- the standard error of a U-statistic, for the kernel distance (`distances.kernel_distance_error`);
- half sampling, the delete-d jackknife with d = n / 2 (Shao & Wu 1989; Politis, Romano & Wolf 1999): without replacement, the
  deviation of the value on random halves is its standard error on all. The bootstrap would not do: an image that is there twice
  is its own nearest neighbour, and lowers what distances measure. Of fractions the interval is at least Wilson's, since halves of
  images that are all in, or all out, deviate by nothing;
- Wilson's interval (1927) for the accuracy of a classifier, with the variance of cross-validation: 1 + 1 / (folds - 1) times that
  of independent trials (the term n_test / n_train of Nadeau & Bengio 2003).

The floor is the value of as many training images in place of the generated ones: what no model that is not a copy can beat, but
for chance.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unnoise.evaluation import distances, neighbours
from unnoise.evaluation.result import Result
from unnoise.utils import rng

Function = Callable[[np.ndarray, np.ndarray], float]  # features of generated (N, D) and real images (M, D)
Z = 1.96  # standard errors on either side, for 95 %
HALVES = 60  # of either set
FOLDS = 5


@dataclass(frozen=True)
class Measure:
    """How it is computed, the least number of images on either side, of which better is lower or higher.

    `above_dimensions`: there must be more images than features too, else a covariance is singular. `fraction_of` says whose
    fraction it is, of generated (0) or real (1) images, None where it is none.
    """

    function: Function
    higher_is_better: bool = False
    minimum: int = 50
    above_dimensions: bool = False
    fraction_of: int | None = None
    standard_error: Function | None = None  # None: by half sampling
    limits: tuple[float, float] = (0.0, np.inf)

    def needs(self, dimensions: int) -> int:
        """The least number of images on either side, with features of so many dimensions."""
        return max(self.minimum, dimensions + 1) if self.above_dimensions else self.minimum

    def __call__(self, generated: np.ndarray, real: np.ndarray, training: np.ndarray, seed: int = 0) -> Result:
        """From features of generated (N, D), held-out (M, D) and, for the floor, training images (N, D)."""
        assert min(len(generated), len(real)) >= self.needs(real.shape[1]) and len(training) == len(generated)
        value = self.function(generated, real)
        low, high = self.interval(value, generated, real, seed)
        return Result(value, low, high, self.function(training, real))

    def interval(self, value: float, generated: np.ndarray, real: np.ndarray, seed: int = 0) -> tuple[float, float]:
        """Of 95 %, for a value found on these features."""
        if self.function is two_sample_accuracy:
            return wilson(value, 2 * min(len(generated), len(real)) * (FOLDS - 1) / FOLDS)
        error = (self.standard_error or self._half_sampling_error(seed))(generated, real)
        low, high = value - Z * error, value + Z * error
        if self.fraction_of is not None:
            at_least = wilson(value, len((generated, real)[self.fraction_of]))
            low, high = min(low, at_least[0]), max(high, at_least[1])
        return max(low, self.limits[0]), min(high, self.limits[1])

    def _half_sampling_error(self, seed: int) -> Function:
        def error(generated: np.ndarray, real: np.ndarray) -> float:
            found = []
            for k in range(HALVES):
                generator = rng.stream(seed, "half samples", k)
                halves = (x[generator.permutation(len(x))[: len(x) // 2]] for x in (generated, real))
                found.append(self.function(*halves))
            return float(np.std(found, ddof=1))

        return error


def wilson(fraction: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a fraction of n independent trials (Wilson 1927)."""
    middle = (fraction + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * (fraction * (1 - fraction) / n + Z**2 / (4 * n**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def two_sample_accuracy(generated: np.ndarray, real: np.ndarray) -> float:
    """How often a classifier tells generated (N, D) from real images (M, D): 0.5 cannot, 1 always (Lopez-Paz & Oquab 2017).

    Logistic regression on standardised features, cross-validated in 5 folds; of the first min(N, M) of each.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n = min(len(generated), len(real))
    x, y = np.concatenate([generated[:n], real[:n]]), np.repeat([0, 1], n)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    return float(cross_val_score(model, x, y, cv=folds).mean())


FRACTION = (0.0, 1.0)
MEASURES: dict[str, Measure] = {
    "kid": Measure(
        distances.kernel_distance, standard_error=distances.kernel_distance_error, limits=(-np.inf, np.inf), minimum=20
    ),
    "frechet": Measure(distances.frechet_distance, above_dimensions=True),
    "mind": Measure(distances.monge_distance),
    "precision": Measure(neighbours.precision, higher_is_better=True, fraction_of=0, limits=FRACTION),
    "recall": Measure(neighbours.recall, higher_is_better=True, fraction_of=1, limits=FRACTION),
    "density": Measure(neighbours.density, higher_is_better=True),
    "coverage": Measure(neighbours.coverage, higher_is_better=True, fraction_of=1, limits=FRACTION),
    "two-sample": Measure(two_sample_accuracy, minimum=100, limits=FRACTION),
}
