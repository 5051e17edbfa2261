"""Train a run a little: what tests start with torchrun. `python -m tests.worker FOLDER STOP` goes on to step STOP."""

import sys
from pathlib import Path

from unnoise.utils.runtime import Runtime
from unnoise.runs.trainer import Run


def train_until(folder: Path, stop: int, team: Runtime) -> list[float]:
    """Losses of the steps made."""
    run = Run.resume(folder, print, runtime=team)
    return [record.loss for record in run.train(lambda: run.training.step >= stop)]


if __name__ == "__main__":
    team = Runtime.join()
    train_until(Path(sys.argv[1]), int(sys.argv[2]), team)
    team.leave()
