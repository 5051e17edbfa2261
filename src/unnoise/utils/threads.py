"""How many threads compute fastest now: all of them on an idle machine, on a busy one often far fewer.

Threads wait for each other at the end of every operation. Where one shares its core with another program, all wait for it: on two
cores, one of them taken, two threads trained digits 10 to 25 times slower than one.
"""

import time
from collections.abc import Callable

import torch
from torch import nn

MIN_GAIN = 1.3  # in speed, for which fewer threads are taken: an idle machine always computes with all
LOOK_AGAIN = 2.0  # seconds after which another look is taken, and each time twice as many ...
LOOK_EVERY = 30.0  # ... up to this; a slow step is looked into after the first
CALM = 10.0  # seconds since fewer threads were last found fastest, before more are set again
SLOW = 2.0  # times the usual duration of a step
MEMORY = 0.9  # of the usual duration, per step
Say = Callable[[str], None]


def fastest_threads(most: int, seconds: float = 0.03) -> tuple[int, float]:
    """`most`, or a half of that, a quarter, ..., 1: which computes a small convolution fastest now, and how many times as fast as
    `most`. Each is measured for `seconds`; as many threads are set as before."""
    x, conv, before = torch.randn(16, 64, 8, 8), nn.Conv2d(64, 64, 3, padding=1), torch.get_num_threads()
    calls: dict[int, float] = {}
    count = most
    with torch.no_grad():
        while count:
            torch.set_num_threads(count)
            conv(x)
            begun, done = time.perf_counter(), 0
            while (took := time.perf_counter() - begun) < seconds:
                conv(x)
                done += 1
            calls[count] = done / took
            count //= 2
    torch.set_num_threads(before)
    best = max(calls, key=lambda n: calls[n])
    best = best if calls[best] > MIN_GAIN * calls[most] else most
    return best, calls[best] / calls[most]


class Threads:
    """Looks for how many threads, of `most` (0 or 1: never looks), compute fastest, and says where that changes.

    They are set if `free`; else it is said what would be faster, since results depend on their number in the last bits.
    """

    def __init__(self, most: int, free: bool, say: Say, measure: Callable[[int], tuple[int, float]] = fastest_threads) -> None:
        self.most, self.free, self.say, self.measure = most, free, say, measure
        self._found, self._usual, self._pause = torch.get_num_threads(), 0.0, LOOK_AGAIN
        self._last = self._looked = time.perf_counter()
        self._busy = self._last if self._found < most else -CALM  # when fewer than all were fastest

    def choose(self) -> None:
        """Measure, and set them if that is allowed."""
        if self.most < 2:
            return
        count, gain = self.measure(self.most)
        now = time.perf_counter()
        self._busy = now if count < self.most else self._busy
        if count > self._found and now < self._busy + CALM:
            count = self._found  # the other program may only have paused
        if self.free:
            torch.set_num_threads(count)
        if count != self._found:
            self._pause = LOOK_AGAIN
            self._say(count, gain)
        self._found, self._usual = count, 0.0
        self._last = self._looked = time.perf_counter()

    def after_step(self) -> None:
        """Called after each step of a training: chooses again now and then, and where a step took far longer than usual."""
        now = time.perf_counter()
        took, since = now - self._last, now - self._looked
        self._last = now
        if self.free and (since > self._pause or (since > LOOK_AGAIN and 0 < SLOW * self._usual < took)):
            self._pause = min(LOOK_EVERY, 2 * self._pause)
            self.choose()
        else:
            self._usual = MEMORY * self._usual + (1 - MEMORY) * took if self._usual else took

    def reset(self) -> None:
        """Set all of them."""
        if self.free and self.most > 1:
            torch.set_num_threads(self.most)

    def _say(self, count: int, gain: float) -> None:
        if count == self.most:
            self.say(f"threads: all {count} are fastest again")
        elif self.free:
            self.say(f"threads: {count} of {self.most}, {gain:.0f} times as fast as all while other programs are at work")
        else:
            self.say(f"other programs are at work: with OMP_NUM_THREADS={count} it would be about {gain:.0f} times as fast now")
