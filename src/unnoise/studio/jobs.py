"""Jobs on the models: one at a time, in a thread of its own, the others in a queue of bounded length.

A job that nobody watches any more is cancelled: between two layers of a network, so that it does not matter how long a call of
the network takes.
"""

import asyncio
import queue
import secrets
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch.nn.modules.module import register_module_forward_pre_hook

from unnoise.studio import events
from unnoise.studio.errors import Refusal
from unnoise.studio.events import Signal
from unnoise.utils.errors import UserError

MOST = 20  # jobs that wait or run
KEPT, KEPT_BYTES = 20, 2**27  # finished jobs whose results are kept, and bytes of these
UNWATCHED, LEFT = 30.0, 1.0  # seconds after which a job is cancelled that nobody watched yet, or whose last watcher has left
FRAMES_PER_SECOND = 12.0


class Cancelled(Exception):
    """The job is not wanted any more."""


class Result(Protocol):
    """What a finished job leaves behind: what is sent, and its size in memory."""

    @property
    def nbytes(self) -> int: ...

    def to_json(self) -> dict[str, Any]: ...


Work = Callable[["Job"], Result]


@dataclass
class Job:
    """One job: `work` gets it, calls `show` with frames, and gives the result. `changed` wakes those who watch."""

    work: Work
    changed: Signal
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: str = "queued"  # running, done, error or cancelled
    position: int = 0  # in the queue; 0: none is before it
    result: Result | None = None
    number: int = 0  # of frames that were shown
    _frame: bytes = b""
    _end: bytes = b""
    _cancelled: bool = False
    _until: float = field(default_factory=lambda: time.monotonic() + UNWATCHED)
    _shown: float = 0.0

    def show(self, step: int, total: int, frame: Callable[[], dict[str, Any]]) -> None:
        """Send a frame, which is only made where the last one is not too recent. Raises Cancelled."""
        self.check()
        now = time.monotonic()
        if now - self._shown < 1 / FRAMES_PER_SECOND and step < total:
            return
        self._shown = now
        self._frame = events.encode("frame", {"step": step, "total": total, **frame()})
        self.number += 1
        self.changed.notify()

    def check(self) -> None:
        """Raises Cancelled where the job is not wanted any more."""
        if self.is_unwanted:
            raise Cancelled

    @property
    def is_unwanted(self) -> bool:
        return self._cancelled or (not len(self.changed) and time.monotonic() > self._until)

    @property
    def is_over(self) -> bool:
        return bool(self._end)

    def cancel(self) -> None:
        self._cancelled = True
        if self.state == "queued":
            self.finish("cancelled", {})

    def finish(self, state: str, data: dict[str, Any]) -> None:
        """`state` is done, error or cancelled."""
        self.state, self._end = state, events.encode(state, data)
        self.changed.notify()

    async def watch(self) -> AsyncIterator[bytes]:
        """Its events: the place in the queue, frames (the newest alone, for those who are slow), and the end."""
        position, number = -1, -1
        try:
            with self.changed.listen() as changed:
                while True:
                    end = self._end
                    if self.state == "queued" and self.position != position:
                        position = self.position
                        yield events.encode("queued", {"position": position})
                    if self.number != number and self._frame:
                        number = self.number
                        yield self._frame
                    if end:
                        yield end
                        return
                    if not await events.wait(changed, events.QUIET):
                        yield events.COMMENT
        finally:
            self._until = time.monotonic() + LEFT


class Jobs:
    """The queue, the thread that works through it, and the results of the last jobs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._jobs, self._lock = loop, dict[str, Job](), threading.Lock()
        self._queue = queue.SimpleQueue[Job | None]()
        self._running: Job | None = None
        self._hook = register_module_forward_pre_hook(self._check_running)
        self._thread = threading.Thread(target=self._work, name="studio jobs", daemon=True)
        self._thread.start()

    def add(self, work: Work) -> Job:
        """Raises Refusal (429) where too many wait."""
        with self._lock:
            if sum(not job.is_over and not job.is_unwanted for job in self._jobs.values()) >= MOST:
                raise Refusal(429, f"{MOST} jobs wait already: try again when some of them are done")
            job = Job(work, Signal(self._loop))
            self._jobs[job.id] = job
            self._queue.put(job)
        self._renumber()
        return job

    def find(self, number: str) -> Job:
        """Raises Refusal where there is none of this id, any more."""
        job = self._jobs.get(number)
        if job is None:
            raise Refusal(404, f"this job is gone, since only the last {KEPT} are kept: begin it again")
        return job

    @property
    def queued(self) -> int:
        """How many wait."""
        return sum(job.state == "queued" for job in list(self._jobs.values()))

    @property
    def busy(self) -> bool:
        return self._running is not None

    def close(self) -> None:
        """Cancel all."""
        for job in list(self._jobs.values()):
            job.cancel()
        self._queue.put(None)
        self._hook.remove()

    def _check_running(self, *_: Any) -> None:
        """Before each layer of any network."""
        job = self._running
        if job is not None and threading.current_thread() is self._thread:
            job.check()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            if job.is_over:  # it was cancelled while it waited
                continue
            self._running, job.state = job, "running"
            self._renumber()
            self._run(job)
            self._running = None
            self._forget()
            self._renumber()

    def _run(self, job: Job) -> None:
        try:
            job.check()
            job.result = job.work(job)
            job.finish("done", job.result.to_json())
        except Cancelled:
            job.finish("cancelled", {})
        except UserError as e:
            job.finish("error", {"error": str(e)})
        except Exception as e:  # whatever a network of the user's own may raise, or too little memory
            traceback.print_exc()
            job.finish("error", {"error": f"this failed ({type(e).__name__}: {e}): try fewer or smaller images"})

    def _forget(self) -> None:
        """The oldest results, where there are too many."""
        with self._lock:
            over = [job for job in self._jobs.values() if job.is_over]
            size = sum(job.result.nbytes for job in over if job.result is not None)
            while over and (len(over) > KEPT or size > KEPT_BYTES) and len(over) > 1:
                oldest = over.pop(0)
                size -= oldest.result.nbytes if oldest.result is not None else 0
                del self._jobs[oldest.id]

    def _renumber(self) -> None:
        """Tell those who wait how many are before them."""
        waiting = [job for job in list(self._jobs.values()) if job.state == "queued"]
        for place, job in enumerate(waiting):
            if job.position != place + self.busy:
                job.position = place + self.busy
                job.changed.notify()
