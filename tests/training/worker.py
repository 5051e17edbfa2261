"""Train a run a little: what tests start with torchrun. `python -m tests.training.worker FOLDER STOP` goes on to step STOP."""

import sys
from pathlib import Path
from typing import Any, NoReturn

from torch.distributed import distributed_c10d

from unnoise.runs.resume import resume
from unnoise.utils.runtime import Runtime


def train_until(folder: Path, stop: int, team: Runtime) -> list[float]:
    """Losses of the steps made."""
    run = resume(folder, print, runtime=team)
    return [record.loss for record in run.train(lambda: run.state.step >= stop)]


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise AssertionError("processes exchange no pickles")


if __name__ == "__main__":
    team = Runtime.join()
    vars(distributed_c10d).update(_pickler=refuse, _unpickler=refuse)  # of all of its functions for objects
    train_until(Path(sys.argv[1]), int(sys.argv[2]), team)
    team.leave()
