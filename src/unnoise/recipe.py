"""A recipe: the tree of parts that makes a run, to and from JSON, strictly. The only place that puts parts together."""

import copy
import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from unnoise import files
from unnoise.data.pictures import Source
from unnoise.data.sources import SOURCES, DataPlan
from unnoise.denoiser import TARGETS, Denoiser, KarrasTarget, NetworkDenoiser, Target
from unnoise.errors import UserError, nearest
from unnoise.guidance import GUIDANCES, Guidance
from unnoise.loss import LOSSES, Penalty
from unnoise.network import NetworkPlan, Unit
from unnoise.network.simple_unet import SimpleUnetPlan
from unnoise.network.unet import UNetPlan
from unnoise.noise import SCHEDULES, KarrasSchedule, Schedule
from unnoise.plan import TrainingPlan
from unnoise.processes import shard
from unnoise.sampler import Sampling
from unnoise.solvers import SAMPLERS, Sampler
from unnoise.times import SAMPLING_TIMES, TRAINING_TIMES, SamplingTimes, TrainingTimes
from unnoise.training import Training, recompute

NETWORKS: dict[str, type[NetworkPlan]] = {"unet": UNetPlan, "simple-unet": SimpleUnetPlan}

TABLES: dict[type, dict[str, type]] = {
    Source: SOURCES,
    Schedule: SCHEDULES,
    Target: TARGETS,
    NetworkPlan: NETWORKS,
    Penalty: LOSSES,
    TrainingTimes: TRAINING_TIMES,
    SamplingTimes: SAMPLING_TIMES,
    Sampler: SAMPLERS,
    Guidance: GUIDANCES,
}


