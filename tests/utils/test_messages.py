"""What processes send each other arrives as it was, and nothing but numbers, texts, arrays and tensors can be sent."""

import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from unnoise.utils.errors import UserError
from unnoise.utils.messages import pack, unpack

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(PLAIN)
def test_json_arrives_as_it_was(value: Any) -> None:
    assert unpack(pack(value)) == json.loads(json.dumps(value))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float32", "float64", "bool"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 4)])
def test_arrays_arrive_as_they_were(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape).T
    found = unpack(pack({"images": [array, 3, torch.from_numpy(array.copy())]}))["images"]
    assert found[0].dtype == array.dtype and found[1] == 3 and isinstance(found[2], torch.Tensor)
    np.testing.assert_array_equal(found[0], array)
    assert torch.equal(found[2], torch.from_numpy(array.copy()))


def test_errors_arrive_as_errors() -> None:
    user, system = unpack(pack([UserError("mend it"), PermissionError(13, "Permission denied", "a/b")]))
    assert isinstance(user, UserError) and str(user) == "mend it"
    assert isinstance(system, PermissionError) and (system.errno, system.strerror, system.filename) == (
        13,
        "Permission denied",
        "a/b",
    )


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), np.float32, b"bytes"])
def test_nothing_else_is_sent(value: Any) -> None:
    with pytest.raises(TypeError):
        pack([value])


@pytest.mark.parametrize("message", [b"", pickle.dumps([1]), b"\x00" * 16, pack([1])[:-1], b"\xff" * 8])
def test_nothing_else_is_read(message: bytes) -> None:
    with pytest.raises(SafetensorError):
        unpack(message)
