"""What was found of a run before, shown again without computing or importing anything heavy.

An evaluation against a run's own held-out images is a function of its weights, its recipe (which has the fingerprint of its
images), of what was asked, and of this program.
"""

import hashlib
import json
from pathlib import Path

from unnoise import __version__
from unnoise.evaluation.result import Evaluation
from unnoise.utils import atomic

VERSION = 1  # of how evaluations are computed: a new one computes them again


def run_key(run: Path, n: int | None, features: str | None, seed: int) -> str:
    """A short hash of all that decides an evaluation; `features` may name a file, also after a colon."""
    files = [run / "recipe.json", run / "model.safetensors", run / "guide.safetensors", Path((features or "").split(":", 1)[-1])]
    parts: list[object] = [n, features, seed, __version__, VERSION]
    for path in files:
        if path.is_file():
            with path.open("rb") as file:
                parts.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def evaluated_before(run: Path, n: int | None, features: str | None, seed: int) -> Evaluation | None:
    """What RUN/evaluation.json holds, if it is what would be found now."""
    try:
        stored = atomic.read_json(run / "evaluation.json")
        if stored["key"] != run_key(run, n, features, seed) or not (run / "evaluation-nearest.png").is_file():
            return None
        found = Evaluation.from_json(stored)
        found.table()  # raises for values of another kind, as a file that was damaged may hold
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
