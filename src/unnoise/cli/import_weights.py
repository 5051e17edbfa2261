"""`unnoise import`."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, data_changes, say
from unnoise.utils.errors import UserError


def import_(
    file: Annotated[Positional[Path], arg(help="weights, e.g. the notebook's final_model.pth")],
    run: Annotated[Path, arg(help="the run folder to make")],
    size: Annotated[str, arg(help="height and width that it was trained at: 64 or 48,64")] = "64",
    data: Annotated[str | None, arg(help="its training images, to measure their mean and covariance")] = None,
    root: Annotated[str | None, arg(help="the folder that holds a published data set")] = None,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Turn a notebook's state_dict into a run folder that samples and restores like any other.

    Only tensors are read: no pickled object is ever loaded.

    Examples: unnoise import final_model.pth --run runs/notebook
              unnoise import final_model.pth --run runs/notebook --data fgvc-aircraft --root DIR
    """
    from unnoise.export.notebook import import_notebook

    if root is not None and data is None:
        raise UserError("--root says where a data set is: add --data with its name, e.g. --data fgvc-aircraft")
    asked = data_changes(data, root, False, size) | (changes or {})
    info = import_notebook(file, run, asked, measure=data is not None)
    c, h, w = info.shape
    say(f"{run}: the notebook's network for {h}x{w}x{c} images. Next: unnoise sample {run} -n 4 --sampler ddim --steps 50")
    return 0
