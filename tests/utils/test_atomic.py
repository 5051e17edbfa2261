"""Files that are whole or not there, on systems of every kind."""

import errno
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unnoise.utils import atomic
from unnoise.utils.errors import SystemLimit

OPEN, FSYNC = os.open, os.fsync


def windows_open(path: Any, flags: int, *rest: Any, **more: Any) -> int:
    """Folders can't be opened there."""
    if Path(path).is_dir():
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return OPEN(path, flags, *rest, **more)


def windows_fsync(descriptor: int) -> None:
    """Nor can what is open for reading alone be flushed."""
    os.write(descriptor, b"")
    FSYNC(descriptor)


def network_fsync(descriptor: int) -> None:
    """Some network disks flush no folders."""
    if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
        raise OSError(errno.EINVAL, "Invalid argument")
    FSYNC(descriptor)


@pytest.fixture(params=["windows", "network disk"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where folders can't be flushed."""
    if request.param == "windows":
        monkeypatch.setattr(os, "open", windows_open)
    monkeypatch.setattr(os, "fsync", windows_fsync if request.param == "windows" else network_fsync)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


def test_everything_is_written_where_folders_cant_be_flushed(system: None, tmp_path: Path) -> None:
    with pytest.warns(SystemLimit, match="can't flush folders"):
        atomic.write_json(tmp_path / "a.json", {"k": 1})
        atomic.write_folder(tmp_path / "b", lambda p: (p / "c").write_text("d"))
    assert (tmp_path / "a.json").read_text() == '{\n  "k": 1\n}\n' and (tmp_path / "b" / "c").read_text() == "d"


def test_a_disk_that_fails_is_no_disk_that_lacks_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        atomic.write_json(tmp_path / "a.json", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("refusals", [2, 99])
def test_a_file_that_another_program_has_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int) -> None:
    """Windows refuses to rename over it: it is tried again for a while, and then the old one stays whole."""
    rename, asked = Path.replace, [0]

    def refuse(self: Path, target: Path) -> Path:
        asked[0] += 1
        if asked[0] <= refusals:
            raise PermissionError(errno.EACCES, "in use", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(atomic, "WAITS", (0.0, 0.0, 0.0))
    (tmp_path / "a.json").write_text("old")
    if refusals == 2:
        atomic.write_json(tmp_path / "a.json", 1)
        assert (tmp_path / "a.json").read_text() == "1\n"
    else:
        with pytest.raises(PermissionError):
            atomic.write_json(tmp_path / "a.json", 1)
        assert (tmp_path / "a.json").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    atomic.write_json(tmp_path / "a.json", {"path": name})
    assert os.fsencode(name) in (tmp_path / "a.json").read_bytes()
