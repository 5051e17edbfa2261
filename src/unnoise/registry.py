"""The parts of a recipe by name, a user's own among them, to and from JSON, strictly.

A part is a frozen dataclass of one of the kinds below; in JSON it is an object of its fields with its `name`. A part of one's own
is registered under a name, and its module kept beside it, or kept as `package.module:Class`:

    @register("quadratic")
    @dataclass(frozen=True)
    class Quadratic(Schedule):
        def alpha(self, t): return 1 - t**2
        def sigma(self, t): return t

A network may also be a plain `nn.Module` class (`unnoise.networks.base.ModuleConfig`).
"""

import dataclasses
import importlib
import importlib.util
import json
import re
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from unnoise.data.dataset import Source
from unnoise.data.sources import SOURCES, as_source
from unnoise.diffusion.denoiser import TARGETS, Target
from unnoise.diffusion.guidance import GUIDANCES, Guidance
from unnoise.diffusion.loss import LOSSES, Loss
from unnoise.diffusion.samplers import SAMPLERS, Sampler
from unnoise.diffusion.schedules import SCHEDULES, Schedule
from unnoise.diffusion.timesteps import SAMPLING_TIMES, TRAINING_TIMES, SamplingTimes, TrainingTimes
from unnoise.networks.base import ModuleConfig, NetworkConfig
from unnoise.networks.simple_unet import SimpleUnetConfig
from unnoise.networks.unet import AutoUNet, UNetConfig
from unnoise.networks.unet2d import UNet2DConfig
from unnoise.training.objective import Objective
from unnoise.training.objectives import OBJECTIVES
from unnoise.utils.errors import UserError, nearest

NETWORKS: dict[str, type[NetworkConfig]] = {
    "auto": AutoUNet,
    "unet": UNetConfig,
    "unet2d": UNet2DConfig,
    "simple-unet": SimpleUnetConfig,
}

TABLES: dict[type, dict[str, type]] = {  # of each kind; a network's may also hold nn.Module classes
    Source: SOURCES,
    Schedule: SCHEDULES,
    Target: TARGETS,
    NetworkConfig: NETWORKS,
    Objective: OBJECTIVES,
    Loss: LOSSES,
    TrainingTimes: TRAINING_TIMES,
    SamplingTimes: SAMPLING_TIMES,
    Sampler: SAMPLERS,
    Guidance: GUIDANCES,
}

LIMITS: dict[str, tuple[int, int]] = {  # of fields by name: the largest value, and the number of values in a list
    "widths": (16384, 16), "blocks": (64, 1), "patch": (256, 1), "embedding": (2**16, 1), "time_size": (2**16, 1),
    "shape": (2**16, 3), "size": (2**16, 2), "timesteps": (10**6, 1), "steps": (10**9, 1), "sampling.steps": (10**5, 1),
    "batch": (2**24, 1), "snapshots": (10**6, 1), "sample_count": (10**5, 1), "extra_ema": (1, 16),
    "block_out_channels": (16384, 16), "layers_per_block": (64, 1), "num_train_timesteps": (10**6, 1),
}  # fmt: skip
T = TypeVar("T", bound=type)


def register(name: str) -> Callable[[T], T]:
    """A class decorator: the part is known under this name to recipes and to the command.

    Raises UserError for a class of no kind, one that is no dataclass, and a name that another class has.
    """

    def add(part: T) -> T:
        kind, before = kind_of(part), TABLES[kind_of(part)].get(name)
        if before is not None and path_of(before) != path_of(part):  # a notebook's cell may run again
            raise UserError(f"the name '{name}' is taken by {path_of(before)}: choose another")
        if not issubclass(part, nn.Module):
            _check_fields(part)
        TABLES[kind][name] = part
        return part

    return add


def kind_of(part: type) -> type:
    """The kind of a part's class. Raises UserError where it has none."""
    if issubclass(part, nn.Module):
        return NetworkConfig
    kind = next((k for k in TABLES if issubclass(part, k)), None)
    if kind is None:
        kinds = ", ".join(k.__name__ for k in TABLES)
        raise UserError(
            f"{part.__name__} is no part of a recipe: derive it from one of {kinds}, or torch.nn.Module for a network"
        )
    return kind


def path_of(part: type) -> str:
    """`package.module:Class`."""
    return f"{part.__module__}:{part.__qualname__}"


