"""`unnoise average`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unnoise.cli.options import say
from unnoise.utils.errors import UserError


def average(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    out: Annotated[Path, arg(help="the run folder to make")],
    width: Annotated[float | None, arg(help="relative width of the average wanted, up to 0.28; needs snapshots")] = None,
    best: Annotated[bool, arg(help="the weights where the held-out loss was lowest, before samples were copies")] = False,
    step: Annotated[int | None, arg(help="with --width: as it was after this step; the last by default")] = None,
) -> int:
    """Make a run folder of other weights of a run, to sample from and to compare: another average (EMA), or the best on the way.

    Examples: unnoise average runs/photos --width 0.15 --out runs/photos-0.15
              unnoise average runs/photos --best --out runs/photos-best
    """
    if best == (width is not None) or (best and step is not None):
        raise UserError("give either --width, with --step where you want another than the last, or --best")
    from unnoise.runs.averages import extract_best, make_average

    if width is None:
        found = extract_best(run, out)
        what = f"{run} after step {found.step}, held-out loss {found.loss:.4f}"
    else:
        make_average(run, width, out, step)
        what = f"the average of width {width:g} of {run}"
    say(f"{out}: {what}. Next: unnoise sample {out} -n 16")
    return 0
