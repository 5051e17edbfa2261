"""Runs side by side: what differs in their recipes, their measures, and which of these differences are within noise."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unnoise import __version__
from unnoise.recipe import RunInfo
from unnoise.registry import to_json
from unnoise.reports import words
from unnoise.reports.blocks import Block, Code, Facts, Figure, Page, Section, Table, Text
from unnoise.reports.card import interval, number, read_figure, run_title, shown_path
from unnoise.reports.evaluations import Found, Value, higher_is_better, read_evaluation
from unnoise.reports.render import check_name, write
from unnoise.run_folder import RunFolder
from unnoise.utils.errors import UserError

MAX_VALUE = 60  # characters of a recipe's value that are shown
NOISE = ("Two values differ where their difference is larger than both intervals together: the root of the sum of squares of the "
         "halves that face each other. That is the noise of sampling and of the choice of images; training again moves a measure "
         "more, a Frechet distance about three times as much (arXiv 2606.20536).")  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What is compared of a run; `name` is different from the other runs'."""

    name: str
    folder: RunFolder
    info: RunInfo
    found: Found | None

    @property
    def conditions(self) -> tuple[object, ...]:
        """What must be equal for measures to be compared: features, numbers and seed, and the real images."""
        assert self.found is not None
        f = self.found
        return f.features, f.n, f.real, f.seed, self.info.fingerprint, self.info.recipe.data.held_out


