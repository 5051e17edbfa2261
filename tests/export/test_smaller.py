"""Weights of an ONNX file in fewer bytes: what onnxruntime computes from them, and how large the file is."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from unnoise.export.smaller import store_weights

ROWS, COLUMNS = 64, 96


@pytest.fixture
def graph(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A file with y = A (x + b), and both."""
    rng = np.random.default_rng(0)
    a = (rng.normal(size=(ROWS, COLUMNS)) * 10.0 ** rng.uniform(-3, 3, (ROWS, 1))).astype(np.float32)
    a[5] = 0
    b = rng.normal(size=(COLUMNS, 1)).astype(np.float32)
    nodes = [helper.make_node("Add", ["x", "b"], ["s"]), helper.make_node("MatMul", ["a", "s"], ["y"])]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [size, 1]) for n, size in (("x", COLUMNS), ("y", ROWS)))
    tensors = [numpy_helper.from_array(a, "a"), numpy_helper.from_array(b, "b")]
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors), opset_imports=opsets, ir_version=10), tmp_path / "a"
    )
    return tmp_path / "a", a, b


def columns(path: Path, b: np.ndarray) -> np.ndarray:
    """A, a column a run."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    unit = np.eye(COLUMNS, dtype=np.float32)
    return np.concatenate([session.run(None, {"x": unit[:, [k]] - b})[0] for k in range(COLUMNS)], axis=1)


@pytest.mark.parametrize(("kind", "bytes_", "error"), [("float16", 2, 2**-11), ("int8", 1, 0.5 / 127)])
def test_smaller_weights(graph: tuple[Path, np.ndarray, np.ndarray], kind: str, bytes_: int, error: float) -> None:
    """Wrong by half a step at most, of the value itself or of the largest of its row; vectors stay as they are."""
    path, a, b = graph
    assert store_weights(path, kind)
    onnx.checker.check_model(path, full_check=True)
    found = columns(path, b)
    scale = np.abs(a) if kind == "float16" else np.abs(a).max(1, keepdims=True)
    slack = 1e-6 * np.abs(a).max(1, keepdims=True) * np.abs(b).max() + 1e-7  # x + b is rounded, too
    assert (np.abs(found - a) <= 1.001 * error * scale + 10 * slack).all() and np.abs(found - a).max() > 0
    assert bytes_ * a.size < path.stat().st_size < bytes_ * a.size + 2000


def test_float32_stays(graph: tuple[Path, np.ndarray, np.ndarray]) -> None:
    before = graph[0].read_bytes()
    assert not store_weights(graph[0], "float32") and graph[0].read_bytes() == before
