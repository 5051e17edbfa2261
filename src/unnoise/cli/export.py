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
    format: Annotated[str, arg(help="notebook: a plain state_dict; or a folder: webpage, diffusers, onnx")] = "notebook",
    runtime: Annotated[Path | None, arg(help="webpage: the package onnxruntime-web, if it can't be fetched")] = None,
) -> int:
    """Write a run for others: a web page in which the model runs, the library diffusers, whatever reads ONNX, the notebook.

    Examples: unnoise export runs/notebook --out final_model.pth
              unnoise export runs/digits --format webpage --out digits-page
              unnoise export runs/digits --format diffusers --out digits-diffusers
              unnoise export runs/digits --format onnx --out digits-onnx
    """
    from unnoise.export import FORMATS

    if format not in FORMATS:
        raise UserError(f"unknown format '{format}': {nearest(format, FORMATS)}")
    if runtime is not None and format != "webpage":
        raise UserError(f"--runtime is what runs the network in a web page, and {format} has none: leave it out")
    page = {"runtime": runtime, "say": say} if format == "webpage" else {}
    told = FORMATS[format](run, out, overwrite, **page)
    say(f"{out}: {run} for {format}; {told}")
    return 0
