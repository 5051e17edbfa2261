"""One writer at a time for each run folder."""

import json
import os
import socket
import warnings
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from unnoise.utils import atomic
from unnoise.utils.errors import SystemLimit, UserError


class RunLock:
    """Held by the process that trains a run; the system releases it where that process dies, so that none is ever stale."""

    def __init__(self, folder: Path) -> None:
        self._lock, self._holder = FileLock(folder / ".lock"), folder / ".lock.json"

    def acquire(self) -> None:
        """Hold it from here on. Raises UserError, naming the holder, where another has it."""
        if self._lock.is_locked:
            return
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"'{self._holder.parent}' is being trained by {self._describe_holder()}: wait until that ends, "
                            "or stop it") from None  # fmt: skip
        except NotImplementedError:
            unlocked = f"the disk of '{self._holder.parent}' has no locks: let no other process train this run meanwhile"
            warnings.warn(SystemLimit(unlocked), stacklevel=2)
            return
        self._holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")

    def release(self) -> None:
        """Let others have it."""
        if self._lock.is_locked:
            self._holder.unlink(missing_ok=True)
            self._lock.release(force=True)

    def _describe_holder(self) -> str:
        with suppress(OSError, ValueError, KeyError, TypeError):
            holder = atomic.read_json(self._holder)
            return f"process {int(holder['pid'])} on {holder['host']}"
        return "another process"
