"""Walking a folder of images: which files are images, and what is left out, with the reason."""

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from unnoise.data.kinds import ARCHIVES, BY_EXTENSION, HEAD, Kind, is_generated, kind_of

SYSTEM = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__"})
CHUNK = 256  # files whose first bytes one task reads
GENERATED = "data.source.generated true takes them"


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name belongs to a system or a program, as `._x.jpg` and `.ipynb_checkpoints` do."""
    return name.startswith(".") or name in SYSTEM


class LeftOut:
    """What is no data, counted by its reason, with the first of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, reason: str, name: str) -> None:
        """Of a `reason`, what to do about it may stand behind a colon."""
        self._counts[reason] += 1
        self._first[reason] = min(name, self._first.get(reason, name))

    def notes(self) -> tuple[str, ...]:
        """A sentence for each reason."""
        sentences = []
        for reason, n in sorted(self._counts.items()):
            what, colon, remedy = reason.partition(":")
            sentences.append(f"left out: {what} ({n}, e.g. {self._first[reason]!r}){colon}{remedy}")
        return tuple(sentences)


@dataclass
class Found:
    """What lies below a folder, by relative names: images and their states, in order; `folders` that were looked into; what is
    `skipped`, and what is left out, `unread` of them for being of a kind that nothing here reads."""

    images: dict[str, os.stat_result] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unread: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)

    def skip(self, name: str, why: str) -> None:
        self.skipped.append(f"{name!r}: {why}")


class Sieve:
    """Says of a file's first bytes and name whether it is an image to be read, and counts those that are not."""

    def __init__(self, left_out: LeftOut, generated: bool, remedy: str = GENERATED) -> None:
        self._left_out, self._generated, self._remedy = left_out, generated, remedy
        self.unread = 0
        self._read: dict[str, bool] = {}

    def takes(self, head: bytes, name: str) -> bool:
        kind = kind_of(head, _extension(name))
        if kind is None:
            if _extension(name) in ARCHIVES:
                self._left_out.add("archives: unpack them where they hold images", name)
            return False
        if not self._is_read(kind):
            self._left_out.add(f"{kind.name}: {kind.remedy}", name)
            self.unread += 1
            return False
        if is_generated(head) and not self._generated:
            self._left_out.add(f"images that this program wrote: {self._remedy}", name)
            return False
        return True

    def _is_read(self, kind: Kind) -> bool:
        if kind.name not in self._read:
            self._read[kind.name] = kind.is_read
        return self._read[kind.name]


def walk(root: Path, generated: bool = False, remedy: str = GENERATED) -> Found:
    """The images below a folder; of each file only the first bytes are read.

    Links to files and folders are followed, each real folder once. With `generated` also those that this program wrote; where
    they are left out the `remedy` is said.
    """
    found = Found()
    files = list(_files(root, found, None if generated else remedy))
    sieve = Sieve(found.left_out, generated, remedy)
    chunks = [files[k : k + CHUNK] for k in range(0, len(files), CHUNK)]
    with ThreadPoolExecutor(8) as pool:  # a network disk answers several at once
        heads = pool.map(lambda chunk: [_head(root / name) for name, _ in chunk], chunks)
        for (name, state), head in zip(chain.from_iterable(chunks), chain.from_iterable(heads), strict=True):
            if isinstance(head, str):
                if _may_be_image(name):
                    found.skip(name, head)
            elif sieve.takes(head, name):
                found.images[name] = state
    found.unread = sieve.unread
    found.images = dict(sorted(found.images.items(), key=lambda item: item[0].split(os.sep)))  # noqa: PTH206  (faster)
    return found


def _head(path: Path) -> bytes | str:
    """The first bytes of a file, or why they can't be read."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (twice as fast)
            return file.read(HEAD)
    except OSError as e:
        return e.strerror or str(e)


def _files(root: Path, found: Found, remedy: str | None) -> Iterator[tuple[str, os.stat_result]]:
    """Every file that may be an image: its name relative to the root, and its state; with a `remedy` without run folders."""
    above, seen = {_identity(p) for p in root.resolve().parents}, set()
    waiting, links = [""], list[str]()
    while waiting or links:  # links last, so that a folder goes by its own name where it has one
        folder = waiting.pop() if waiting else links.pop(0)
        try:
            here = _identity(root / folder)
            with os.scandir(root / folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as e:
            found.skip(folder or str(root), e.strerror or str(e))
            continue
        if here in seen or here in above:
            found.left_out.add("links to folders that are read already or hold this one", folder)
        elif folder and remedy is not None and _is_run(root / folder, entries):
            found.left_out.add(f"run folders: {remedy}", folder)
        else:
            seen.add(here)
            found.folders.append(folder)
            yield from _look_at(entries, folder, found, waiting, links)


def _look_at(entries: list["os.DirEntry[str]"], folder: str, found: Found, waiting: list[str],
             links: list[str]) -> Iterator[tuple[str, os.stat_result]]:  # fmt: skip
    """The files of one folder; its sub-folders are noted in `waiting` and `links`."""
    for entry in entries:
        name = f"{folder}{os.sep}{entry.name}" if folder else entry.name
        try:
            is_folder, state = entry.is_dir(), entry.stat()
        except OSError as e:  # a link that leads nowhere
            if _may_be_image(name):
                found.skip(name, e.strerror or str(e))
            continue
        if is_hidden(entry.name):
            if is_folder or _extension(name) in BY_EXTENSION:
                found.left_out.add(f"hidden or system {'folders' if is_folder else 'files'}", name)
        elif is_folder:
            (links if entry.is_symlink() else waiting).append(name)
        elif stat.S_ISREG(state.st_mode):
            yield name, state
        elif _may_be_image(name):
            found.skip(name, "not a file")


def _may_be_image(name: str) -> bool:
    """By the name alone."""
    extension = _extension(name)
    return not extension or extension in BY_EXTENSION


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  (several times as fast)


def _identity(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


def _is_run(folder: Path, entries: list["os.DirEntry[str]"]) -> bool:
    """Whether a run was written to this folder."""
    if not any(entry.name == "recipe.json" for entry in entries):
        return False
    with suppress(OSError, ValueError):
        held = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
        return isinstance(held, dict) and {"recipe", "shape"} <= held.keys()
    return False
