"""A budget of time as a number of steps: measured while training goes, and corrected when the machine's speed changes."""

import time
from collections import deque

CHECKS = 50  # times that the number of steps is looked at in a training
WINDOW = 10  # of these, over which the speed is measured, so that work between steps counts too
TOLERANCE = 0.01  # within which a number of steps stays


class Budget:
    """How many steps fit before `deadline`, a time of `time.perf_counter`; at most `max_steps`. `first` are done already."""

    def __init__(self, deadline: float, first: int = 0, max_steps: int | None = None) -> None:
        self.deadline, self.first, self.max_steps = deadline, first, max_steps
        self._marks: deque[tuple[int, float]] = deque(maxlen=WINDOW)

    def due(self, step: int, total: int | None) -> bool:
        """Whether to ask `total_steps` after this step; the same in each of several processes."""
        return total is None or (step - self.first) % max(1, total // CHECKS) == 0

    def total_steps(self, step: int, total: int | None) -> int | None:
        """The number of steps that fit, as seen after `step`; `total` where it is right still, None while nothing is known."""
        now = time.perf_counter()
        self._marks.append((step, now))  # the first step is not typical, and not measured
        (first, begun), left = self._marks[0], self.deadline - now
        if left <= 0 or step == self.max_steps:
            return step
        if step == first:
            return total
        fit = step + int(left * (step - first) / (now - begun))
        fit = fit if self.max_steps is None else min(fit, self.max_steps)
        return fit if total is None or abs(fit - total) > TOLERANCE * total else total