def find_part(kind: type, name: str, module: str | None = None, where: str = "part") -> type:
    """The class of this name, or at this path, importing the module that defines it if it must.

    Raises UserError naming the nearest name, or the import that is missing.
    """
    table = TABLES[kind]
    if name in table and module in (None, table[name].__module__):
        return table[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        found = _import(module, name, where)
        for step in attribute.split("."):
            found = getattr(found, step, None)
        if found is None:
            raise UserError(
                f"{where} '{name}' is not there any more: the module '{module}' has no '{attribute}'{_in_script(module)}"
            )
        kinds = (kind, nn.Module) if kind is NetworkConfig else (kind,)
        if not isinstance(found, type) or not issubclass(found, kinds):
            raise UserError(f"{where} '{name}' is no {kind.__name__}: derive it from unnoise.{kind.__name__}")
        return found
    if module is not None:
        if name in table:
            raise UserError(f"{where} '{name}' is that of the module '{module}', and the name is taken by {path_of(table[name])}")
        _import(module, name, where)
        if name in table:
            return table[name]
        raise UserError(f"{where} '{name}' is registered by the module '{module}' no more{_in_script(module)}")
    raise UserError(f"unknown {where} '{name}': {nearest(name, table)}")


def source_of(data: Any) -> Source:
    """The source of whatever a user gives: as `as_source`, or the `package.module:Class` of a source of the user's own."""
    if isinstance(data, str) and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", data) and not data.startswith("hf:"):
        found: Source = from_json(Source, data, "data")
        return found
    return as_source(data)


def _import(module: str, name: str, where: str) -> Any:
    try:
        _refuse_foreign(module)
        return importlib.import_module(module)
    except UserError:
        raise
    except Exception as e:  # a user's module may fail in its own way
        reason = ": ".join([type(e).__name__, *str(e).strip().splitlines()[:1]])
        raise UserError(
            f"{where} '{name}' is defined in the module '{module}', which can't be imported "
            f"({reason}): add the folder that holds it to PYTHONPATH, or start in it"
        ) from e


def _refuse_foreign(module: str) -> None:
    """Raises UserError for a module that no part of a recipe can come from: one of Python's own, or one within a run folder.

    A run folder may be a stranger's, and what it holds is never executed.
    """
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names and top != "__main__":
        raise UserError(f"the module '{module}' is one of Python's own, where no part of a recipe is: mend the recipe")
    spec = None if top in sys.modules else importlib.util.find_spec(top)
    origin = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
    if origin is not None and any((folder / "recipe.json").exists() for folder in origin.parents):
        raise UserError(f"the module '{module}' lies in a run folder ('{origin}'), where nothing is executed: move it elsewhere "
                        "if you trust it")  # fmt: skip


def _in_script(module: str) -> str:
    script = module == "__main__"
    return ": it was defined in a script or notebook; define it again before opening the run, or move it to a module" * script


def _check_fields(part: type) -> None:
    if not dataclasses.is_dataclass(part):
        raise UserError(f"{part.__name__} must be a dataclass for a recipe to keep it: put @dataclass(frozen=True) above it")
    reserved = [f.name for f in dataclasses.fields(part) if f.name in ("name", "module")]
    if reserved:
        raise UserError(f"{part.__name__} has a field '{reserved[0]}', which recipes use themselves: rename it")


def check_reopens(part: Any) -> None:
    """Raises UserError for a part of which JSON could not make the same part again, before hours go into it."""
    try:
        written = json.dumps(to_json(part))
    except TypeError as e:
        raise UserError(f"a part of the recipe has a field that JSON can't hold ({e}): keep numbers, texts and lists") from e
    from_json(type(part), json.loads(written))


def to_json(part: Any) -> Any:
    """A part as plain JSON: an object with its `name` if it is of a kind."""
    if isinstance(part, ModuleConfig):
        return {**_named(NetworkConfig, part.module), **{name: to_json(value) for name, value in part.options}}
    kind = next((k for k in TABLES if isinstance(part, k)), None)
    if kind is not None:
        _check_fields(type(part))
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        names = [f.name for f in dataclasses.fields(part) if f.metadata.get("json", True)]
        return {**({} if kind is None else _named(kind, type(part))), **{name: to_json(getattr(part, name)) for name in names}}
    return [to_json(v) for v in part] if isinstance(part, tuple | list) else part


def _named(kind: type, part: type) -> dict[str, str]:
    name = next((n for n, known in TABLES[kind].items() if known is part), None)
    if name is None:
        return {"name": path_of(part)}
    return {"name": name} if part.__module__.partition(".")[0] == "unnoise" else {"name": name, "module": part.__module__}


def from_json(kind: Any, value: Any, where: str = "recipe") -> Any:
    """The part of type `kind` that `value` describes. Raises UserError naming the field that does not fit."""
    if kind in TABLES:
        value = {"name": value} if isinstance(value, str) else value
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise UserError(f"{where} must be one of {', '.join(TABLES[kind])}, not {_describe(value)}")
        kind = find_part(kind, value["name"], value.get("module"), where)
        value = {k: v for k, v in value.items() if k not in ("name", "module")}
        if issubclass(kind, nn.Module):
            return ModuleConfig(kind, tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in value.items()))
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise UserError(f"{where} must be an object with fields, not {_describe(value)}")
        hints = field_types(kind)
        for name in value:
            if name not in hints:
                raise UserError(f"unknown field '{name}' in {where}: {nearest(name, hints) if hints else 'it has none'}")
        missing = [f.name for f in dataclasses.fields(kind) if f.name not in value and _has_no_default(f)]
        if missing:
            raise UserError(f"{where} lacks the field '{missing[0]}': give it")
        return kind(**{name: from_json(hints[name], v, f"{where}.{name}") for name, v in value.items()})  # type: ignore[operator]
    found = _plain(kind, value, where)
    _check_limits(value, where)
    return found


