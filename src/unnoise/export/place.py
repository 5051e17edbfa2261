"""What exports share: what of a run they take, the folder that they write; and the run that an import makes."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from unnoise.diffusion.denoiser import NetworkDenoiser
from unnoise.diffusion.gaussian import Moments
from unnoise.model import Model
from unnoise.recipe import RunInfo, command_line
from unnoise.run_folder import RunFolder
from unnoise.runs.lock import RunLock, creating
from unnoise.runs.start import VERSIONS
from unnoise.training.checkpoint import Tensors
from unnoise.utils import atomic
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import choose_device


def write_folder(out: Path, overwrite: bool, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a folder, which takes the name `out` when it is whole.

    Raises UserError where `out` is there already, unless `overwrite`: then files of the same names are replaced, no other.
    """
    if out.exists() and not (overwrite and out.is_dir()):
        raise UserError(f"'{out}' is there already: choose another `out`" + (", or `overwrite` it" if out.is_dir() else ""))
    try:
        if not out.exists():
            atomic.write_folder(out, fill)
            return
        made = out / ".export"
        shutil.rmtree(made, ignore_errors=True)
        atomic.write_folder(made, fill)
        for file in [p for p in made.rglob("*") if p.is_file()]:
            place = out / file.relative_to(made)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
        shutil.rmtree(made)
    except OSError as e:
        raise UserError(f"can't write '{out}' ({e.strerror or e}): choose another `out`") from e


def bare_denoiser(model: Model) -> NetworkDenoiser:
    """A model's denoiser in float32, without what surrounds it, on the CPU, in inference mode."""
    recipe = model.info.recipe
    return NetworkDenoiser(model.network.float().cpu(), recipe.schedule, recipe.target).eval().requires_grad_(False)


def make_run(folder: RunFolder, info: RunInfo, weights: Tensors, moments: Moments | None = None) -> None:
    """Write a run folder of weights, on this machine's device.

    Raises UserError, nothing written, for weights of other names or shapes than the recipe's network, and where one isn't finite.
    """
    own = info.recipe.weight_shapes(info.shape, len(info.classes))
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if wrong := [name for name in sorted({*own, *found}) if own.get(name) != found.get(name)]:
        name = wrong[0]
        raise UserError(f"the weights are not of the network that their configuration says: '{name.removeprefix('network.')}' is "
                        f"{found.get(name, 'not there')} where it has {own.get(name, 'none')}")  # fmt: skip
    if bad := [name for name, value in weights.items() if not bool(value.isfinite().all())]:
        raise UserError(f"the weights '{bad[0].removeprefix('network.')}' are not finite: the training of it failed")
    info = replace(info, device=choose_device(), bf16=False, versions=VERSIONS, command=command_line())
    lock = RunLock(folder.path)
    with creating(folder, lock):
        folder.write_model(weights, moments)
        info.save(folder.recipe)  # last: what has a recipe is a run
    lock.release()
