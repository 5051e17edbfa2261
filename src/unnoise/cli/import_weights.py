"""`unnoise import`."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, data_changes, say
from unnoise.utils.errors import UserError


def import_(
    file: Annotated[Positional[Path], arg(help="weights, e.g. the notebook's final_model.pth, or a folder of diffusers")],
    run: Annotated[Path, arg(help="the run folder to make")],
    size: Annotated[str | None, arg(help="height and width that a file was trained at: 64 or 48,64; 64 by default")] = None,
    data: Annotated[str | None, arg(help="its training images, to measure their mean and covariance")] = None,
    root: Annotated[str | None, arg(help="the folder that holds a published data set")] = None,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Turn weights of another program into a run folder that samples and restores like any other.

    Read are the notebook's state_dict, a folder that diffusers saved (UNet2DModel with the scheduler of DDPM or DDIM) or that
    `unnoise export` wrote, and model-N.pt of denoising-diffusion-pytorch. Only tensors are read, never a pickled object.

    Examples: unnoise import final_model.pth --run runs/notebook
              unnoise import final_model.pth --run runs/notebook --data fgvc-aircraft --root DIR
              unnoise import ddpm-cat --run runs/cat
              unnoise import results/model-10.pt --run runs/theirs --size 32
    """
    from unnoise.export.from_diffusers import import_diffusers
    from unnoise.export.lucidrains import import_lucidrains, is_checkpoint
    from unnoise.export.notebook import import_notebook
    from unnoise.export.weights import read_torch
    from unnoise.run_folder import RunFolder

    if root is not None and data is None:
        raise UserError("--root says where a data set is: add --data with its name, e.g. --data fgvc-aircraft")
    RunFolder(run).refuse_existing()
    if file.is_dir():
        if given := [name for name, value in (("--size", size), ("--data", data), *(changes or {}).items()) if value is not None]:
            raise UserError(f"a folder of diffusers says all of its recipe, so it can't take {given[0]}: leave it out")
        what, info = "the network of diffusers", import_diffusers(file, run)
    elif is_checkpoint(read_torch(file)):
        if data is not None:
            raise UserError("--data is for the notebook's weights: leave it out")
        asked = data_changes(None, size=size or "64") | (changes or {})
        what, info = "the network of denoising-diffusion-pytorch", import_lucidrains(file, run, asked)
    else:
        asked = data_changes(data, root, False, size or "64") | (changes or {})
        what, info = "the notebook's network", import_notebook(file, run, asked, measure=data is not None)
    c, h, w = info.shape
    say(f"{run}: {what} for {h}x{w}x{c} images. Next: unnoise sample {run} -n 4 --sampler ddim --steps 50")
    return 0