@dataclass(frozen=True)
class Recipe:
    """All that rebuilds a model and repeats its training."""

    data: DataPlan = field(default_factory=DataPlan)
    schedule: Schedule = field(default_factory=KarrasSchedule)
    target: Target = field(default_factory=KarrasTarget)
    network: NetworkPlan = field(default_factory=UNetPlan)
    training: TrainingPlan = field(default_factory=TrainingPlan)
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        one = torch.ones((), dtype=torch.float64)
        c = self.target.coefficients(self.schedule.alpha(one), self.schedule.sigma(one))
        if not all(torch.isfinite(v) for v in c):
            raise UserError("the noise target can't start from pure noise, where this schedule's alpha is 0: "
                            "choose --target velocity or --target flow")  # fmt: skip
        if self.data.augment and not self.network.takes_augmentation:
            raise UserError("this network can't be told of augmentation, so samples would show it: choose --network unet, "
                            "or --data.augment 0")  # fmt: skip
        self.training.times(torch.full((1,), 0.5), self.schedule)  # refuses times that the schedule does not have
        self.sampling.times(self.schedule, self.sampling.steps)  # and more steps than it has

    def build_denoiser(self, shape: tuple[int, int, int], classes: int) -> NetworkDenoiser:
        """A new denoiser for pictures of (C, H, W), its weights a function of the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.training.seed)
            network = self.network.build(shape[0], shape[1:], classes)
        return NetworkDenoiser(network, self.schedule, self.target).to(memory_format=torch.channels_last)

    def build_training(
        self, shape: tuple[int, int, int], classes: int, device: torch.device | str, sharded: bool = False
    ) -> Training:
        """A model, its averages and its optimizer, before the first step; `sharded` over the processes that there are."""
        model: Denoiser = self.build_denoiser(shape, classes).to(device)
        plan = self.training
        average, *others = (copy.deepcopy(model).eval() for _ in (plan.ema, *plan.more_ema))
        if plan.recompute:
            recompute(model)
        if sharded:
            for part in (model, average, *others):
                shard(part, Unit)
        more = dict(zip(plan.more_ema, others, strict=True))
        return Training(model, average, plan.build_optimizer(model), more=more)


def to_json(part: Any) -> Any:
    """A part as plain JSON: a dict with its `name` where a table has one."""
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        fields = {f.name: to_json(getattr(part, f.name)) for f in dataclasses.fields(part)}
        named = {kind: name for table in TABLES.values() for name, kind in table.items()}
        return {"name": named[type(part)], **fields} if type(part) in named else fields
    return [to_json(v) for v in part] if isinstance(part, tuple) else part


def from_json(kind: Any, value: Any, where: str = "recipe") -> Any:
    """The part of type `kind` that `value` describes. Raises UserError naming the field that does not fit."""
    if kind in TABLES:
        table = TABLES[kind]
        value = {"name": value} if isinstance(value, str) else value
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise UserError(f"{where} must be one of {', '.join(table)}, not {json.dumps(value)}")
        if value["name"] not in table:
            raise UserError(f"unknown {where} '{value['name']}': {nearest(value['name'], table)}")
        kind, value = table[value["name"]], {k: v for k, v in value.items() if k != "name"}
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise UserError(f"{where} must be an object with fields, not {json.dumps(value)}")
        hints = typing.get_type_hints(kind)
        for name in value:
            if name not in hints:
                raise UserError(f"unknown field '{name}' in {where}: {nearest(name, hints) if hints else 'it has none'}")
        return kind(**{name: from_json(hints[name], v, f"{where}.{name}") for name, v in value.items()})  # type: ignore[operator]
    return _plain(kind, value, where)


def _plain(kind: Any, value: Any, where: str) -> Any:
    options = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if typing.get_origin(option) is tuple and isinstance(value, list):
            items = typing.get_args(option)
            if items[-1] is Ellipsis:
                return tuple(_plain(items[0], v, where) for v in value)
            if len(items) == len(value):
                return tuple(_plain(i, v, where) for i, v in zip(items, value, strict=True))
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if option in (int, str, bool) and type(value) is option:
            return value
    wanted = " or ".join("nothing" if o is type(None) else getattr(o, "__name__", str(o)) for o in options)
    raise UserError(f"{where} must be {wanted}, not {json.dumps(value)}")


def override(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with fields changed by dotted name, e.g. {"network.widths": [32, 64], "schedule": "cosine"}.

    Naming a part (`schedule`) replaces it by that part's defaults, so parts come before their fields.
    """
    tree = to_json(recipe)
    for path, value in sorted(changes.items(), key=lambda c: c[0].count(".")):
        node, kind = tree, Recipe
        *parents, last = path.replace("-", "_").split(".")
        for name in parents:
            kind = _field(kind, node, name, path)
            node = node[name]
        kind = _field(kind, node, last, path)
        if kind in TABLES:
            value = to_json(from_json(kind, value, path))
        node[last] = value
    built: Recipe = from_json(Recipe, tree)
    return built


def _field(kind: Any, node: Any, name: str, path: str) -> Any:
    """The type of field `name` in the part of type `kind` that `node` describes."""
    if kind in TABLES:
        kind = TABLES[kind][node["name"]]
    hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
    if name not in hints:
        raise UserError(f"unknown field '{path}': {nearest(name, hints) if hints else 'there are no fields so deep'}")
    return hints[name]


@dataclass(frozen=True)
class RunInfo:
    """What `recipe.json` of a run folder holds: the recipe and what the data turned out to be."""

    recipe: Recipe
    shape: tuple[int, int, int]
    classes: tuple[str, ...] = ()
    fingerprint: str = ""
    device: str = "cpu"
    bf16: bool = False
    compiled: bool = False
    total_steps: int | None = None
    versions: str = ""
    command: str = ""

    def save(self, run: Path) -> None:
        files.write_json(run / "recipe.json", to_json(self))


def load_run(run: Path) -> RunInfo:
    """Read `recipe.json` of a run folder."""
    path = run / "recipe.json"
    if not run.is_dir():
        raise UserError(f"no run folder '{run}': train one with 'unnoise train --run {run}'")
    if not path.is_file():
        raise UserError(f"'{run}' is not a run folder: it has no recipe.json")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise UserError(f"'{path}' is not readable JSON ({e}): restore it from a copy") from e
    info: RunInfo = from_json(RunInfo, value, str(path))
    return info
