"""A studio on a free port of this machine, with a run on digits, and a browser's manners."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import uvicorn

from tests.studio.pages import PATIENCE, Open, Server
from unnoise.runs.trainer import Trainer
from unnoise.studio.app import create_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser as Chromium
    from playwright.sync_api import Page

TOKEN = "Secret-of-the-tests"


@dataclass
class Browser:
    """Requests as the page makes them: errors are failures of the test, but for `refused`."""

    client: httpx2.Client

    def get(self, path: str, /) -> Any:
        return self._found(self.client.get(path))

    def post(self, path: str, /, **fields: Any) -> Any:
        return self._found(self.client.post(path, json=fields))

    def delete(self, path: str) -> Any:
        return self._found(self.client.delete(path))

    def upload(self, content: bytes) -> Any:
        return self._found(self.client.post("/api/uploads", content=content))

    def refused(self, method: str, path: str, **how: Any) -> tuple[int, str]:
        """The status and the sentence of a refusal."""
        answer = self.client.request(method, path, **how)
        assert answer.status_code >= 400, answer.text
        return answer.status_code, answer.json()["error"]

    def events(self, path: str) -> Iterator[tuple[str, Any]]:
        """Server-Sent Events, until the server ends them."""
        with self.client.stream("GET", path) as answer:
            assert answer.status_code == 200, answer.read()
            name = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield name, json.loads(line.removeprefix("data: "))

    def job(self, path: str, /, **fields: Any) -> tuple[list[Any], Any, str]:
        """The frames of a job, what it says at its end, and its id."""
        number = self.post(path, **fields)["job"]
        frames, end = [], None
        for name, data in self.events(f"/api/jobs/{number}/events"):
            assert name not in ("error", "cancelled"), data
            frames += [data] if name == "frame" else []
            end = data if name == "done" else end
        return frames, end, number

    def _found(self, answer: httpx2.Response) -> Any:
        assert answer.status_code == 200, answer.text
        return answer.json() if "json" in answer.headers["content-type"] else answer.content


@dataclass
class Served:
    """A studio that answers at `address`."""

    server: uvicorn.Server
    address: str

    def browser(self) -> Browser:
        return Browser(httpx2.Client(base_url=self.address, headers={"X-Unnoise-Token": TOKEN}, timeout=60))


def serve(runs: Path) -> Iterator[Served]:
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(runs, TOKEN)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
    thread.start()
    found = Served(server, f"http://127.0.0.1:{listening.getsockname()[1]}")
    httpx2.get(f"{found.address}/api/status")  # as the page does at once, after which torch is loaded
    yield found
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive(), "open streams keep the studio from ending"


@pytest.fixture(scope="session")
def runs(digits_run: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one on digits; not to be changed."""
    folder = tmp_path_factory.mktemp("studio") / "runs"
    shutil.copytree(digits_run.folder.path, folder / "digits")
    return folder


@pytest.fixture(scope="package")  # its jobs hook into every network of the process
def studio(runs: Path) -> Iterator[Served]:
    yield from serve(runs)


@pytest.fixture
def browser(studio: Served) -> Iterator[Browser]:
    found = studio.browser()
    yield found
    found.client.close()


def until(test: Any, seconds: float = 20.0) -> Any:
    """What `test` gives as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := test()):
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="session")
def server(digits_run: Trainer, small_run: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Over two runs: one that has learned digits, and one that has hardly begun."""
    runs = tmp_path_factory.mktemp("runs")
    shutil.copytree(small_run.folder.path, runs / "small")
    shutil.copytree(digits_run.folder.path, runs / "digits")
    found = Server(runs)
    yield found
    found.kill()


@pytest.fixture
def visit(server: Server, chromium: "Chromium") -> Iterator[Open]:
    """Opens the page at a tab; at the end there must have been no message but `excused` ones, and no request to elsewhere."""
    contexts, messages, requests = [], list[str](), list[str]()

    def found(where: str, run: str = "digits", excused: str = "", **options: Any) -> "Page":
        contexts.append(chromium.new_context(**{"viewport": {"width": 1200, "height": 800}, **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: messages.append(message.text) if not excused or excused not in message.text else None)
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{server.address}/#{where}/{run}")
        page.wait_for_selector("h1:visible")
        return page

    yield found
    for context in contexts:
        context.close()
    assert not messages
    assert all(url.startswith((server.address, "data:", "blob:")) for url in requests)
