"""Trainings that the studio begins: processes of their own, which outlive it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from tests.studio.conftest import Browser, until
from unnoise.runs.lock import writing_process
from unnoise.studio.train import Training, Trainings


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def begin(runs: Path, port: int) -> "tuple[subprocess.Popen[bytes], Browser]":
    """A studio in a process of its own, as the command begins it."""
    process = subprocess.Popen([sys.executable, "-m", "unnoise", "studio", str(runs), "--port", str(port), "--no-browser"],
                               stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    line = next(line for line in map(bytes.decode, process.stdout) if "http://" in line)
    address = line.split(": ")[-1].strip()
    page = httpx2.get(address).text
    token = page.partition('name="token" content="')[2].partition('"')[0]
    return process, Browser(httpx2.Client(base_url=address, headers={"X-Unnoise-Token": token}, timeout=60))


def lines(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


@pytest.mark.slow
def test_a_training_outlives_the_studio(tmp_path: Path) -> None:
    """The studio is killed while it trains; the next one finds it, stops it, and goes on with it."""
    runs, port = tmp_path / "runs", free_port()
    process, browser = begin(runs, port)
    found = browser.post("/api/runs", data="digits", name="mine", minutes=5)
    assert found == {"name": "mine"} and browser.get("/api/runs")[0]["state"] == "starting"
    run = runs / "mine"
    until(lambda: lines(run) > 5, 90)
    process.kill()
    process.wait()
    before = lines(run)
    process, browser = begin(runs, port)
    try:
        (line,) = browser.get("/api/runs")
        assert (line["name"], line["state"]) == ("mine", "training")
        until(lambda: lines(run) > before + 5, 30)
        assert browser.refused("POST", "/api/runs/mine/resume", json={})[0] == 409
        browser.post("/api/runs/mine/stop")
        until(lambda: writing_process(run) is None, 60)
        step = browser.get("/api/runs")[0]["step"]
        assert browser.get("/api/runs")[0]["state"] == "stopped" and (run / "model.safetensors").is_file()
        browser.post("/api/runs/mine/resume")
        until(lambda: browser.get("/api/runs")[0]["step"] > step, 90)
        os.kill(writing_process(run) or 0, signal.SIGTERM)
        until(lambda: writing_process(run) is None, 60)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)


@pytest.mark.slow
def test_first_paint_and_a_taken_port(tmp_path: Path) -> None:
    port = free_port()
    process, browser = begin(tmp_path, port)
    second, other = begin(tmp_path, port)
    try:
        assert other.client.base_url.port == port + 1
        begun = time.perf_counter()
        assert other.client.get("/").status_code == 200
        assert time.perf_counter() - begun < 0.3
        assert browser.get("/api/status")["torch"] in ("loading", "ready")
    finally:
        for p in (process, second):
            p.send_signal(signal.SIGINT)
            p.wait(20)


@pytest.mark.slow
def test_why_a_training_failed(browser: Browser, tmp_path: Path) -> None:
    """Its sentence is shown in the list, until it is forgotten."""
    (tmp_path / "empty").mkdir()
    name = browser.post("/api/runs", data=str(tmp_path / "empty"), name="nothing")["name"]
    line = until(lambda: next((r for r in browser.get("/api/runs") if r["name"] == name and r["state"] == "failed"), None), 60)
    assert "no images in" in line["error"]
    assert browser.refused("DELETE", "/api/runs/digits")[0] == 409
    browser.delete(f"/api/runs/{name}")
    assert name not in [r["name"] for r in browser.get("/api/runs")]


def test_what_is_asked_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are absolute, so that none is read as an option."""
    began: list[list[str]] = []

    class Process:
        returncode = None

        def __init__(self, command: list[str], **how: object) -> None:
            assert how["start_new_session"]
            began.append(command)

        def poll(self) -> None: ...

    monkeypatch.setattr(subprocess, "Popen", Process)
    trainings = Trainings(tmp_path)
    for k in range(4):
        trainings.begin(f"run-{k}", "digits")
    with pytest.raises(ValueError, match="4 trainings go on already"):
        trainings.begin("run-4", "digits")
    assert began[0][1:] == ["-P", "-m", "unnoise", "train", "digits"]
    assert [run["state"] for run in trainings.pending()] == ["starting"] * 4


LOGS = [
    (2, "reading\nunnoise: no images in 'x'\n", "unnoise: no images in 'x'", "no images in 'x'"),
    (1, "Traceback (most recent call last):\n  File ...\nRuntimeError: it broke\n", "", "RuntimeError: it broke"),
    (0, "trained 5 steps", "", None), (-9, "", "", None), (130, "stopped", "", None),
]  # fmt: skip


@pytest.mark.parametrize(("status", "log", "_", "said"), LOGS, ids=[str(s) for s, *_ in LOGS])
def test_why_it_ended(tmp_path: Path, status: int, log: str, _: str, said: str | None) -> None:
    (tmp_path / "a.log").write_text(log)
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    process.returncode = status
    error = Training(process, tmp_path / "a.log", 0.0).error
    assert error is None if said is None else said in (error or "")


def test_names_that_are_taken(browser: Browser) -> None:
    status, said = browser.refused("POST", "/api/runs", json={"data": "digits", "name": "digits"})
    assert status == 409 and "choose another name" in said


def test_stopping_what_is_not_trained(browser: Browser) -> None:
    status, said = browser.refused("POST", "/api/runs/digits/stop", json={})
    assert status == 409 and "is not being trained" in said
    assert json.dumps(browser.get("/api/runs/digits")["state"]) == '"finished"'
