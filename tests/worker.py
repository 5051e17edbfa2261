"""Train a run a little: what tests start with torchrun. `python -m tests.worker FOLDER STOP` goes on to step STOP."""

import os
import sys
from pathlib import Path

from unnoise.processes import Processes
from unnoise.run import Run


def train_until(folder: Path, stop: int, team: Processes) -> list[float]:
    """Losses of the steps made."""
    losses = []
    for record in (records := Run.resume(folder, print, processes=team).train()):
        losses.append(record.loss)
        if record.step == stop:
            break
    records.close()
    return losses


if __name__ == "__main__":
    team = Processes.join()
    (Path(sys.argv[1]) / f"pid-{team.rank}").write_text(str(os.getpid()))
    train_until(Path(sys.argv[1]), int(sys.argv[2]), team)
    team.leave()
