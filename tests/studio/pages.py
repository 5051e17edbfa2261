"""The studio in a process of its own, for tests of its page in Chromium, and what they share."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

PATIENCE = 120_000  # milliseconds for whatever a slow machine computes
Open = Callable[..., "Page"]


class Server:
    """The studio as its command starts it, on a folder of runs."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "unnoise", "studio", str(self.runs), "--port", str(self.port), "--no-browser"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE / 1000
        while self._torch() != "ready":
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.address + path) as answer:
            return json.load(answer)

    def _torch(self) -> str:
        try:
            return str(self.get("/api/status")["torch"])
        except OSError:
            return "not there"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def pixels(canvas: "Locator") -> list[int]:
    """What a canvas shows, as bytes of RGBA."""
    script = """canvas => {
        const copy = document.createElement('canvas');
        [copy.width, copy.height] = [canvas.width, canvas.height];
        const context = copy.getContext('2d', { willReadFrequently: true });
        context.drawImage(canvas, 0, 0);
        return [...context.getImageData(0, 0, copy.width, copy.height).data];
    }"""
    return list(canvas.evaluate(script))


def wait_for(condition: Callable[[], Any]) -> Any:
    """What the condition gives, as soon as that is true."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found