def _has_no_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _check_limits(value: Any, where: str) -> None:
    """Raises UserError for a number that nobody means, before time or memory is spent on it."""
    names = where.split(".")
    largest, longest = LIMITS.get(".".join(names[-2:])) or LIMITS.get(names[-1]) or (10**15, 10**6)
    values = value if isinstance(value, list | tuple) else [value]
    if len(values) > longest:
        raise UserError(f"{where} has {len(values)} values: at most {longest}")
    if any(isinstance(v, int | float) and not -largest <= v <= largest for v in values):
        raise UserError(f"{where} is {_describe(value)}: at most {largest:,}")


def field_types(kind: Any) -> dict[str, Any]:
    """The fields of a dataclass that JSON may hold, with their types."""
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.metadata.get("json", True)}


def _describe(value: Any) -> str:
    """A value in a message; where it is nearly right, with what would be."""
    if isinstance(value, type):
        return f"the class {value.__name__}: give {value.__name__}()"
    if isinstance(value, nn.Module):
        return f"a network that is built already: give its class, {type(value).__name__}"
    try:
        return json.dumps(value)
    except TypeError:
        return repr(value)


def _plain(kind: Any, value: Any, where: str) -> Any:
    options = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)
    for option in options:
        if option is Any:
            return value
        if option is type(None) and value is None:
            return None
        items = typing.get_args(option)
        if typing.get_origin(option) is tuple and items[-1] is Ellipsis and type(value) in (int, float):
            return (_plain(items[0], value, where),)  # one number for a list of one
        if typing.get_origin(option) is tuple and isinstance(value, list):
            if items[-1] is Ellipsis:
                return tuple(_plain(items[0], v, where) for v in value)
            if len(items) == len(value):
                return tuple(_plain(i, v, where) for i, v in zip(items, value, strict=True))
        if typing.get_origin(option) is list and isinstance(value, list):
            return [_plain(typing.get_args(option)[0], v, where) for v in value]
        if typing.get_origin(option) is typing.Literal and value in typing.get_args(option):
            return value
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if option in (int, str, bool) and type(value) is option:
            return value
        if option in (int, float) and isinstance(value, np.generic) and np.issubdtype(value.dtype, np.number):
            return _plain(option, value.item(), where)
    wanted = " or ".join(_wanted(option) for option in options)
    raise UserError(f"{where} must be {wanted}, not {_describe(value)}")


def _wanted(option: Any) -> str:
    if typing.get_origin(option) in (tuple, list):
        items = [item.__name__ for item in typing.get_args(option) if item is not Ellipsis]
        return f"a list [{', '.join(items)}{', ...' if len(items) == 1 else ''}]"
    return "nothing" if option is type(None) else getattr(option, "__name__", str(option))
