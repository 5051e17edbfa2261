"""Runs as they stand on the disk, read from what they wrote."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unnoise import files
from unnoise.recipe import load_run


@dataclass(frozen=True)
class RunState:
    """One run as `unnoise runs` shows it; `best` is the lowest held-out loss, None before the first."""

    folder: Path
    state: str
    step: int
    total: int | None
    loss: float | None
    best: float | None


def list_runs(root: Path) -> list[RunState]:
    """The runs in a folder, the last changed first."""
    found = []
    for path in sorted(root.glob("*/recipe.json"), key=lambda p: -p.stat().st_mtime):
        info, folder = load_run(path.parent), path.parent
        records, held_out = files.read_records(folder / "metrics.jsonl"), read_losses(folder, "held-out.jsonl")
        step = records[-1]["step"] if records else 0
        state = "done" if step and step == info.total_steps else "unfinished" if records else "no steps"
        loss = float(np.mean([r["loss"] for r in records[-50:]])) if records else None
        found.append(RunState(folder, state, step, info.total_steps, loss, min(held_out[1]) if held_out else None))
    return found


def read_losses(folder: Path, name: str = "metrics.jsonl") -> tuple[list[int], list[float]] | None:
    """The steps of a run and their losses, from its metrics; None if there are none."""
    records = files.read_records(folder / name)
    return ([r["step"] for r in records], [r["loss"] for r in records]) if records else None
