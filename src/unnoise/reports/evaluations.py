"""What an evaluation.json says, read as a stranger's: whatever is not as `unnoise evaluate` writes it is refused."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unnoise.evaluation.measures import MEASURES
from unnoise.utils import atomic
from unnoise.utils.errors import UserError

MAX_ITEMS = 1000  # of measures, classes and notes


@dataclass(frozen=True)
class Value:
    """A measure's value, its 95 % interval and its floor."""

    value: float
    low: float
    high: float
    floor: float


@dataclass(frozen=True)
class Found:
    """An evaluation; `copying` as in its JSON; `bits` per dimension, as in `likelihood`, and `per_class` where there are."""

    n: int
    real: int
    features: str
    seed: int
    measures: dict[str, Value]
    copying: dict[str, float]
    verdict: str
    notes: tuple[str, ...]
    bits: dict[str, float] = field(default_factory=dict)
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)


def read_evaluation(path: Path) -> Found | None:
    """None where there is no evaluation. Raises UserError for a file that is none."""
    if not path.is_file():
        return None
    try:
        return _read(atomic.read_json(path))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
        raise UserError(f"'{path}' is no evaluation ({type(e).__name__}: {e}): remove it, and evaluate the run again") from e


def higher_is_better(name: str) -> bool | None:
    """Of a measure such as `kid (classifier)`; None for one that is not known."""
    measure = MEASURES.get({"fid": "frechet"}.get(own := name.partition(" (")[0], own))
    return None if measure is None else measure.higher_is_better


def _read(json: Any) -> Found:
    measures = {str(name): Value(*(_number(v[key]) for key in ("value", "low", "high", "floor")))
                for name, v in _few(json["measures"]).items()}  # fmt: skip
    copying = json["copying"]
    return Found(
        n=int(_number(json["n"])),
        real=int(_number(json["real"])),
        features=_text(json["features"]),
        seed=int(_number(json["seed"])),
        measures=measures,
        copying=_numbers(copying),
        verdict=_text(copying["verdict"]),
        notes=tuple(_text(note) for note in _few(json.get("notes", []))),
        bits=_numbers(json.get("likelihood") or {}),
        per_class={str(name): _class(v) for name, v in _few(json.get("per_class") or {}).items()},
    )


def _class(values: dict[str, Any]) -> dict[str, float]:
    """Numbers of one class, the values of its measures among them."""
    measures = {str(name): _number(v["value"]) for name, v in _few(values.get("measures") or {}).items()}
    return _numbers(values) | measures


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {str(k): _number(v) for k, v in _few(values).items() if type(v) in (int, float)}


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:40]!r} is no text")
    return value[:2000]


def _few(values: Any) -> Any:
    if len(values) > MAX_ITEMS:
        raise ValueError(f"it has {len(values)} entries where {MAX_ITEMS} are read")
    return values
