"""A run folder: what lies where, and reading it. Nothing here trains or samples.

recipe.json  model.safetensors  guide.safetensors  best.safetensors  teacher/
metrics.jsonl  held-out.jsonl  samples/  tensorboard/  checkpoints/  snapshots/
evaluation.json  evaluation-nearest.png  evaluation/
report.html  report.md  report-example.png  cost.jsonl
"""

import difflib
import hashlib
import math
import re
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from unnoise import hub
from unnoise.diffusion.gaussian import Moments
from unnoise.recipe import RunInfo
from unnoise.training import checkpoint
from unnoise.utils import atomic
from unnoise.utils.errors import UserError

SHOWN_LOSSES = 50  # of the last steps, whose mean is shown
GRID = re.compile(r"\d{6,12}\.png")
Curve = tuple[list[int], list[float]]  # steps and values
LOCK, HOLDER = ".lock", ".lock.json"  # who writes to the run; the second is removed when that ends, so a kill leaves it
WRITTEN = (
    "model.safetensors",
    "guide.safetensors",
    "best.safetensors",
    "teacher",
    "metrics.jsonl",
    "held-out.jsonl",
    "skipped.txt",
    "strip.png",
    "loss.png",
    "checkpoints",
    "snapshots",
    "samples",
    "evaluation.json",
    "evaluation-nearest.png",
    "evaluation",
    "report.html",
    "report.md",
    "report-example.png",
    "cost.jsonl",
)  # beside the recipe


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run folder, and what its files hold."""

    path: Path

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """Raises UserError where there is no run. One of the hub, `hf:OWNER/NAME`, is fetched."""
        folder = cls(hub.local(path))
        if not folder.path.is_dir():
            near = _nearest_run(folder.path)
            hint = f"did you mean '{near}'?" if near else f"train one with 'unnoise train IMAGES --run {path}'"
            if folder.path.suffix in (".pth", ".pt"):
                hint = f"weights of another program become one by 'unnoise import {path} --run OTHER'"
            raise UserError(f"no run folder '{path}': {hint}")
        if not folder.recipe.is_file():
            raise UserError(f"'{path}' is not a run folder: it has no recipe.json")
        folder._refuse_links()
        return folder

    def _refuse_links(self) -> None:
        inside = self.path.resolve()
        links = [p for p in sorted(self.path.iterdir()) if p.is_symlink() and inside not in p.resolve().parents]
        if links:
            raise UserError(f"'{links[0]}' is a link that leads out of its run, where nothing may be written: put what it leads "
                            "to into the run, or remove it")  # fmt: skip

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.json"

    @property
    def model(self) -> Path:
        """The averaged weights, for use, and the training images' mean and covariance."""
        return self.path / "model.safetensors"

    @property
    def guide(self) -> Path:
        """An early average of the weights, for autoguidance."""
        return self.path / "guide.safetensors"

    @property
    def best(self) -> Path:
        """The averaged weights where the held-out loss was lowest, before samples were copies (`unnoise.runs.best`)."""
        return self.path / "best.safetensors"

    @property
    def teacher(self) -> "RunFolder":
        """Of a student: its teacher, as much of it as sampling needs."""
        return RunFolder(self.path / "teacher")

    @property
    def metrics(self) -> Path:
        """A line of JSON per step."""
        return self.path / "metrics.jsonl"

    @property
    def held_out(self) -> Path:
        """A line of JSON per measurement of the held-out loss, with the copy rate of the samples where it was looked at."""
        return self.path / "held-out.jsonl"

    @property
    def strip(self) -> Path:
        """A trajectory, written when the training has ended."""
        return self.path / "strip.png"

    @property
    def evaluation(self) -> Path:
        """What `unnoise evaluate` found."""
        return self.path / "evaluation.json"

    @property
    def evaluation_nearest(self) -> Path:
        """The most suspicious samples of an evaluation, each beside its nearest training image."""
        return self.path / "evaluation-nearest.png"

    @property
    def evaluation_cache(self) -> Path:
        """Samples and features that evaluations would make again; may be removed."""
        return self.path / "evaluation"

    @property
    def report(self) -> Path:
        """The report card; the same as markdown has the suffix .md."""
        return self.path / "report.html"

    @property
    def example(self) -> Path:
        """Images restored, for the report card."""
        return self.path / "report-example.png"

    @property
    def cost(self) -> Path:
        """A line of JSON per session of training: steps, seconds, machine, energy."""
        return self.path / "cost.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def snapshots(self) -> Path:
        """Stored averages, from which others are made."""
        return self.path / "snapshots"

    def grid(self, step: int) -> Path:
        """The grid of samples made at a step."""
        return self.path / "samples" / f"{step:06d}.png"

    def grids(self) -> dict[int, Path]:
        """All grids of samples by their steps, in order."""
        found = {int(p.stem): p for p in (self.path / "samples").glob("*.png") if GRID.fullmatch(p.name) and not p.is_symlink()}
        return dict(sorted(found.items()))

    def read_info(self) -> RunInfo:
        return RunInfo.load(self.recipe)

    def read_moments(self) -> Moments | None:
        """The training images' mean and covariance, None if there are none. Raises UserError if the file is damaged."""
        if not self.model.is_file():
            return None
        try:
            with safe_open(self.model, "pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys() if name.startswith(checkpoint.MOMENTS)}  # noqa: SIM118
            return Moments(**{k.removeprefix(checkpoint.MOMENTS): v for k, v in found.items()}) if found else None
        except Exception as e:  # safetensors raises its own kinds
            raise UserError(f"can't read the images' mean and covariance from '{self.model}' ({e})") from e

    def write_model(self, tensors: checkpoint.Tensors, moments: Moments | None) -> None:
        """Write the averaged weights and, where they are known, the images' mean and covariance, atomically."""
        own = {} if moments is None else {f"{checkpoint.MOMENTS}{k}": v for k, v in vars(moments).items()}
        checkpoint.save_tensors(self.model, {**tensors, **own})

    def read_metrics(self) -> dict[str, Curve]:
        """The `loss` and the `images_per_second` of each step; without what there is not."""
        return _read_curves(self.metrics, "loss", "images_per_second")

    def read_held_out(self) -> dict[str, Curve]:
        """The held-out `loss`, and the `copy_rate` of samples, where they were measured; without what there is not."""
        return _read_curves(self.held_out, "loss", "copy_rate")

    def read_losses(self) -> Curve | None:
        """The loss of each step; None before the first."""
        return self.read_metrics().get("loss")

    def read_held_out_losses(self) -> Curve | None:
        """The held-out loss where it was measured; None before the first."""
        return self.read_held_out().get("loss")

    def hash_model(self) -> str:
        """A short hash of the weights for use."""
        with self.model.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def refuse_existing(self) -> None:
        """Raises UserError if a run is there already, or anything else that a run would replace.

        What the beginning of one left that was killed is no such thing.
        """
        if self.recipe.exists():
            raise UserError(f"'{self.path}' holds a run already: go on with 'unnoise train --resume {self.path}' "
                            "or choose another folder (--run OTHER)")  # fmt: skip
        if not self.path.is_dir():
            return
        self._refuse_links()
        others = [] if (self.path / HOLDER).exists() else [self.path / n for n in WRITTEN if (self.path / n).exists()]
        if others:
            raise UserError(f"'{others[0]}' is there already, and of no run: choose another folder")

    def copy_to(self, other: "RunFolder") -> None:
        """Copy what sampling needs, the recipe last: what has one is a run."""
        other.path.mkdir(exist_ok=True)
        for path in (self.guide, self.model, self.recipe):
            if path.is_file():
                atomic.write(other.path / path.name, partial(shutil.copyfile, path))

    def sweep(self) -> None:
        """Remove what writing left when it was killed."""
        for place in (
            self.path,
            self.teacher.path,
            self.checkpoints,
            self.snapshots,
            self.evaluation_cache,
            self.path / "samples",
        ):
            atomic.sweep(place)


def _read_curves(path: Path, *names: str) -> dict[str, Curve]:
    found: dict[str, Curve] = {name: ([], []) for name in names}
    for record in atomic.iterate_records(path):
        for name, (steps, values) in found.items():
            if _is_number(record.get("step")) and _is_number(record.get(name)):  # not where a step was skipped
                steps.append(record["step"])
                values.append(record[name])
    return {name: curve for name, curve in found.items() if curve[0]}


def _curve_of(steps: list[dict[str, Any]]) -> Curve | None:
    records = [r for r in steps if _is_number(r.get("loss"))]
    return ([r["step"] for r in records], [r["loss"] for r in records]) if records else None


def _read_steps(path: Path) -> list[dict[str, Any]]:
    """Of each step, also of those that were skipped, which have no loss."""
    records = [r for r in atomic.read_records(path) if _is_number(r.get("step"))]
    return [r for r in records if _is_number(r.get("loss")) or r.get("skipped") is True]


@dataclass(frozen=True)
class RunSummary:
    """One run as `unnoise runs` shows it; `best` is the lowest held-out loss, None before the first."""

    folder: Path
    state: str
    step: int
    total: int | None
    loss: float | None
    best: float | None


def list_runs(root: Path) -> list[RunSummary]:
    """The runs in a folder, the last changed first. One that can't be read is among them, and its state says why."""
    found = []
    for recipe in sorted(root.glob("*/recipe.json"), key=lambda p: -p.stat().st_mtime):
        try:
            found.append(_summarise(RunFolder.open(recipe.parent)))
        except UserError as e:
            found.append(RunSummary(recipe.parent, f"unreadable ({e})", 0, None, None, None))
    return found


def _summarise(folder: RunFolder) -> RunSummary:
    total, steps, held_out = folder.read_info().total_steps, _read_steps(folder.metrics), folder.read_held_out_losses()
    curve = _curve_of(steps)
    step = int(steps[-1]["step"]) if steps else 0
    state = "done" if step and step == total else "unfinished" if step else "no steps"
    loss = float(np.mean(curve[1][-SHOWN_LOSSES:])) if curve else None
    return RunSummary(folder.path, state, step, total, loss, min(held_out[1]) if held_out else None)


def _nearest_run(path: Path) -> Path | None:
    """The run beside `path`, or in the folder `runs`, whose name comes closest."""
    found = {p.parent.name: p.parent for place in (Path("runs"), path.parent) for p in place.glob("*/recipe.json")}
    return next((found[name] for name in difflib.get_close_matches(path.name, found, n=1)), None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
