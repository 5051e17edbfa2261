"""`unnoise average`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unnoise.cli.options import say


def average(
    run: Annotated[Positional[Path], arg(help="folder of a run that was trained with --training.snapshots")],
    width: Annotated[float, arg(help="relative width of the average wanted, up to 0.28")],
    out: Annotated[Path, arg(help="the run folder to make")],
    step: Annotated[int | None, arg(help="as it was after this step; the last by default")] = None,
) -> int:
    """Make another average (EMA) of a finished run's weights: another run folder, to sample from and to compare.

    Example: unnoise average runs/photos --width 0.15 --out runs/photos-0.15
    """
    from unnoise.runs.averages import make_average

    make_average(run, width, out, step)
    say(f"{out}: the average of width {width:g} of {run}. Next: unnoise sample {out} -n 16")
    return 0
