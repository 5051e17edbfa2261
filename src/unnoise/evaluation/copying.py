r"""Whether a model copies its training images, from the distances of its samples to the nearest ones.

A sample is a copy where the nearest training image is less than a third as far as the second nearest (Bonnaire et al. 2025, "Why
Diffusion Models Don't Memorize"; Yoon et al. 2023), or where it is equal to one. Held-out images show how often that happens to
images that are no copies, and how near a new image usually is. Both are looked at in pixels, mirrored images included where the
training mirrored them, and in features.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

THIRD = 1 / 3
NEAR = 0.5  # median distance over that of held-out images, below which samples are suspicious
MIN_RATE = 0.01  # of copies beyond those among held-out images, below which none is spoken of
SUSPICIOUS = 24  # samples that are named


@dataclass(frozen=True)
class Nearest:
    """Of each image the Euclidean distances to its nearest and second nearest training images (N, 2), and which the first is."""

    distances: np.ndarray
    index: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """Nearest over second nearest, (N,) in [0, 1]; 0 for an image that is equal to a training image."""
        first, second = self.distances.T
        return np.where(first == 0, 0.0, first / np.where(second == 0, 1, second))

    @property
    def rate(self) -> float:
        """The fraction of copies."""
        return float((self.ratios < THIRD).mean())


def find_nearest(views: Sequence[np.ndarray], training: Iterable[np.ndarray]) -> Nearest:
    """The nearest of training images, which come in chunks (K, ...), two of them at least.

    `views` are the images (N, ...) as they are and, if need be, mirrored: the nearer one counts. Computed in float64, so that the
    distance of equal pixels is exactly 0.
    """
    flat = [view.reshape(len(view), -1).astype(np.float64) for view in views]
    best, index, first = np.full((len(flat[0]), 2), np.inf), np.zeros((len(flat[0]), 2), int), 0
    for chunk in training:
        y = chunk.reshape(len(chunk), -1).astype(np.float64)
        squares = np.square(y).sum(1)
        found = np.min([np.square(x).sum(1)[:, None] + squares - 2 * x @ y.T for x in flat], axis=0)
        candidates = np.concatenate([best, found.clip(0)], axis=1)
        indices = np.concatenate([index, np.broadcast_to(np.arange(first, first + len(y)), found.shape)], axis=1)
        nearest = candidates.argmin(1)
        without = candidates.copy()
        np.put_along_axis(without, nearest[:, None], np.inf, 1)
        order = np.stack([nearest, without.argmin(1)], axis=1)  # of equal ones the first, and far faster than sorting
        best, index = (np.take_along_axis(a, order, 1) for a in (candidates, indices))
        first += len(y)
    assert first > 1
    return Nearest(np.sqrt(best), index[:, 0])


@dataclass(frozen=True)
class Space:
    """What distances in pixels, or in features, say.

    `rate` of copies among the samples, `held_out_rate` among held-out images, the numbers of both, and `distance_ratio`, the
    median distance of samples to their nearest training images over that of held-out images.
    """

    rate: float
    held_out_rate: float
    distance_ratio: float
    n: int
    held_out: int

    @classmethod
    def of(cls, samples: Nearest, held_out: Nearest) -> "Space":
        medians = [float(np.median(x.distances[:, 0])) for x in (samples, held_out)]
        ratio = medians[0] / medians[1] if medians[1] else float(medians[0] > 0)
        return cls(samples.rate, held_out.rate, ratio, len(samples.index), len(held_out.index))

    @property
    def copies(self) -> bool:
        """Whether the samples have more copies than held-out images, beyond chance.

        By the 95 % interval of a difference of fractions, one success and one failure added to each (Agresti & Caffo 2000).
        """
        difference, variance = 0.0, 0.0
        for sign, rate, n in ((1, self.rate, self.n), (-1, self.held_out_rate, self.held_out)):
            p = (rate * n + 1) / (n + 2)
            difference, variance = difference + sign * p, variance + p * (1 - p) / (n + 2)
        return difference > 1.96 * variance**0.5 and self.rate - self.held_out_rate > MIN_RATE

    @property
    def near(self) -> bool:
        """Whether the samples lie far nearer to training images than held-out images do."""
        return self.distance_ratio < NEAR


@dataclass(frozen=True)
class Copying:
    """What was found in `pixels` and in `features`; `suspicious` are the samples most like one training image, `nearest` that."""

    pixels: Space
    features: Space
    suspicious: np.ndarray
    nearest: np.ndarray

    @classmethod
    def of(cls, pixels: tuple[Nearest, Nearest], features: tuple[Nearest, Nearest]) -> "Copying":
        """From the nearest training images of samples and of held-out images."""
        order = np.argsort(pixels[0].ratios, kind="stable")[:SUSPICIOUS]
        return cls(Space.of(*pixels), Space.of(*features), order, pixels[0].index[order])

    @property
    def verdict(self) -> str:
        """One sentence, with its evidence."""
        spaces = {"pixels": self.pixels, "features": self.features}
        for name, space in spaces.items():
            if space.copies:
                return (f"it copies: {space.rate:.1%} of the samples are copies of training images in {name}, "
                        f"{space.held_out_rate:.1%} of held-out images would count as such")  # fmt: skip
        for name, space in spaces.items():
            if space.near:
                return (f"it may copy: in {name} the samples are {space.distance_ratio:.2f} times as far from training images as "
                        "held-out images are, look at the most suspicious")  # fmt: skip
        shown = " and ".join(f"{x.rate:.1%} in {name} (held-out images: {x.held_out_rate:.1%})" for name, x in spaces.items())
        return f"no sign of copying: of the samples count as copies {shown}"

    @classmethod
    def from_json(cls, found: dict[str, Any], n: int, held_out: int) -> "Copying":
        """What `to_json` gave, of so many samples and held-out images. Raises KeyError for what it did not make."""
        pixels, features = (Space(found[f"rate{of}"], found[f"held_out_rate{of}"], found[f"distance_ratio{of}"], n, held_out)
                            for of in ("", "_features"))  # fmt: skip
        return cls(pixels, features, np.array(found["suspicious"]), np.array(found["nearest"]))

    def to_json(self) -> dict[str, Any]:
        """`rate` and what else is not said to be of features is of pixels."""
        return {
            "rate": self.pixels.rate,
            "held_out_rate": self.pixels.held_out_rate,
            "distance_ratio": self.pixels.distance_ratio,
            "rate_features": self.features.rate,
            "held_out_rate_features": self.features.held_out_rate,
            "distance_ratio_features": self.features.distance_ratio,
            "verdict": self.verdict,
            "suspicious": self.suspicious.tolist(),
            "nearest": self.nearest.tolist(),
        }
