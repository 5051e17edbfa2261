"""What an evaluation found, to and from JSON, and as text. Needs no torch, so that what was found before is shown at once."""

from dataclasses import asdict, dataclass, field
from typing import Any

from unnoise.evaluation.copying import Copying

MAX_CLASSES = 20  # in the text


@dataclass(frozen=True)
class Result:
    """A measure's value, its 95 % interval, and its floor."""

    value: float
    low: float
    high: float
    floor: float


@dataclass(frozen=True)
class Likelihood:
    """Bits per dimension of `n` held-out images, with the 95 % interval of the mean, its terms, and that of training images."""

    bits_per_dim: float
    low: float
    high: float
    prior: float
    diffusion: float
    reconstruction: float
    training: float
    n: int

    def __str__(self) -> str:
        return (f"bits per dimension: {self.bits_per_dim:.3f} ({self.low:.3f} to {self.high:.3f}) at most, of {self.n} held-out "
                f"images (prior {self.prior:.3f}, diffusion {self.diffusion:.3f}, reconstruction {self.reconstruction:.3f}); "
                f"{self.training:.3f} of as many training images")  # fmt: skip


@dataclass(frozen=True)
class ClassResult:
    """Of one class: how many samples and held-out images, the fractions of them recognised (None of none), a distance."""

    n: int
    real: int
    recognised: float | None
    real_recognised: float | None
    measures: dict[str, Result] = field(default_factory=dict)

    def __str__(self) -> str:
        shares = [f"{share:.0%} of {n} {what}" for share, n, what in ((self.recognised, self.n, "samples"),
                  (self.real_recognised, self.real, "held-out images")) if share is not None]  # fmt: skip
        distances = [
            f"{name} {r.value:.4f} ({r.low:.4f} to {r.high:.4f}, floor {r.floor:.4f})" for name, r in self.measures.items()
        ]
        return "; ".join([f"recognised {' and '.join(shares) or 'none, since there are none'}", *distances])


@dataclass(frozen=True)
class Evaluation:
    """What was found of `n` samples and `real` images that the model never saw; `measures` by names such as `kid (classifier)`.

    `per_class` is empty where there are no labels. `notes` say which measures are missing, and why, and what is to be known of
    the features. `key` stands for all that decides the result, where that is known.
    """

    n: int
    real: int
    features: str
    seed: int
    measures: dict[str, Result]
    copying: Copying
    likelihood: Likelihood
    per_class: dict[str, ClassResult] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    key: str = ""

    def to_json(self) -> dict[str, Any]:
        """As in evaluation.json."""
        found = {name: getattr(self, name) for name in ("n", "real", "features", "seed")}
        found |= {"measures": {name: asdict(result) for name, result in self.measures.items()}, "copying": self.copying.to_json()}
        found |= {"bits_per_dim": self.likelihood.bits_per_dim, "likelihood": asdict(self.likelihood)}
        return {**found, "per_class": {name: asdict(result) for name, result in self.per_class.items()},
                "notes": list(self.notes), "key": self.key}  # fmt: skip

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Evaluation":
        """Raises ValueError, KeyError or TypeError for what `to_json` did not make."""
        per_class = {name: ClassResult(**of | {"measures": _results(of["measures"])}) for name, of in found["per_class"].items()}
        plain = {name: found[name] for name in ("n", "real", "features", "seed", "key")}
        copying = Copying.from_json(found["copying"], found["n"], found["real"])
        return cls(**plain, measures=_results(found["measures"]), copying=copying, likelihood=Likelihood(**found["likelihood"]),
                   per_class=per_class, notes=tuple(found["notes"]))  # fmt: skip

    def table(self) -> str:
        """A line a measure, the bits per dimension, a line a class, then the verdict on copying and the notes."""
        width = max((len(name) for name in self.measures), default=0)
        lines = [f"{'':{width}}  {'value':>9}  {'95 % interval':^20}  {'floor':>9}       n"] if self.measures else []
        for name, r in self.measures.items():
            lines.append(f"{name:{width}}  {r.value:9.4f}  {r.low:9.4f} {r.high:9.4f}   {r.floor:9.4f}  {self.n:6d}")
        return "\n".join([*lines, str(self.likelihood), *self._classes(), self.copying.verdict, *self.notes])

    def _classes(self) -> list[str]:
        """Of many classes those that are recognised least."""
        found = sorted(self.per_class.items(), key=lambda of: -1 if of[1].recognised is None else of[1].recognised)
        shown = dict(found[:MAX_CLASSES]) if len(found) > MAX_CLASSES else self.per_class
        more = [f"{len(found) - len(shown)} more classes, recognised better"] if len(found) > len(shown) else []
        return [*(f"class {name!r}: {result}" for name, result in shown.items()), *more]


def _results(found: dict[str, Any]) -> dict[str, Result]:
    return {name: Result(**result) for name, result in found.items()}
