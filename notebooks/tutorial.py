"""What the chapters share: displaying source code and figures, the data, and one trained model."""

import inspect
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure

import unnoise as un
from unnoise.data.sources import DataConfig
from unnoise.runs.progress import follow
from unnoise.runs.start import begin

FAST = "UNNOISE_FAST" in os.environ
ROOT = os.environ.get("FGVC_ROOT")  # the folder that holds fgvc-aircraft-2013b, if you have it
RUN = Path("runs") / ("tutorial-fast" if FAST else "tutorial")


def code_of(part: Any) -> str:
    """Markdown with the code of a function, a method or a class as it stands in the package, below the name of its module."""
    part = inspect.unwrap(part)
    module, code = inspect.getmodule(part), inspect.cleandoc("\n" + inspect.getsource(part))
    return f"`{module.__name__ if module else ''}`\n\n```python\n{code}\n```"


def source(part: Any) -> None:
    """Display that code."""
    display(Markdown(code_of(part)))


def show(save: Callable[[Path], object]) -> None:
    """Display the image that `save` writes to a path."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        save(path)
        display(Image(data=path.read_bytes()))


def show_figure(figure: Figure) -> None:
    """Display a matplotlib figure."""
    show(lambda path: figure.savefig(path, dpi=100))


def aircraft_or_digits() -> DataConfig:
    """The notebook's images where they are at hand, else the 8x8 digits that need no download."""
    images: un.Source = un.FgvcAircraft(ROOT, union=True) if ROOT else un.Digits()
    return DataConfig(images, size=(64, 64) if ROOT else None, resize="squash", labels=False, flip=bool(ROOT))


def small_recipe() -> un.Recipe:
    """The notebook's own recipe, its network reduced for 8x8 digits, for three minutes of training."""
    small = {"data.source": "digits", "data.size": None, "data.flip": False, "network.widths": [64, 128, 256]}
    budget = {"training.steps": 12, "training.batch": 20} if FAST else {"training.minutes": 3}
    return un.override(un.PRESETS["notebook"], small | budget | {"training.sample_every": 1e9})


def trained() -> un.Model:
    """The model that chapter 6 trains; trained here if that has not been done."""
    if not (RUN / "model.safetensors").exists():
        follow(begin(RUN, small_recipe()))
    return un.load(RUN)
