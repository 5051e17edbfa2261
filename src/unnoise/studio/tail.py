"""Reading files of JSON lines that another process writes to, without reading anything twice."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unnoise.utils.atomic import MAX_LINE

PART = 2**25  # bytes that are read at once, at most


class Tail:
    """`read` gives the records that were written since it was last called."""

    def __init__(self, path: Path) -> None:
        self.path, self._file, self._place = path, (0, 0), 0

    def parts(self) -> Iterator[tuple[list[dict[str, Any]], bool]]:
        """All that is new, as `read` gives it, a part at a time."""
        while (found := self.read()) != ([], False):
            yield found

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """The new records, and whether they are of another file than before: one that was written anew, or removed.

        A line that is not ended yet is left for the next time; numbers that are not finite are None.
        """
        try:
            with self.path.open("rb") as file:
                state = os.fstat(file.fileno())
                anew = (state.st_dev, state.st_ino) != self._file or state.st_size < self._place
                if anew:
                    self._file, self._place = (state.st_dev, state.st_ino), 0
                file.seek(self._place)
                part = file.read(PART)
        except OSError:
            anew, self._file, self._place = self._file != (0, 0), (0, 0), 0
            return [], anew
        whole = part.rfind(b"\n") + 1
        if not whole and len(part) > MAX_LINE:
            whole = len(part)  # no line that this program writes is so long
        self._place += whole
        lines = part[:whole].splitlines()
        return [record for line in lines if len(line) < MAX_LINE and (record := _parse(line)) is not None], anew


def _parse(line: bytes) -> dict[str, Any] | None:
    """A record with a step; None for any other line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(record.get("step")) is not int:
        return None
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in record.items()}


class Thinned:
    """The points of a curve, every second one dropped whenever there are twice as many as `most`."""

    def __init__(self, most: int) -> None:
        self.most, self.points, self._every, self._count = most, list[dict[str, Any]](), 1, 0

    def add(self, points: list[dict[str, Any]]) -> None:
        for point in points:
            if self._count % self._every == 0:
                self.points.append(point)
            self._count += 1
            if len(self.points) >= 2 * self.most:
                self.points, self._every = self.points[::2], 2 * self._every
