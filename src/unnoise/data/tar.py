"""Images in tar files, as WebDataset lays them out: `shards-{000..099}.tar`, each image beside its label `.cls` or `.txt`.

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

from unnoise.data.cache import FileSource, Listing
from unnoise.data.kinds import HEAD
from unnoise.data.walk import LeftOut, Sieve, is_hidden
from unnoise.utils.errors import UserError

MAX_SHARDS = 10**5  # that a pattern may stand for
MAX_CAPTIONS = 20  # texts that may each stand for an image and yet be classes
MAX_BYTES = 2**28  # of one member


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
class TarShards(FileSource):
    """`path` is one .tar or a pattern, `{000..099}` for numbers and `*` for anything.

    Only every `splits`-th shard is read, from number `split` on. With `per_process` each of several processes that train one
    model takes a split of its own, so that none reads or stores all of the data. `generated` takes also images that this
    program wrote.
    """

    path: str = ""
    split: int = 0
    splits: int = 1
    per_process: bool = False
    generated: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.split < self.splits:
            raise UserError(f"split of {self.splits} splits must be from 0 to {self.splits - 1}, not {self.split}")

    def listing(self) -> Listing:
        shards = expand(self.path)
        missing = [shard for shard in shards if not shard.is_file()]
        if missing or not shards:
            raise UserError(f"no file '{missing[0] if missing else self.path}': '{self.path}' stands for {len(shards)} shards")
        if self.splits > len(shards):
            raise UserError(f"{len(shards)} shards can't be split {self.splits} ways: make at least as many")
        left_out = LeftOut()
        images, labels, skipped = _index(shards[self.split :: self.splits], left_out, Sieve(left_out, self.generated))
        if not images:
            why = [*left_out.notes(), *(f"not read: {reason}" for reason in skipped[:1])]
            raise UserError(f"no images in '{self.path}'" + "".join(f"; {reason}" for reason in why))
        stamps = [f"{m.start} {m.size} {m.shard.stat().st_mtime_ns}" for m in images]
        classes: tuple[str, ...] = ()
        index = None
        notes = left_out.notes()
        if all(label is not None for label in labels):
            names, found = np.unique([str(label) for label in labels], return_inverse=True)
            if MAX_CAPTIONS < len(names) > len(images) / 2:
                notes = (*notes, f"{len(names)} different texts for {len(images)} images are captions, no classes, and not used")
            else:
                classes, index = tuple(str(n) for n in names), found.astype(np.int64)
        return Listing(self.path, [f"{m.shard.name}/{m.name}" for m in images], lambda k: io.BytesIO(images[k].read()),
                       stamps, index, classes, skipped=tuple(skipped), notes=notes)  # fmt: skip


def expand(pattern: str) -> list[Path]:
    """`a-{000..003}.tar` to its four files, `*` to what is there, in order."""
    found = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", pattern)
    if found is None:
        path = Path(pattern)
        return sorted(path.parent.glob(path.name)) if "*" in path.name else [path]
    before, first, last, after = found.groups()
    if int(last) - int(first) >= MAX_SHARDS:
        raise UserError(f"'{pattern}' stands for more than {MAX_SHARDS:,} files: give fewer, or a pattern with *")
    return [p for k in range(int(first), int(last) + 1) for p in expand(f"{before}{k:0{len(first)}d}{after}")]


def _index(shards: Sequence[Path], left_out: LeftOut, sieve: Sieve) -> tuple[list[Member], list[str | None], list[str]]:
    """Images, the label of each, and what was skipped, in the order of the shards."""
    images: list[Member] = []
    labels: list[str | None] = []
    skipped: list[str] = []
    for shard in shards:
        texts: dict[str, str] = {}
        mine: list[Member] = []
        for member, head in _members(shard, skipped):
            path = PurePosixPath(member.name)
            if any(is_hidden(part) for part in path.parts if part not in (".", "..")):
                left_out.add("hidden or system files", f"{shard.name}/{member.name}")
            elif sieve.takes(head, f"{shard.name}/{member.name}"):
                mine.append(member)
            elif path.suffix in (".cls", ".txt"):
                texts[str(path.with_suffix(""))] = member.read().decode(errors="replace").strip()
        images += mine
        labels += [texts.get(str(PurePosixPath(m.name).with_suffix(""))) for m in mine]
    return images, labels, skipped


def _members(shard: Path, skipped: list[str]) -> Iterator[tuple[Member, bytes]]:
    """Each file with its first bytes."""
    try:
        with tarfile.open(shard, "r:") as tar, shard.open("rb") as file:
            for m in tar:
                if m.isreg() and m.size <= MAX_BYTES:
                    file.seek(m.offset_data)
                    yield Member(shard, m.name, m.offset_data, m.size), file.read(min(HEAD, m.size))
                elif not m.isdir():
                    why = f"larger than {MAX_BYTES >> 20} MiB" if m.isreg() else "not a file"
                    skipped.append(f"{f'{shard.name}/{m.name}'!r}: {why}")
    except tarfile.TarError as e:
        skipped.append(f"{shard.name!r}: can't be read (further) as a tar file ({e})")
