"""How good the samples of each class are: whether they are recognised as of it, and how far they are from its images."""

from dataclasses import dataclass

import numpy as np

from unnoise.evaluation.measures import MEASURES
from unnoise.evaluation.result import ClassResult, Result
from unnoise.utils import rng

MAX_FITTED = 5000  # training images that the classifier is fitted to


@dataclass(frozen=True)
class Labelled:
    """Features (N, D) and classes (N,) of images."""

    features: np.ndarray
    labels: np.ndarray

    def of(self, label: int) -> np.ndarray:
        """Those of one class."""
        found: np.ndarray = self.features[self.labels == label]
        return found


def measure_classes(name: str, generated: Labelled, real: Labelled, training: Labelled, classes: tuple[str, ...],
                    seed: int = 0) -> dict[str, ClassResult]:  # fmt: skip
    """Of samples, held-out and training images, by class; `name` is that of the features.

    A sample is recognised where logistic regression on the features, fitted to the training images, gives its class. The distance
    is Frechet's where there are more samples and held-out images of a class than features, else the kernel distance, and none
    where there are too few even for that.
    """
    recognised, real_recognised = _recognised(training, (generated, real), seed)
    found = {}
    for k, label in enumerate(classes):
        samples, images, floor = generated.of(k), real.of(k), training.of(k)
        n = min(len(samples), len(floor))
        measures: dict[str, Result] = {}
        for measure in ("frechet", "kid"):
            if not measures and min(n, len(images)) >= MEASURES[measure].needs(images.shape[1]):
                own = "fid" if (measure, name) == ("frechet", "inception") else measure
                measures[f"{own} ({name})"] = MEASURES[measure](samples[:n], images, floor[:n], seed)
        found[label] = ClassResult(len(samples), len(images), _share(recognised[generated.labels == k]),
                                   _share(real_recognised[real.labels == k]), measures)  # fmt: skip
    return found


def _recognised(training: Labelled, sets: tuple[Labelled, Labelled], seed: int) -> list[np.ndarray]:
    """Of each of the sets which are recognised, (N,) bool."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(training.labels)) < 2:
        return [np.ones(len(x.labels), bool) for x in sets]
    chosen = rng.stream(seed, "recognise").permutation(len(training.labels))[:MAX_FITTED]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    model.fit(training.features[chosen], training.labels[chosen])
    return [model.predict(x.features) == x.labels for x in sets]


def _share(found: np.ndarray) -> float | None:
    return float(found.mean()) if len(found) else None
