"""The weights of an ONNX file in fewer bytes; a runtime widens them once, when it loads the file, and computes in float32."""

from pathlib import Path
from typing import Any

import numpy as np

WEIGHTS = ("float32", "float16", "int8")
SMALLEST = 1024  # numbers of a tensor that is worth it


def store_weights(path: Path, kind: str) -> bool:
    """Store matrices and kernels as float16, or as int8 with a scale for each row of the first axis; whether anything changed."""
    import onnx
    from onnx import helper, numpy_helper

    if kind == "float32":
        return False
    model = onnx.load(path)
    graph, nodes, small = model.graph, [], []
    for tensor in list(graph.initializer):
        value = numpy_helper.to_array(tensor)
        if value.dtype != np.float32 or value.ndim < 2 or value.size < SMALLEST:
            continue
        name, scale = tensor.name, None
        if kind == "int8":
            value, scale = _to_int8(value)
        stored = {"stored": value if kind == "int8" else value.astype(np.float16), "scale": scale}
        small += [numpy_helper.from_array(v, f"{name}.{what}") for what, v in stored.items() if v is not None]
        cast = name if scale is None else f"{name}.cast"
        nodes.append(helper.make_node("Cast", [f"{name}.stored"], [cast], to=onnx.TensorProto.FLOAT))
        if scale is not None:
            nodes.append(helper.make_node("Mul", [cast, f"{name}.scale"], [name]))
        graph.initializer.remove(tensor)
    graph.initializer.extend(small)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    onnx.save(model, path)
    return bool(nodes)


def _to_int8(value: np.ndarray) -> tuple[np.ndarray, Any]:
    """int8 and its scales: value = scale int8, nearly, without an offset, each row up to its own largest value."""
    scale = np.abs(value).max(axis=tuple(range(1, value.ndim)), keepdims=True) / 127
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.rint(value / scale).astype(np.int8), scale
