"""`unnoise distill`."""

import time
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unnoise.cli.options import say_of_run


def distill(
    teacher: Annotated[Positional[Path], arg(help="folder of the run to distil")],
    minutes: Annotated[float | None, arg(help="be done, last samples included, after this long")] = None,
    steps: Annotated[int | None, arg(help="train the student for this many steps")] = None,
    run: Annotated[Path | None, arg(help="folder of the student; RUN-fast by default")] = None,
    guidance: Annotated[
        float | None, arg(help="strength of guidance to learn (1: none); that of the run's own sampling by default")
    ] = None,
    method: Annotated[str, arg(help="matching, of distributions, or consistency, of calls: docs/distill.md")] = "matching",
    data: Annotated[str | None, arg(help="where the run's images are now, if they have moved")] = None,
) -> int:
    """Train a student of a run, which samples in one or two calls of the network instead of six to fifteen.

    The student is a run like any other: sample from it, evaluate it, restore with it, go on with it by `unnoise train --resume`.

    Examples: unnoise distill runs/digits --minutes 1
              unnoise distill runs/digits --minutes 1 --guidance 1.5 --run runs/digits-clear
              unnoise sample runs/digits-fast -n 1000 --steps 1
    """
    from unnoise.cli.train import follow_trainings
    from unnoise.runs.distil import begin_student

    started = time.perf_counter()
    return follow_trainings(lambda on: begin_student(
        teacher, run, minutes, steps, guidance, say_of_run, on, data, started, method))  # fmt: skip