@dataclass(frozen=True)
class Row:
    """A measure of each run (None: not measured), and what is to be said of the difference."""

    name: str
    values: tuple[Value | None, ...]
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Of `runs`: fields of their recipes that `differ`, by run; `rows` of measures; what stands in the way of comparing them."""

    runs: tuple[Run, ...]
    differ: tuple[tuple[str, ...], ...]
    rows: tuple[Row, ...]
    reasons: tuple[str, ...]

    def table(self) -> str:
        """To print: what differs, the measures with a verdict each, and the reasons why some are not compared."""
        names = [run.name for run in self.runs]
        parts = [_aligned([["", *names], *map(list, self.differ)])] if self.differ else ["the recipes are equal"]
        if self.rows:
            cells = [[r.name, *map(_cell, r.values), r.verdict] for r in self.rows]
            parts.append(_aligned([["", *names, ""], *cells]))
        parts += [f"{run.name}: {run.found.verdict}" for run in self.runs if run.found]
        return "\n\n".join([*parts[:2], "\n".join([*parts[2:], *self.reasons])]).strip()


def compare(*runs: Path | str, out: Path | str | None = None) -> Comparison:
    """Compare two runs or more, as `unnoise compare` does; written to the page `out`, .html or .md, if that is given.

    Raises UserError for what is no run, and where another's file has that name.
    """
    folders = [RunFolder.open(run) for run in runs]
    if len({folder.path.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError(f"two runs or more are compared, each given once, not {len(folders)}: give their folders")
    if out is not None:
        check_name(Path(out))
    names = _distinct(folders)
    read = tuple(Run(n, f, f.read_info(), read_evaluation(f.evaluation)) for n, f in zip(names, folders, strict=True))
    found = Comparison(read, _differences(read), _rows(read), _reasons(read))
    if out is not None:
        write(comparison_page(found, Path(out).parent), Path(out))
    return found


def within_noise(a: Value, b: Value) -> bool:
    """Whether the difference of two values lies within both intervals together, as independent errors add."""
    low, high = sorted((a, b), key=lambda v: v.value)
    return high.value - low.value <= math.hypot(low.high - low.value, high.value - high.low)


def _distinct(folders: Sequence[RunFolder]) -> list[str]:
    """Their names or, where these are equal, numbered ones."""
    names = [run_title(folder) for folder in folders]
    return [name if names.count(name) == 1 else f"{name} ({k})" for k, name in enumerate(names, 1)]


def _differences(runs: Sequence[Run]) -> tuple[tuple[str, ...], ...]:
    """A row a field: its dotted name, and its value in each recipe."""
    flat = [_flat(run.info) for run in runs]
    names = dict.fromkeys(name for fields in flat for name in fields)
    rows = ((name, *(fields.get(name, "–") for fields in flat)) for name in names)
    return tuple(row for row in rows if len(set(row[1:])) > 1)


def _flat(info: RunInfo) -> dict[str, str]:
    """The fields of a recipe, and what else makes a run, by dotted names; of the images their name and no place."""
    found: dict[str, str] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{name}.{key}".removesuffix(".name"), inner)
        else:
            found[name.removeprefix("recipe.")] = f"{value:.4g}" if isinstance(value, float) else str(value)[:MAX_VALUE]

    recipe = to_json(info.recipe)
    recipe["data"]["source"] = words.source_title(info.recipe.data.source)
    add("recipe", recipe)
    size = "x".join(map(str, (*info.shape[1:], info.shape[0])))
    own = {"images": info.images or "not recorded", "fingerprint": info.fingerprint, "image size": size,
           "classes": len(info.classes), "steps in all": info.total_steps, "precision": "bf16" if info.bf16 else "fp32",
           "versions": info.versions, "begun with": info.from_run or "–"}  # fmt: skip
    return found | {name: str(value)[:MAX_VALUE] for name, value in own.items()}


def _rows(runs: Sequence[Run]) -> tuple[Row, ...]:
    names = dict.fromkeys(name for run in runs if run.found for name in run.found.measures)
    found = []
    for name in names:
        values = tuple(run.found.measures.get(name) if run.found else None for run in runs)
        found.append(Row(name, values, _verdict(name, runs, values)))
    return tuple(found)


def _verdict(name: str, runs: Sequence[Run], values: Sequence[Value | None]) -> str:
    """Which runs are the best at a measure, as far as that can be told from noise."""
    own = [(run, value) for run, value in zip(runs, values, strict=True) if value is not None]
    if len(own) < 2:
        return ""
    higher = higher_is_better(name)
    if higher is None or len({run.conditions for run, _ in own}) > 1:
        return "can't be compared"
    best, top = max(own, key=lambda pair: pair[1].value if higher else -pair[1].value)
    as_good = [run.name for run, value in own if run is not best and within_noise(value, top)]
    if len(as_good) == len(own) - 1:
        return "within noise"
    return f"{best.name} is better" + (f", within noise of {', '.join(as_good)}" if as_good else "")


def _reasons(runs: Sequence[Run]) -> tuple[str, ...]:
    """Why measures are missing or not compared."""
    evaluated = [run for run in runs if run.found]
    said = [f"{run.name} is not evaluated: 'unnoise evaluate {shown_path(run.folder)}'" for run in runs if not run.found]
    labels = ("features", "n", "number of real images", "seed", "images", "fraction held out")
    if evaluated:
        differ = [
            label for label, *values in zip(labels, *(run.conditions for run in evaluated), strict=True) if len(set(values)) > 1
        ]
        if differ:
            said.append(
                f"measures of equal features, n and real images alone are compared, and these runs differ in: {', '.join(differ)}"
            )
    return tuple(said)


def _cell(value: Value | None) -> str:
    if value is None:
        return "–"
    return f"{number(value.value)} ({interval(value.low, value.high)})"


def _tall_cell(value: Value | None) -> str:
    return "–" if value is None else f"{number(value.value)}\n{interval(value.low, value.high)}\nfloor {number(value.floor)}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def comparison_page(found: Comparison, place: Path) -> Page:
    """The page of a comparison, to be written to a folder, `place`."""
    names = tuple(run.name for run in found.runs)
    grids = [figure for run in found.runs if (figure := _last_grid(run, place))]
    measures: list[Block] = [Text(reason, notice=True) for reason in found.reasons]
    if found.rows:
        rows = [(f"{r.name}: {r.verdict}".removesuffix(": "), *map(_tall_cell, r.values)) for r in found.rows]
        measures += [Table("Measures, each with its 95 % interval and its floor", ("Measure", *names), tuple(rows)), Text(NOISE)]
    copying = [(run.name, run.found.verdict) for run in found.runs if run.found]
    differ: Block = Text("The recipes are equal.")
    if found.differ:
        differ = Table("Fields that are not equal in all recipes", ("Field", *names), found.differ)
    sections = (
        Section("What differs", (differ,)),
        Section("How good they are", tuple(measures)),
        *([Section("Copying", (Facts(tuple(copying)),))] if copying else []),
        *([Section("Samples", tuple(grids))] if grids else []),
        Section("How to repeat this", (Code(f"unnoise compare {' '.join(shown_path(run.folder) for run in found.runs)}"),)),
    )
    lead = f"{len(names)} runs side by side: what differs, how good they are, and what of that is within noise."
    return Page("Comparison of diffusion models", " · ".join(names), lead, sections, f"Written by unnoise {__version__}.")


def _last_grid(run: Run, place: Path) -> Figure | None:
    grids = list(run.folder.grids().items())
    if not grids:
        return None
    step, path = grids[-1]
    figure = read_figure(run.folder, path, f"Samples of {run.name} after step {step:,}", f"{run.name}, after step {step:,}.")
    return None if figure is None else replace(figure, path=Path(os.path.relpath(path, place)).as_posix())
