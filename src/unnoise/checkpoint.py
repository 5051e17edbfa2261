"""Checkpoints: all that training needs to go on exactly, in safetensors and JSON, never pickle.

`checkpoints/000500/` appears under that name only when it is complete; older ones are removed after, never before.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unnoise import files
from unnoise.errors import UserError

FORMAT = 1


def save_model(path: Path, model: nn.Module) -> None:
    """The model's state dict as one safetensors file, atomically."""
    files.write(path, lambda p: save_file(_plain(model.state_dict()), p))


def load_model(path: Path, model: nn.Module) -> None:
    """Read it back. Raises UserError if the file is missing, damaged or of another network."""
    if not path.is_file():
        raise UserError(f"no model at '{path}': give the folder of a run that has begun to train")
    try:
        model.load_state_dict(load_file(path))
    except Exception as e:  # safetensors and torch each raise their own kinds
        first = str(e).strip().splitlines()[0]
        raise UserError(f"'{path}' does not fit the network of its recipe or is damaged ({first})") from e


def save(folder: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any],
         keep: int = 2) -> Path:  # fmt: skip
    """Write `folder`/NNNNNN for `state['step']`, then remove all but the newest `keep`."""
    path = folder / f"{state['step']:06d}"
    tensors, numbers = _flatten(optimizer)

    def fill(to: Path) -> None:
        save_file(_plain(model.state_dict()), to / "model.safetensors")
        save_file(_plain(average.state_dict()), to / "average.safetensors")
        save_file(tensors, to / "optimizer.safetensors")
        (to / "state.json").write_text(json.dumps({"format": FORMAT, **state, "optimizer": numbers}))

    if not path.exists():
        files.write_folder(path, fill)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return path


def load(path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put everything back as it was saved and return the saved state."""
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text())
    except (OSError, ValueError) as e:
        raise UserError(f"the checkpoint '{path}' can't be read ({e}): remove it to go on from the one before") from e
    if state["format"] != FORMAT:
        raise UserError(f"the checkpoint '{path}' has format {state['format']}, this version reads {FORMAT}")
    load_model(path / "model.safetensors", model)
    load_model(path / "average.safetensors", average)
    _unflatten(optimizer, load_file(path / "optimizer.safetensors"), state.pop("optimizer"))
    return state


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(p for p in folder.glob("*") if p.name.isdigit() and p.is_dir())


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _flatten(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors by `index.name`, and whatever in it is not a tensor."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            (tensors if isinstance(value, Tensor) else numbers)[f"{index}.{name}"] = value
    return _plain(tensors), numbers


def _unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    whole = optimizer.state_dict()
    whole["state"] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in {**tensors, **numbers}.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            # Fused optimizers walk the memory itself, so a moment must lie in the same order as its parameter.
            value = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
        whole["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(whole)
