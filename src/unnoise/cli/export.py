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
    weights: Annotated[str | None, arg(help="webpage: how they are stored: float32, float16 or int8")] = None,
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
    options = {name: value for name, value in (("weights", weights), ("runtime", runtime)) if value is not None}
    if options and format != "webpage":
        raise UserError(f"--{next(iter(options))} is an option of a web page, not of {format}: leave it out")
    said = FORMATS[format](run, out, overwrite, **options, **({"say": say} if format == "webpage" else {}))
    say(f"{out}: {run} for {format}; {said}")
    return 0
