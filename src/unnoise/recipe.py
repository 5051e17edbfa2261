"""A recipe: the tree of parts that makes a run. The only place that puts parts together."""

import copy
import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unnoise.data.sources import DataConfig
from unnoise.diffusion.denoiser import EDM, NetworkDenoiser, Target, check_start
from unnoise.diffusion.samplers import DPMpp2MSDE
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Karras, Schedule
from unnoise.diffusion.timesteps import LogSnrSteps
from unnoise.networks.base import ModuleConfig, NetworkConfig, Unit
from unnoise.networks.unet import UNetConfig
from unnoise.registry import TABLES, field_types, from_json, to_json
from unnoise.training.config import TrainingConfig
from unnoise.training.distributed import shard
from unnoise.training.loop import TrainState, checkpoint_activations
from unnoise.utils import atomic
from unnoise.utils.errors import UserError, nearest


def command_line() -> str:
    """The command that runs, as a recipe keeps it: of absolute paths the last part alone, which says nothing of this machine."""
    words = (word.rpartition("=") for word in [Path(sys.argv[0]).name, *sys.argv[1:]])
    return " ".join(f"{name}{equals}{Path(value).name if Path(value).is_absolute() else value}" for name, equals, value in words)


def without_paths(value: Any) -> Any:
    """JSON in which of each absolute path the last part is left, for others to read."""
    if isinstance(value, dict):
        return {name: without_paths(v) for name, v in value.items()}
    if isinstance(value, list):
        return [without_paths(v) for v in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


MAX_VALUES = 2**28  # of an image
# The fewer steps that serve for new images, 10 on Karras times, cost an inpainted one 1.6 dB (docs/log.md).
RESTORING = SamplingConfig(DPMpp2MSDE(), LogSnrSteps(), steps=15)


@dataclass(frozen=True)
class Recipe:
    """All that rebuilds a model and repeats its training."""

    data: DataConfig = field(default_factory=DataConfig)
    schedule: Schedule = field(default_factory=Karras)
    target: Target = field(default_factory=EDM)
    network: NetworkConfig = field(default_factory=UNetConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        check_start(self.schedule, self.target)
        if self.data.augment and not self.network.takes_augmentation:
            raise UserError("this network takes no augmentation labels, so augmentation would leak into samples: "
                            "choose network unet, or data.augment 0")  # fmt: skip
        if getattr(self.training.objective, "tell_critic", False) and not self.network.takes_augmentation:
            raise UserError("this network takes no augmentation labels, by which a critic knows the call: choose "
                            "training.objective.tell_critic false")  # fmt: skip
        self.training.check(self.schedule)
        self.sampling.times(self.schedule, self.sampling.steps)  # refuses more steps than it has

    def build_denoiser(self, shape: tuple[int, int, int], classes: int) -> NetworkDenoiser:
        """A new denoiser for images of (C, H, W), its weights a function of the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.training.seed)
            network = self.network.build(shape[0], shape[1:], classes)
        return NetworkDenoiser(network, self.schedule, self.target).to(memory_format=torch.channels_last)

    def weight_shapes(self, shape: tuple[int, int, int], classes: int) -> dict[str, tuple[int, ...]]:
        """The shapes of a denoiser's weights by name, without taking memory for any."""
        with torch.device("meta"), _WithoutNormal():
            denoiser = self.build_denoiser(shape, classes)
        return {name: tuple(value.shape) for name, value in denoiser.state_dict().items()}

    def build_state(self, shape: tuple[int, int, int], classes: int, device: str = "cpu", sharded: bool = False,
                    weights: Mapping[str, Tensor] | None = None) -> TrainState:  # fmt: skip
        """A model, its averages and its optimizers, before the first step; `sharded` over the processes of this launch.

        `weights` are some or all to begin with, by name; the others are random.
        """
        config, model = self.training, self.build_denoiser(shape, classes).to(device)
        model.load_state_dict(dict(weights or {}), strict=False)
        average, *extra = (copy.deepcopy(model).eval() for _ in (config.ema, *config.extra_ema))
        critic = copy.deepcopy(model) if config.objective.critic_rate else None
        for trained in (model, critic) if config.activation_checkpointing else ():
            if trained is not None:
                checkpoint_activations(trained)
        if sharded:
            for each in (model, average, *extra):
                shard(each, Unit)
        optimizers = config.build_optimizers(model)
        if critic is not None:
            optimizers += config.build_optimizers(critic, config.objective.critic_rate)
        state = TrainState(model, average, optimizers, critic=critic)
        state.extra_averages.update(zip(config.extra_ema, extra, strict=True))
        return state


class _WithoutNormal(TorchFunctionMode):
    """Inside it weights stay as they are where normal numbers would fill them.

    On the meta device that imports `torch._dynamo`, which takes a second.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return kwargs["tensor"] if func is nn.init.normal_ else func(*args, **(kwargs or {}))


def override(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with fields changed by dotted name, e.g. {"network.widths": [32, 64], "schedule": "cosine"}.

    Naming a part (`schedule`) replaces it by that part's defaults, before its own fields are changed. A value is as in JSON, or
    a part itself. Each part is built once, so only the whole must be valid. Raises UserError naming the nearest field.
    """
    tree: dict[str, Any] = {}
    for path, value in changes.items():
        node = tree
        for name in path.replace("-", "_").split("."):
            node = node.setdefault(name, {})
        node[VALUE] = value
    changed: Recipe = _change(recipe, tree, "")
    return changed


VALUE = ""  # key of a value in a tree of changes; all other keys are fields


def _change(part: Any, tree: dict[str, Any], where: str) -> Any:
    """The part with the fields in `tree` changed; `where` is its dotted name with a dot behind it."""
    if isinstance(part, ModuleConfig):
        options = {name: _leaf(node, f"{where}{name}") for name, node in tree.items()}
        return from_json(NetworkConfig, {**to_json(part), **options}, where.rstrip("."))
    types = field_types(type(part)) if dataclasses.is_dataclass(part) else {}
    new = {}
    for name, node in tree.items():
        path = f"{where}{name}"
        if name not in types:
            hint = nearest(name, types) if types else "there are no fields so deep"
            raise UserError(f"unknown field '{path}': {hint}")
        own, fields = getattr(part, name), {k: v for k, v in node.items() if k != VALUE}
        if VALUE in node:
            own, fields = _read(types[name], node[VALUE], fields, path)
        new[name] = _change(own, fields, f"{path}.") if fields else own
    return dataclasses.replace(part, **new)


def _leaf(node: dict[str, Any], path: str) -> Any:
    """The value at a place that has no fields."""
    deeper = [name for name in node if name != VALUE]
    if deeper:
        raise UserError(f"unknown field '{path}.{deeper[0]}': there are no fields so deep")
    return node[VALUE]


def _read(kind: Any, value: Any, fields: dict[str, Any], path: str) -> tuple[Any, dict[str, Any]]:
    """The new part or plain value at `path`, and those of its fields that are still to be changed."""
    if kind not in TABLES or isinstance(value, kind):
        return (value if kind in TABLES else from_json(kind, value, path)), fields
    if isinstance(value, type) and issubclass(value, nn.Module):
        return ModuleConfig(value, tuple((k, _leaf(v, f"{path}.{k}")) for k, v in fields.items())), {}
    if isinstance(value, str):  # with its fields at once: some may have no default
        value = {"name": value, **{k: v[VALUE] for k, v in fields.items() if v.keys() == {VALUE}}}
        fields = {k: v for k, v in fields.items() if v.keys() != {VALUE}}
    return from_json(kind, value, path), fields


FORMAT = 2  # of recipe.json; the first had no number


@dataclass(frozen=True)
class RunInfo:
    """What `recipe.json` of a run folder holds: the recipe, what the data turned out to be, what was chosen on the machine.

    `extended_at` is the step at which the training was last given another end, `rise_from` that from which its learning rate then
    rose. `data_path` leads from the run folder to the data, `from_run` names the run whose weights this one began with. `images`
    and `held_out` are how many it was trained on and not, 0 where that is not known.
    """

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
    extended_at: int = 0
    rise_from: int = 0
    data_path: str = ""
    from_run: str = ""
    images: int = 0
    held_out: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or math.prod(self.shape) > MAX_VALUES:
            raise UserError(f"images of {'x'.join(map(str, self.shape))} are none that can be trained on: mend the recipe")

    def sampling(self, sampler: str | None = None, steps: int | None = None, guidance: float | None = None,
                 changes: Mapping[str, Any] | None = None) -> SamplingConfig:  # fmt: skip
        """The recipe's sampling, but for what is asked; `guidance` is by class where there are labels, else by the early average.

        `changes` are any other fields of it, by dotted names.
        """
        asked: dict[str, Any] = {f"sampling.{k}": v for k, v in (("steps", steps), ("sampler", sampler)) if v is not None}
        if guidance is not None:
            asked["sampling.guidance"] = "class" if self.classes else "auto"
            asked["sampling.guidance.scale"] = guidance
        asked |= {k if k.startswith("sampling.") else f"sampling.{k}": v for k, v in (changes or {}).items()}
        return override(self.recipe, asked).sampling

    def restoring(self, changes: Mapping[str, Any] | None = None) -> SamplingConfig:
        """How restoration samples, whatever the recipe says of new images: `RESTORING`, but for `changes`, as in `sampling`."""
        steps = min(RESTORING.steps, self.recipe.schedule.steps or RESTORING.steps)
        return replace(self, recipe=replace(self.recipe, sampling=replace(RESTORING, steps=steps))).sampling(changes=changes)

    def save(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        atomic.write_json(path, {"format": FORMAT, **to_json(self)})

    @classmethod
    def load(cls, path: Path) -> "RunInfo":
        """Raises UserError for what is no recipe, or one of a later version."""
        try:
            value = atomic.read_json(path)
        except (OSError, ValueError) as e:
            raise UserError(f"'{path}' is not readable JSON ({e}): restore it from a copy") from e
        try:
            info: RunInfo = from_json(cls, _of_known_format(value), "run")
        except UserError as e:
            raise UserError(f"'{path}': {e}") from e
        return info


def _of_known_format(value: Any) -> Any:
    """A run's JSON without the number of its format. Raises UserError for one that this version does not know."""
    if not isinstance(value, dict):
        return value
    number = value.get("format", 1)
    if type(number) is not int or not 1 <= number <= FORMAT:
        raise UserError(f"format {number!r} is not known here (1 to {FORMAT}): use the version that wrote it, or a later one")
    return {name: inner for name, inner in value.items() if name != "format"}
