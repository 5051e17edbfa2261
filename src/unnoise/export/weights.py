"""Files of torch.save, of which only plain tensors are ever read."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.utils.errors import UserError

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle of a file of torch before version 1.6


def read_torch(path: Path) -> Any:
    """What a file of torch.save holds: tensors, numbers and texts in dicts and lists. Raises UserError for anything else."""
    if not path.is_file():
        raise UserError(f"no file '{path}': give weights that were saved with torch.save, or a folder of diffusers")
    with path.open("rb") as file:
        first = file.read(len(LEGACY))
    if first[:1] == b"\x80" and first != LEGACY:
        raise UserError(f"'{path}' is a pickle of Python objects, as EDM and StyleGAN write: to open it runs its code, so it "
                        "is never read; where you trust it, save network.state_dict() in the program that wrote it")  # fmt: skip
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # UnpicklingError, RuntimeError of a broken zip, EOFError, ...
        raise UserError(f"'{path}' is not a file of plain weights, or is damaged ({_first_line(e)}): save it with "
                        "torch.save(model.state_dict(), path)") from e  # fmt: skip


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a `torch.save`d state dict, by name."""
    state = read_torch(path)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"'{path}' holds {_kind(state)}, not a state_dict: save it with torch.save(model.state_dict(), path)")
    if small := [name for name, v in state.items() if v.untyped_storage().nbytes() < v.numel() * v.element_size()]:
        raise UserError(f"'{path}' holds less for '{small[0]}' than its shape says, so it is no plain state_dict: save it with "
                        "torch.save(model.state_dict(), path)")  # fmt: skip
    return state


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _kind(value: object) -> str:
    if isinstance(value, dict):
        other = next((k for k, v in value.items() if not isinstance(v, Tensor)), None)
        return f"a dict whose '{other}' is no tensor"
    return f"a {type(value).__name__}"
