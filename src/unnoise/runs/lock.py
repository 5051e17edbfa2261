"""One writer at a time for each run folder."""

import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from unnoise.run_folder import HOLDER, LOCK, RunFolder
from unnoise.utils import atomic
from unnoise.utils.errors import SystemLimit, UserError

WAIT = 0.2  # seconds that a lock is waited for, since others take it for a moment to see whether it is free


class RunLock:
    """Held by the process that makes or trains a run; the system releases it where that process dies, so none is ever stale."""

    def __init__(self, folder: Path) -> None:
        self._lock, self._holder = FileLock(folder / LOCK), folder / HOLDER

    def acquire(self) -> None:
        """Hold it from here on. Raises UserError, naming the holder, where another has it."""
        if self._lock.is_locked:
            return
        try:
            self._lock.acquire(timeout=WAIT)
        except Timeout:
            raise UserError(f"'{self._holder.parent}' is being written by {self._describe_holder()}: wait until that ends, "
                            "or stop it") from None  # fmt: skip
        except NotImplementedError:
            unlocked = f"the disk of '{self._holder.parent}' has no locks: let no other process write to this run meanwhile"
            warnings.warn(SystemLimit(unlocked), stacklevel=2)
            return
        self._holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")

    def release(self, failed: bool = False) -> None:
        """Let others have it. Where making a run `failed`, it is left as a kill leaves it."""
        if self._lock.is_locked:
            if not failed:
                self._holder.unlink(missing_ok=True)
            self._lock.release(force=True)

    def _describe_holder(self) -> str:
        with suppress(OSError, ValueError, KeyError, TypeError):
            holder = atomic.read_json(self._holder)
            return f"process {int(holder['pid'])} on {holder['host']}"
        return "another process"


def writing_process(folder: Path) -> int | None:
    """The process on this machine that holds the lock of a run folder; None where nobody does. A remote one is 0."""
    holder = folder / HOLDER
    if not holder.is_file():  # a process that is killed leaves it, so that it alone tells nothing
        return None
    try:
        with FileLock(folder / LOCK, timeout=0):
            return None
    except Timeout:
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = atomic.read_json(holder)
            return int(found["pid"]) if found["host"] == socket.gethostname() else 0
        return 0
    except (OSError, NotImplementedError):
        return None


@contextmanager
def creating(folder: RunFolder, lock: RunLock) -> Iterator[None]:
    """Make a run folder, free of what a kill left in it; nobody else makes it meanwhile, and `lock` is held afterwards.

    What can't be written inside the block is a UserError, after which another attempt may find what this one left.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.refuse_existing()
        lock.acquire()
        try:
            folder.refuse_existing()  # another may have made one meanwhile
            folder.sweep()
            yield
        except BaseException:
            lock.release(failed=True)
            raise
    except OSError as e:
        raise UserError(f"can't write to '{folder.path}' ({e.strerror or e}): choose another folder") from e
