"""Ctrl-C and other signals between two steps, never within one."""

import os
import signal
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupt:
    """Inside it, the first of these signals only sets `signal`; a second one ends at once.

    A hangup that is ignored, as under nohup, stays so. `note` is written to stderr at the first one.
    """

    def __init__(self, signals: tuple[signal.Signals, ...] = SIGNALS, note: str = "") -> None:
        self._signals, self._note = signals, note

    def __enter__(self) -> "Interrupt":
        self.signal = 0
        hangup = getattr(signal, "SIGHUP", None)
        handled = (s for s in self._signals if s is not hangup or signal.getsignal(s) is not signal.SIG_IGN)
        self._before = {s: signal.signal(s, self._ask) for s in handled}
        return self

    def _ask(self, number: int, frame: object) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        os.write(2, self._note.encode())  # print may be what was interrupted

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def uninterrupted(records: Iterator[T]) -> Iterator[T]:
    """The same, but a Ctrl-C while one is being made is raised after it, where nobody else handles Ctrl-C."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield from records
        return
    while True:
        with Interrupt((signal.SIGINT,)) as interrupt:
            record = next(records, None)
        if interrupt.signal:
            raise KeyboardInterrupt
        if record is None:
            return
        yield record
