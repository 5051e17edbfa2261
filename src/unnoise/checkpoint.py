"""Checkpoints: all that training needs to go on exactly, in safetensors and JSON, never pickle.

    checkpoints/000500/model.safetensors  average.safetensors  optimizer.safetensors  state.json  manifest.json
    checkpoints/latest                    the name of the newest

What is saved is first collected from all processes, on the CPU; then one process writes it.

One is written under a temporary name, flushed, renamed, and only then pointed to; older ones are removed after, never before.
The manifest has each file's SHA-256, which is verified before anything is loaded; a damaged one is passed over.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unnoise import files
from unnoise.errors import UserError
from unnoise.processes import placed_as, whole

FORMAT = 2  # format 1 had no manifest; it is still read


Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Contents:
    """The tensors of each model by its name, and an optimizer's state as tensors and as whatever is none."""

    models: dict[str, Tensors]
    optimizer: Tensors
    numbers: dict[str, Any]


def collect(models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> Contents:
    """A copy of everything that `save` writes. All processes call it together."""
    tensors, numbers = _flatten(optimizer)
    return Contents({name: state_of(model) for name, model in models.items()}, tensors, numbers)


def state_of(model: nn.Module) -> Tensors:
    """A model's state dict on the CPU, whole wherever its pieces are. All processes call it together."""
    return {name: whole(value.detach()).cpu() for name, value in model.state_dict().items()}


def save_tensors(path: Path, tensors: Tensors) -> None:
    """One safetensors file, atomically."""
    files.write(path, lambda p: _write_tensors(tensors, p))


def load_model(path: Path, model: nn.Module) -> None:
    """Read it back. Raises UserError if the file is missing, damaged or of another network."""
    if not path.is_file():
        raise UserError(f"no model at '{path}': give the folder of a run that has begun to train")
    try:
        found, own = load_file(path), model.state_dict()
        model.load_state_dict({name: placed_as(own[name], value) if name in own else value for name, value in found.items()})
    except Exception as e:  # safetensors and torch each raise their own kinds
        first = str(e).strip().splitlines()[0]
        raise UserError(f"'{path}' does not fit the network of its recipe or is damaged ({first})") from e


def save(folder: Path, contents: Contents, state: dict[str, Any], keep: int = 2, every: int = 0) -> Path:
    """Write `folder`/NNNNNN for `state['step']`, then remove all but the newest `keep` and each `every`-th step's (0: none).

    Raises OSError if it can't be written; what was there before is then untouched.
    """
    path = folder / f"{state['step']:06d}"

    def fill(to: Path) -> None:
        for name, tensors in contents.models.items():
            _write_tensors(tensors, to / f"{name}.safetensors")
        _write_tensors(contents.optimizer, to / "optimizer.safetensors")
        (to / "state.json").write_text(json.dumps({"format": FORMAT, **state, "optimizer": contents.numbers}))
        sums = {file.name: _sha256(file) for file in sorted(to.iterdir())}
        (to / "manifest.json").write_text(json.dumps({"format": FORMAT, "sha256": sums}, indent=2))

    if path.exists() and _damage(path) is not None:
        shutil.rmtree(path)
    if not path.exists():
        files.write_folder(path, fill)
    files.write(folder / "latest", lambda p: p.write_text(path.name))
    for old in list_checkpoints(folder)[:-keep]:
        if not every or int(old.name) % every:
            shutil.rmtree(old)
    return path


def load(path: Path, models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put everything back as it was saved and return the saved state. Raises UserError, nothing loaded, if it is damaged."""
    if (wrong := _damage(path)) is not None:
        raise UserError(f"the checkpoint '{path}' is damaged ({wrong})")
    state: dict[str, Any] = json.loads((path / "state.json").read_text())
    if not 1 <= state["format"] <= FORMAT:
        raise UserError(f"the checkpoint '{path}' has format {state['format']}, this version reads up to {FORMAT}")
    for name, model in models.items():
        load_model(path / f"{name}.safetensors", model)
    _unflatten(optimizer, load_file(path / "optimizer.safetensors"), state.pop("optimizer"))
    return state


def load_newest(folder: Path, models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer,
                say: Callable[[str], None]) -> dict[str, Any] | None:  # fmt: skip
    """From the newest checkpoint that is whole, saying which were passed over; None if there is none at all.

    Raises UserError if all are damaged.
    """
    found = list_checkpoints(folder)
    for path in reversed(found):
        if (wrong := _damage(path)) is None:
            return load(path, models, optimizer)
        say(f"the checkpoint '{path}' is damaged ({wrong}): passed over")
    if found:
        raise UserError(f"every checkpoint in '{folder}' is damaged: restore one from a copy, or begin a new run")
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted((p for p in folder.glob("*") if p.name.isdigit() and p.is_dir()), key=lambda p: int(p.name))


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, None if nothing."""
    try:
        state = json.loads((path / "state.json").read_text())
        if state["format"] == 1:
            return None  # has nothing to be verified by
        sums = json.loads((path / "manifest.json").read_text())["sha256"]
        missing = {"model.safetensors", "average.safetensors", "optimizer.safetensors", "state.json"} - sums.keys()
        wrong = [name for name in sums if _sha256(path / name) != sums[name]] + sorted(missing)
    except (OSError, ValueError, KeyError, TypeError) as e:
        return f"{type(e).__name__}: {e}"
    return f"the contents of {', '.join(wrong)} have changed" if wrong else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_tensors(tensors: Tensors, path: Path) -> None:
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as e:  # its own kind, also for a full disk
        raise OSError(errno.ENOSPC if "os error 28" in str(e) else errno.EIO, str(e), str(path)) from e


def _flatten(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """An optimizer's state as tensors by `index.name`, and whatever in it is not a tensor."""
    tensors: Tensors = {}
    numbers: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = whole(value).cpu()
            else:
                numbers[f"{index}.{name}"] = value
    return tensors, numbers


def _unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    whole = optimizer.state_dict()
    whole["state"] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in {**tensors, **numbers}.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            # Fused optimizers walk the memory itself, so a moment must lie in the same order as its parameter.
            like = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
            value = like.copy_(placed_as(like, value))
        whole["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(whole)
