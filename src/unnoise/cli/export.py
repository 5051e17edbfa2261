"""`unnoise export`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unnoise.cli.options import say
from unnoise.utils.errors import UserError, nearest


def export(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    out: Annotated[Path, arg(help="the file or folder to write")],
    overwrite: Annotated[bool, arg(help="replace files of the same names")] = False,
    format: Annotated[str, arg(help="notebook: a plain state_dict; diffusers: a folder; onnx: a folder")] = "notebook",
) -> int:
    """Write a run for another program: the notebook, the library diffusers, or whatever reads ONNX.

    Examples: unnoise export runs/notebook --out final_model.pth
              unnoise export runs/digits --format diffusers --out digits-diffusers
              unnoise export runs/digits --format onnx --out digits-onnx
    """
    from unnoise.export import FORMATS

    if format not in FORMATS:
        raise UserError(f"unknown format '{format}': {nearest(format, FORMATS)}")
    told = FORMATS[format](run, out, overwrite)
    say(f"{out}: {run} for {format}; {told}")
    return 0
