"""Models from and to other programs. Only tensors are read: no pickled object is ever loaded."""

from collections.abc import Callable
from pathlib import Path

from unnoise.export.diffusers import export_diffusers
from unnoise.export.notebook import export_notebook
from unnoise.export.onnx import export_onnx

FORMATS: dict[str, Callable[[Path, Path, bool], str]] = {
    "notebook": export_notebook,
    "diffusers": export_diffusers,
    "onnx": export_onnx,
}
