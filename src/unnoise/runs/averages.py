"""Other averages of a run's weights as runs: made from its snapshots afterwards (post-hoc EMA), or the best on the way."""

import shutil
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file

from unnoise.run_folder import RunFolder
from unnoise.runs.best import Candidate
from unnoise.runs.lock import RunLock, creating
from unnoise.training.checkpoint import Tensors
from unnoise.training.ema import reconstruct
from unnoise.utils import atomic
from unnoise.utils.errors import UserError


def make_average(path: Path, width: float, out: Path, step: int | None = None) -> None:
    """Write the run folder `out`: the run at `path` with the average of its weights of another width.

    Raises UserError where it has too few snapshots, where they can't make that width, or where `out` holds a run already.
    """
    run, made = RunFolder.open(path), RunFolder(out)
    made.refuse_existing()
    _write(run, made, reconstruct(run.snapshots, width, step), width)


def extract_best(path: Path, out: Path) -> Candidate:
    """Write the run folder `out`: the run at `path` as it was where it was best; gives what was known of it there.

    Raises UserError where none was kept, or where `out` holds a run already.
    """
    run, made = RunFolder.open(path), RunFolder(out)
    made.refuse_existing()
    best = Candidate.read(run)
    if best is None:
        raise UserError(f"'{path}' has no best.safetensors that can be read: training keeps one where images are held out")
    _write(run, made, load_file(run.best), run.read_info().recipe.training.ema)
    return best


def _write(run: RunFolder, made: RunFolder, tensors: Tensors, width: float) -> None:
    info = run.read_info()
    recipe = replace(info.recipe, training=replace(info.recipe.training, ema=width))
    lock = RunLock(made.path)
    with creating(made, lock):
        made.write_model(tensors, run.read_moments())
        if run.guide.is_file():
            atomic.write(made.guide, lambda p: shutil.copyfile(run.guide, p))
        replace(info, recipe=recipe).save(made.recipe)  # last: what has a recipe is a run
    lock.release()
