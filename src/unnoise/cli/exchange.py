"""`unnoise import` and `unnoise export`: weights from and to other programs; `unnoise average`: other averages of a run."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, data_changes, say
from unnoise.errors import UserError, nearest


def import_(
    file: Annotated[Positional[Path], arg(help="weights, e.g. the notebook's final_model.pth")],
    run: Annotated[Path, arg(help="the run folder to make")],
    size: Annotated[str, arg(help="height and width that it was trained at: 64 or 48,64")] = "64",
    data: Annotated[str | None, arg(help="its training pictures, to measure their mean and covariance")] = None,
    root: Annotated[str | None, arg(help="the folder that holds a published set")] = None,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Turn a notebook's state_dict into a run folder that draws and restores like any other.

    Only tensors are read: no pickled object is ever loaded.

    Examples: unnoise import final_model.pth --run runs/notebook
              unnoise import final_model.pth --run runs/notebook --data fgvc-aircraft --root DIR
    """
    from unnoise.export import import_notebook

    if root is not None and data is None:
        raise UserError("--root says where a set is: add --data with its name, e.g. --data fgvc-aircraft")
    asked = data_changes(data, root, False, size) | (changes or {})
    info = import_notebook(file, run, asked, measure=data is not None)
    c, h, w = info.shape
    say(f"{run}: the notebook's network for {h}x{w}x{c} pictures. Next: unnoise sample {run} -n 4 --sampler ddim --steps 50")
    return 0


def export(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    out: Annotated[Path, arg(help="the file to write")],
    format: Annotated[str, arg(help="notebook: a plain state_dict, as the notebook saves it")] = "notebook",
) -> int:
    """Write a run's weights for another program.

    Example: unnoise export runs/notebook --out final_model.pth
    """
    from unnoise.export import FORMATS

    if format not in FORMATS:
        raise UserError(f"unknown format '{format}': {nearest(format, FORMATS)}")
    FORMATS[format](run, out)
    say(f"{out}: the weights of {run} as {format}")
    return 0


def average(
    run: Annotated[Positional[Path], arg(help="folder of a run that was trained with --training.snapshots")],
    width: Annotated[float, arg(help="relative width of the average wanted, up to 0.28")],
    out: Annotated[Path, arg(help="the run folder to make")],
    step: Annotated[int | None, arg(help="as it was after this step; the last by default")] = None,
) -> int:
    """Make another average of a finished run's weights: another run folder, to draw from and to compare.

    Example: unnoise average runs/photos --width 0.15 --out runs/photos-0.15
    """
    from unnoise.export import reaverage

    reaverage(run, width, out, step)
    say(f"{out}: the average of width {width:g} of {run}. Next: unnoise sample {out} -n 16")
    return 0
