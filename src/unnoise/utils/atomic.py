"""Writing so that a reader sees the old file or the new one, never half of it."""

import errno
import json
import os
import re
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from unnoise.utils.errors import SystemLimit, UserError

UNFLUSHED = SystemLimit("this system can't flush folders to the disk: after a power failure the newest files may be missing")
UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.ENOSYS}  # what disks say that can't flush a folder
MAX_JSON = 2**26  # bytes of a file of JSON that is read
MAX_LOG, MAX_LINE = 2**31, 2**20  # bytes of one of JSON lines, and of a line
TEMPORARY_FILE, TEMPORARY_FOLDER = re.compile(r"\..*\.[0-9a-f]{16}\.tmp(\..*)?"), re.compile(r".*\.[0-9a-f]{16}\.tmp")
WAITS = (0.1, 0.3, 1.0) if os.name == "nt" else ()  # seconds before a refused rename is tried again


def write(path: Path, fill: Callable[[Path], object], work: Path | None = None) -> None:
    """Let `fill` write to a temporary name in the folder `work`, flush it to the disk, then rename it into place.

    By default that is beside `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f".{path.stem}.{secrets.token_hex(8)}.tmp{path.suffix}"  # nobody can have put a link there
    temporary = (work or path.parent) / name
    temporary.touch(exist_ok=False)  # so that a place where nothing can be written is an OSError, whatever `fill` raises
    try:
        fill(temporary)
        flush(temporary)
        _replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def write_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """The same for a folder, which must not exist yet under its final name."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    temporary.mkdir(parents=True)
    try:
        fill(temporary)
        for file in temporary.rglob("*"):
            flush_folder(file) if file.is_dir() else flush(file)
        flush_folder(temporary)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    flush_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove what `write` and `write_folder` left in this folder, but not below it, when they were killed."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if TEMPORARY_FILE.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)
        elif TEMPORARY_FOLDER.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)


def dump_json(value: Any) -> str:
    """JSON as it is written: indented."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """JSON, indented, atomically."""
    text = dump_json(value)
    write(path, lambda p: p.write_text(text, encoding="utf-8", errors="surrogateescape"))


def parse_json(text: str) -> Any:
    """Of whatever a stranger may have written. Raises ValueError for what is no JSON, a number that is not finite, and nesting
    that is too deep to read.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e


def read_json(path: Path) -> Any:
    """A file of at most MAX_JSON bytes. Raises OSError or ValueError."""
    with path.open("rb") as file:
        raw = file.read(MAX_JSON + 1)
    if len(raw) > MAX_JSON:
        raise ValueError(f"it is larger than {MAX_JSON >> 20} MiB")
    return parse_json(raw.decode("utf-8", errors="surrogateescape"))


def iterate_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON lines, none if there is no such file; a line that is none, such as a last one that a crash
    cut short, or that is longer than MAX_LINE, is left out. Raises UserError for a file larger than MAX_LOG.
    """
    if not path.is_file():
        return
    if path.stat().st_size > MAX_LOG:
        raise UserError(f"'{path}' is larger than {MAX_LOG >> 30} GiB, more than any training logs: remove it, or cut it short")
    with path.open(encoding="utf-8", errors="replace") as file:
        while line := file.readline(MAX_LINE):
            with suppress(ValueError, RecursionError):
                record = json.loads(line)  # a loss may be NaN
                if isinstance(record, dict):
                    yield record


def read_records(path: Path) -> list[dict[str, Any]]:
    """All of them."""
    return list(iterate_records(path))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def flush(path: Path) -> None:
    """Force a file to the disk."""
    with path.open("r+b") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Force a folder's entries to the disk, where the system can; where it can't, that is said once."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        warnings.warn(UNFLUSHED, stacklevel=2)
        return
    try:
        os.fsync(descriptor)
    except OSError as e:
        if e.errno not in UNSUPPORTED:
            raise
        warnings.warn(UNFLUSHED, stacklevel=2)
    finally:
        os.close(descriptor)


def _replace(temporary: Path, path: Path) -> None:
    """Rename over a file, patiently: Windows refuses while another program, such as a virus scanner, has it open."""
    for wait in WAITS:
        try:
            temporary.replace(path)
            return
        except PermissionError:
            time.sleep(wait)
    temporary.replace(path)
