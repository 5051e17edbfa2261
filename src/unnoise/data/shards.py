"""Pictures in tar files, as WebDataset lays them out: `shards-{000..099}.tar`, each picture beside its label `.cls` or `.txt`.

Members are read where they lie and never unpacked, so their names can't reach outside; nothing is unpickled.
"""

import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from unnoise.data.cache import Listing, read_listing
from unnoise.data.decode import EXTENSIONS, Fit
from unnoise.data.pictures import Pictures, Source
from unnoise.errors import UserError

MOST_BYTES = 2**28  # of one member


class Member(NamedTuple):
    """Where one file lies within a shard."""

    shard: Path
    name: str
    start: int
    size: int

    def read(self) -> bytes:
        with self.shard.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


@dataclass(frozen=True)
class Shards(Source):
    """`path` is one .tar or a pattern, `{000..099}` for numbers and `*` for anything.

    With `part` k of `parts` only every so-manieth shard is read. With `divide` each of several processes that train one
    model takes its own part, so that none reads or keeps all of the set.
    """

    path: str = ""
    part: int = 0
    parts: int = 1
    divide: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.part < self.parts:
            raise UserError(f"a part of {self.parts} is one of 0 to {self.parts - 1}, not {self.part}")

    def read(self, fit: Fit, cache: Path | None = None) -> Pictures:
        shards = expand(self.path)
        missing = [shard for shard in shards if not shard.is_file()]
        if missing or not shards:
            raise UserError(f"no file '{missing[0] if missing else self.path}': '{self.path}' stands for {len(shards)} shards")
        if self.parts > len(shards):
            raise UserError(f"{len(shards)} shards can't be shared among {self.parts}: make at least as many")
        pictures, labels, skipped = _index(shards[self.part :: self.parts])
        if not pictures:
            raise UserError(f"no pictures in '{self.path}'" + (f"; the first skipped: {skipped[0]}" if skipped else ""))
        stamps = [f"{m.start} {m.size} {m.shard.stat().st_mtime_ns}" for m in pictures]
        classes: tuple[str, ...] = ()
        index = None
        if all(label is not None for label in labels):
            names, found = np.unique([str(label) for label in labels], return_inverse=True)
            classes, index = tuple(str(n) for n in names), found.astype(np.int64)
        listing = Listing(self.path, [f"{m.shard.name}/{m.name}" for m in pictures], lambda k: io.BytesIO(pictures[k].read()),
                          stamps, index, classes, skipped=tuple(skipped))  # fmt: skip
        return read_listing(listing, fit, cache)


def expand(pattern: str) -> list[Path]:
    """`a-{000..003}.tar` to its four files, `*` to what is there, in order."""
    found = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", pattern)
    if found is None:
        path = Path(pattern)
        return sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
    before, first, last, after = found.groups()
    return [p for k in range(int(first), int(last) + 1) for p in expand(f"{before}{k:0{len(first)}d}{after}")]


def _index(shards: Sequence[Path]) -> tuple[list[Member], list[str | None], list[str]]:
    """Pictures, the label of each, and what was skipped, in the order of the shards."""
    pictures: list[Member] = []
    labels: list[str | None] = []
    skipped: list[str] = []
    for shard in shards:
        texts: dict[str, str] = {}
        mine: list[Member] = []
        for member in _members(shard, skipped):
            path = PurePosixPath(member.name)
            if path.suffix.lower() in EXTENSIONS:
                mine.append(member)
            elif path.suffix in (".cls", ".txt"):
                texts[str(path.with_suffix(""))] = member.read().decode(errors="replace").strip()
        pictures += mine
        labels += [texts.get(str(PurePosixPath(m.name).with_suffix(""))) for m in mine]
    return pictures, labels, skipped


def _members(shard: Path, skipped: list[str]) -> Iterator[Member]:
    try:
        with tarfile.open(shard, "r:") as tar:
            for m in tar:
                if m.isreg() and m.size <= MOST_BYTES:
                    yield Member(shard, m.name, m.offset_data, m.size)
                elif not m.isdir():
                    why = f"larger than {MOST_BYTES >> 20} MiB" if m.isreg() else "not a file"
                    skipped.append(f"{f'{shard.name}/{m.name}'!r}: {why}")
    except tarfile.TarError as e:
        skipped.append(f"{shard.name!r}: can't be read (further) as a tar file ({e})")
