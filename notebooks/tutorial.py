"""What the chapters share: showing a part's source and a figure, the data, and one trained model."""

import inspect
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure

from unnoise.data.arrays import Digits
from unnoise.data.dataset import Source
from unnoise.data.sources import DataConfig
from unnoise.data.torchvision_sets import FgvcAircraft
from unnoise.model import Model
from unnoise.presets import PRESETS
from unnoise.recipe import Recipe, override
from unnoise.runs.trainer import Run

FAST = "UNNOISE_FAST" in os.environ
ROOT = os.environ.get("FGVC_ROOT")  # the folder that holds fgvc-aircraft-2013b, if you have it
RUN = Path("runs") / ("tutorial-fast" if FAST else "tutorial")


def source(part: Any) -> None:
    """Show the code of a function, a method or a class as it stands in the package."""
    file = Path(inspect.getsourcefile(part) or "").name
    line = inspect.getsourcelines(part)[1]
    code = inspect.cleandoc("\n" + inspect.getsource(part))
    display(Markdown(f"`{file}`, line {line}\n```python\n{code}\n```"))


def show(draw: Callable[[Path], object]) -> None:
    """Show the image that `draw` writes to a path."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        draw(path)
        display(Image(data=path.read_bytes()))


def show_figure(figure: Figure) -> None:
    """Show a matplotlib figure."""
    show(lambda path: figure.savefig(path, dpi=100))


def aircraft_or_digits() -> DataConfig:
    """The notebook's images where they are at hand, else the 8x8 digits that need no download."""
    images: Source = FgvcAircraft(ROOT, union=True) if ROOT else Digits()
    return DataConfig(images, size=(64, 64) if ROOT else None, resize="squash", labels=False, flip=bool(ROOT))


def small_recipe() -> Recipe:
    """The notebook's own recipe, its network cut down to 8x8 digits, for three minutes of training."""
    small = {"data.source": "digits", "data.size": None, "data.flip": False, "network.widths": [64, 128, 256]}
    budget = {"training.steps": 12, "training.batch": 20} if FAST else {"training.minutes": 3}
    return override(PRESETS["notebook"], small | budget | {"training.sample_every": 1e9})


def trained() -> Model:
    """The model that chapter 6 trains; trained here if that has not been done."""
    if not (RUN / "model.safetensors").exists():
        for _ in Run.begin(RUN, small_recipe(), print).train():
            pass
    return Model.open(RUN)
