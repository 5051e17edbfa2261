"""What processes send each other: JSON, arrays and tensors, never pickles, which would run a sender's code.

A message is a safetensors file in memory. Its tensor `json` holds the text, in which `{"array": "0"}` stands for the array 0 and
`{"tensor": "0"}` for the tensor 0. Tuples arrive as lists.
"""

import json
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from unnoise.utils.errors import UserError


def pack(value: Any) -> bytes:
    """`value` of JSON's types, numeric arrays, tensors and errors, as bytes. Raises TypeError for anything else."""
    tensors: dict[str, Tensor] = {}

    def replace(part: Any) -> dict[str, Any]:
        if isinstance(part, UserError):
            return {"user_error": str(part)}
        if isinstance(part, OSError):
            return {"os_error": [part.errno, part.strerror, None if part.filename is None else str(part.filename)]}
        if not isinstance(part, np.ndarray | Tensor):
            raise TypeError(f"processes can't exchange a {type(part).__name__}")
        name = str(len(tensors))
        tensors[name] = torch.from_numpy(np.ascontiguousarray(part)) if isinstance(part, np.ndarray) else part.contiguous()
        return {"array" if isinstance(part, np.ndarray) else "tensor": name}

    text = json.dumps(value, default=replace)
    return save({"json": torch.frombuffer(bytearray(text, "utf-8"), dtype=torch.uint8), **tensors})


def unpack(message: bytes) -> Any:
    """What `pack` was given."""
    tensors = load(message)

    def restore(part: dict[str, Any]) -> Any:
        match part:
            case {"array": str(name)}:
                return tensors[name].numpy()
            case {"tensor": str(name)}:
                return tensors[name]
            case {"user_error": str(text)}:
                return UserError(text)
            case {"os_error": [number, text, filename]}:
                return OSError(number, text, filename)
        return part

    return json.loads(tensors["json"].numpy().tobytes(), object_hook=restore)
