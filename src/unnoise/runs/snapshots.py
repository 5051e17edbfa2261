"""Averages of the weights stored while training: an early one for autoguidance, and those that others are made from."""

import math
from dataclasses import dataclass
from functools import partial

from safetensors.torch import load_file

from unnoise.run_folder import RunFolder
from unnoise.runs.attempts import Attempts
from unnoise.training import checkpoint
from unnoise.training.config import TrainingConfig
from unnoise.training.distributed import full_state_dict
from unnoise.training.ema import snapshot_name
from unnoise.training.loop import TrainState
from unnoise.utils.runtime import Runtime

GUIDE = 0.1  # fraction of the training after which the average for autoguidance is stored (Karras et al. 2024, guiding)
MIN_SNAPSHOT = 64  # step from which averages of an open training are stored


@dataclass
class Snapshots:
    """Stores what is due; only the first process writes."""

    state: TrainState
    config: TrainingConfig
    folder: RunFolder
    runtime: Runtime
    attempt: Attempts
    guide_stored: bool = False

    def store(self, total: int | None) -> None:
        """After a step of `total`: the early average for autoguidance, and those that others are made from."""
        step, config = self.state.step, self.config
        if total and step >= GUIDE * total and not self.guide_stored and not config.objective.from_teacher:
            self.guide_stored = True
            tensors = full_state_dict(self.state.average)
            if self.runtime.is_first and not self.folder.guide.exists():
                self._store_guide(tensors)
        if snapshot_due(step, total, config.snapshots):
            for width, average in {config.ema: self.state.average, **self.state.extra_averages}.items():
                if not width:
                    continue  # the weights themselves are no average to make others from
                tensors = full_state_dict(average)
                if self.runtime.is_first:
                    path = self.folder.snapshots / snapshot_name(step, width)
                    self.attempt("an average", partial(checkpoint.save_tensors, path, tensors))

    def store_guide_afterwards(self, total: int) -> None:
        """Of a training that was open, the early average is the stored one nearest to where it would be, or that of now."""
        self.guide_stored = True
        found = [int(p.name.split("-")[0]) for p in self.folder.snapshots.glob(f"*-{self.config.ema:g}.safetensors")]
        tensors = None if found else full_state_dict(self.state.average)
        if not self.runtime.is_first or self.folder.guide.exists():
            return
        if tensors is None:
            nearest = min(found, key=lambda step: abs(step - GUIDE * total))
            tensors = load_file(self.folder.snapshots / snapshot_name(nearest, self.config.ema))
        self._store_guide(tensors)

    def _store_guide(self, tensors: checkpoint.Tensors) -> None:
        self.attempt("an early average", lambda: checkpoint.save_tensors(self.folder.guide, tensors))


def snapshot_due(step: int, total: int | None, count: int) -> bool:
    """Whether averages are stored after this step: `count` times in `total` steps or, of an open number, 4 times per doubling."""
    if not count:
        return False
    if total is None:
        return step >= MIN_SNAPSHOT and int(4 * math.log2(step)) > int(4 * math.log2(step - 1))
    return step * count // total > (step - 1) * count // total
