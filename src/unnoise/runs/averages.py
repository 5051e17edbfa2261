"""Other averages of a run's weights, made from its snapshots after training (post-hoc EMA)."""

from dataclasses import replace
from pathlib import Path

from unnoise.run_folder import RunFolder
from unnoise.runs.lock import RunLock, creating
from unnoise.training.ema import reconstruct


def make_average(path: Path, width: float, out: Path, step: int | None = None) -> None:
    """Write the run folder `out`: the run at `path` with the average of its weights of another width.

    Raises UserError where it has too few snapshots, where they can't make that width, or where `out` holds a run already.
    """
    run, made = RunFolder.open(path), RunFolder(out)
    info = run.read_info()
    made.refuse_existing()
    tensors = reconstruct(run.snapshots, width, step)
    recipe = replace(info.recipe, training=replace(info.recipe.training, ema=width))
    lock = RunLock(out)
    with creating(made, lock):
        made.write_model(tensors, run.read_moments())
        replace(info, recipe=recipe).save(made.recipe)  # last: what has a recipe is a run
    lock.release()
