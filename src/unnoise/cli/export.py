"""`unnoise export`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unnoise.cli.options import say
from unnoise.utils.errors import UserError, nearest


def export(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    out: Annotated[Path, arg(help="the file to write")],
    overwrite: Annotated[bool, arg(help="replace a file of that name")] = False,
    format: Annotated[str, arg(help="notebook: a plain state_dict, as the notebook saves it")] = "notebook",
) -> int:
    """Write a run's weights for another program.

    Example: unnoise export runs/notebook --out final_model.pth
    """
    from unnoise.export import FORMATS

    if format not in FORMATS:
        raise UserError(f"unknown format '{format}': {nearest(format, FORMATS)}")
    FORMATS[format](run, out, overwrite)
    say(f"{out}: the weights of {run} as {format}")
    return 0
