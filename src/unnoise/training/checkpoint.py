"""Checkpoints: all that training needs to go on exactly, in safetensors and JSON, never pickle.

    checkpoints/000500/model.safetensors  average.safetensors  optimizer.safetensors  state.json  manifest.json
    checkpoints/latest                    the name of the newest

What is saved is first gathered from all processes onto the CPU of the first, which writes it: under a temporary name, flushed,
renamed, and only then pointed to; older checkpoints are removed after, never before. The manifest has the SHA-256 of each file,
which is verified before anything is loaded; a damaged checkpoint is passed over.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unnoise.training import distributed
from unnoise.utils import atomic
from unnoise.utils.errors import UserError

FORMAT = 4
MOMENTS = "moments."  # the images' mean and covariance stand under these names beside the weights for use
Tensors = dict[str, Tensor]
Optimizers = Sequence[torch.optim.Optimizer]
NEEDED = {"model.safetensors", "average.safetensors", "optimizer.safetensors", "state.json"}


@dataclass(frozen=True)
class Contents:
    """The tensors of each model by its name, and those of the optimizers' state by `parameter.name`."""

    models: dict[str, Tensors]
    optimizer: Tensors


def collect(models: Mapping[str, nn.Module], optimizers: Optimizers) -> Contents:
    """All that `save` writes, on the CPU; the optimizers are those of `models["model"]` and, where there is one, "critic".

    All processes call it together where the models are sharded; only the first gets the tensors.
    """
    state = distributed.full_optimizer_state(models["model"], optimizers, models.get("critic"))
    tensors = {f"{parameter}/{name}": value for parameter, values in state.items() for name, value in values.items()}
    return Contents({name: distributed.full_state_dict(model) for name, model in models.items()}, tensors)


def save_tensors(path: Path, tensors: Tensors, facts: dict[str, str] | None = None) -> None:
    """Write one safetensors file, atomically, with `facts` in its header."""
    atomic.write(path, lambda p: _write_tensors(tensors, p, facts))


def check_model(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises UserError if a safetensors file is missing or damaged, or by its header holds weights of other shapes."""
    if not path.is_file():
        raise UserError(f"no model at '{path}': give the folder of a run that has begun to train")
    try:
        with safe_open(path, "pt") as file:
            found = {n: tuple(file.get_slice(n).get_shape()) for n in file.keys() if not n.startswith(MOMENTS)}  # noqa: SIM118
    except Exception as e:  # safetensors raises its own kinds
        raise UserError(f"'{path}' is damaged ({_first_line(e)}): restore it from a copy") from e
    if found != dict(shapes):
        name = min(name for name in {*found, *shapes} if found.get(name) != shapes.get(name))
        raise UserError(f"'{path}' does not fit the network of its recipe: '{name}' is {found.get(name, 'not there')} where the "
                        f"network has {shapes.get(name, 'none')}")  # fmt: skip


def load_model(path: Path, model: nn.Module) -> None:
    """Load a safetensors file. Raises UserError if it is missing, damaged or of another network."""
    if not path.is_file():
        raise UserError(f"no model at '{path}': give the folder of a run that has begun to train")
    try:
        tensors = {name: value for name, value in load_file(path).items() if not name.startswith(MOMENTS)}
        distributed.load_state_dict(model, tensors)
    except Exception as e:  # safetensors and torch each raise their own kinds
        raise UserError(f"'{path}' does not fit the network of its recipe or is damaged ({_first_line(e)})") from e


def save(folder: Path, contents: Contents, state: dict[str, Any], keep: int = 2, every: int = 0) -> Path:
    """Write `folder`/NNNNNN for `state['step']`, then remove all but the newest `keep` and each `every`-th step's (0: none).

    Raises OSError if it can't be written; the earlier checkpoints are then untouched.
    """
    path = folder / f"{state['step']:06d}"

    def fill(to: Path) -> None:
        for name, tensors in contents.models.items():
            _write_tensors(tensors, to / f"{name}.safetensors")
        _write_tensors(contents.optimizer, to / "optimizer.safetensors")
        (to / "state.json").write_text(json.dumps({"format": FORMAT, **state}))
        sums = {file.name: _sha256(file) for file in sorted(to.iterdir())}
        (to / "manifest.json").write_text(json.dumps({"format": FORMAT, "sha256": sums}, indent=2))

    if path.exists() and _find_damage(path) is not None:
        shutil.rmtree(path)
    if not path.exists():
        atomic.write_folder(path, fill)
    atomic.write(folder / "latest", lambda p: p.write_text(path.name))
    for old in list_checkpoints(folder)[:-keep]:
        if (not every or int(old.name) % every) and (old / "manifest.json").exists():  # else it is not ours
            shutil.rmtree(old)
    return path


def load(path: Path, models: Mapping[str, nn.Module], optimizers: Optimizers) -> dict[str, Any]:
    """Restore models and optimizers and return the saved state. Raises UserError, nothing loaded, if it is damaged."""
    if (damage := _find_damage(path)) is not None:
        raise UserError(f"the checkpoint '{path}' is damaged ({damage})")
    return _load_verified(path, models, optimizers)


def load_newest(folder: Path, models: Mapping[str, nn.Module], optimizers: Optimizers,
                say: Callable[[str], None]) -> dict[str, Any] | None:  # fmt: skip
    """Load the newest undamaged checkpoint, saying which were passed over; None if there is none at all.

    Each file is hashed once. Raises UserError if all are damaged.
    """
    found = list_checkpoints(folder)
    for path in reversed(found):
        if (damage := _find_damage(path)) is None:
            return _load_verified(path, models, optimizers)
        say(f"the checkpoint '{path}' is damaged ({damage}): passed over")
    if found:
        raise UserError(f"every checkpoint in '{folder}' is damaged: restore one from a copy, or begin a new run")
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = (p for p in folder.glob("*") if p.name.isdecimal() and p.is_dir() and not p.is_symlink())
    return sorted(found, key=lambda p: int(p.name))


def _load_verified(path: Path, models: Mapping[str, nn.Module], optimizers: Optimizers) -> dict[str, Any]:
    state: dict[str, Any] = atomic.read_json(path / "state.json")
    if state["format"] != FORMAT:
        raise UserError(f"the checkpoint '{path}' has format {state['format']} and this version of unnoise reads {FORMAT}: "
                        "go on with the version that wrote it")  # fmt: skip
    for name, model in models.items():
        load_model(path / f"{name}.safetensors", model)
    values: dict[str, dict[str, Tensor]] = {}
    for key, value in load_file(path / "optimizer.safetensors").items():
        parameter, _, name = key.rpartition("/")
        values.setdefault(parameter, {})[name] = value
    distributed.load_optimizer_state(models["model"], optimizers, values, models.get("critic"))
    return state


def _find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, None if nothing."""
    try:
        sums = atomic.read_json(path / "manifest.json")["sha256"]
        if outside := [name for name in sums if Path(name).name != name or not (path / name).is_file()]:
            return f"{outside[0]!r} is no file in it"
        changed = [name for name in sums if _sha256(path / name) != sums[name]] + sorted(NEEDED - sums.keys())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        return f"{type(e).__name__}: {e}"
    return f"the contents of {', '.join(changed)} have changed" if changed else None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_tensors(tensors: Tensors, path: Path, facts: dict[str, str] | None = None) -> None:
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, facts)
    except SafetensorError as e:  # its own kind, also for a full disk
        raise OSError(errno.ENOSPC if "os error 28" in str(e) else errno.EIO, str(e), str(path)) from e
