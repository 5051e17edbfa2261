"""Whether the samples of a run are copies of its training images, said where that begins."""

from collections.abc import Callable

import numpy as np

from unnoise.evaluation.copying import Space
from unnoise.evaluation.watch import BUDGET, CopyWatch
from unnoise.runs.best import Candidate


class Copies:
    """Looks for copies among the samples of each preview, and warns at the first.

    `found` is what the last samples are, None where that was not looked at.
    """

    def __init__(self, watch: CopyWatch, say: Callable[[str], None]) -> None:
        self.watch, self.say = watch, say
        self.found: Space | None = None
        self._copies = self._warned = self._skipped = False

    def look(self, pixels: np.ndarray, step: int, best: Candidate | None) -> bool:
        """Whether samples of a step, uint8 (N, H, W, C), are copies; by the last look, where this one takes too long."""
        self.found = self.watch.look(pixels)
        if self.found is None:
            self._say_skipped()
        else:
            self._copies = bool(self.found.copies)
            if self._copies and not self._warned:
                self._warn(self.found, step, best)
        return self._copies

    def _say_skipped(self) -> None:
        if not self._skipped and len(self.watch.images) > 1:
            self.say(f"copies are looked for more rarely than samples are made: it would take more than {BUDGET:.0%} of the time")
        self._skipped = True

    def _warn(self, found: Space, step: int, best: Candidate | None) -> None:
        kept = f"; best.safetensors holds step {best.step}" if best is not None and not best.copies else ""
        self.say(f"step {step}: {found.rate:.0%} of {found.n} samples are copies of training images (of held-out images "
                 f"{found.held_out_rate:.0%} would count as such). End it soon, or begin again with fewer steps, more images, or "
                 f"data.augment 0.1; training.stop_when_copying ends it by itself{kept}")  # fmt: skip
        self._warned = True
