"""`unnoise studio`."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unnoise.cli.studio import _listen
from unnoise.utils.errors import UserError


def test_mistakes(refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert "from 1 to 65535, not 0" in refused("studio", tmp_path, "--port", 0)
    assert "is no folder" in refused("studio", tmp_path / "file")
    assert "can't listen on" in refused("studio", tmp_path, "--host", "192.0.2.1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "needs starlette and uvicorn: pip install 'unnoise[studio]'" in refused("studio", tmp_path)


def test_the_next_free_port(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with _listen("127.0.0.1", port) as found:
            assert port < found.getsockname()[1] < port + 20
    assert f"port {port} is taken" in capsys.readouterr().out


def test_all_ports_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["unnoise.cli.studio"], "PORTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="are taken"):
        _listen("127.0.0.1", taken.getsockname()[1])
