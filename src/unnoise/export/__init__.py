"""Models from and to other programs. Only tensors are read: no pickled object is ever loaded."""

from collections.abc import Callable
from pathlib import Path

from unnoise.export.notebook import export_notebook

FORMATS: dict[str, Callable[[Path, Path, bool], None]] = {"notebook": export_notebook}
