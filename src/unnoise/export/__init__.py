"""Models from and to other programs. Only tensors are read: no pickled object is ever loaded."""

from collections.abc import Callable

from unnoise.export.diffusers import export_diffusers
from unnoise.export.notebook import export_notebook
from unnoise.export.onnx import export_onnx
from unnoise.export.webpage import export_webpage

FORMATS: dict[str, Callable[..., str]] = {
    "notebook": export_notebook,
    "diffusers": export_diffusers,
    "onnx": export_onnx,
    "webpage": export_webpage,
}
