"""What the studio says of runs, from their folders alone."""

import json
import shutil
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.studio.conftest import Browser, Served, serve, until
from unnoise.run_folder import HOLDER
from unnoise.runs.lock import RunLock, writing_process
from unnoise.runs.trainer import Trainer
from unnoise.studio.tail import Tail, Thinned
from unnoise.studio.train import Trainings
from unnoise.studio.watch import Changes, Runs


def write(path: Path, *records: Any) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(r) + "\n" for r in records)


def test_a_tail_reads_each_line_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    tail = Tail(path)
    assert tail.read() == ([], False)
    write(path, {"step": 1, "loss": 0.5})
    assert tail.read() == ([{"step": 1, "loss": 0.5}], True)
    write(path, {"step": 2, "loss": float("nan")})
    with path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert tail.read() == ([{"step": 2, "loss": None}], False), "a line that is not ended waits"
    with path.open("a") as file:
        file.write('ss": 1}\nno json\n[1]\n{"loss": 1}\n{"step": "4"}\n' + "[" * 10**5 + "\n")
    assert tail.read() == ([{"step": 3, "loss": 1}], False)


def test_a_tail_sees_a_file_that_was_written_anew(tmp_path: Path) -> None:
    """As a run that is resumed does, from its checkpoint on."""
    path, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write(path, *({"step": k} for k in range(5)))
    tail = Tail(path)
    tail.read()
    write(other, {"step": 0}, {"step": 9})
    other.replace(path)
    assert tail.read() == ([{"step": 0}, {"step": 9}], True)
    path.unlink()
    assert tail.read() == ([], True)
    assert tail.read() == ([], False)


def test_a_line_without_an_end_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unnoise.studio.tail.PART", 2**21)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x" * (2**21 + 10))
    write(path, {"step": 1})
    tail = Tail(path)
    found = [tail.read()[0] for _ in range(4)]
    assert found[-1] == [] and sum(map(len, found)) <= 1


@pytest.mark.parametrize("count", [1, 1999, 2000, 4001, 123_456])
def test_thinned_curves_are_even_and_bounded(count: int) -> None:
    curve = Thinned(2000)
    for first in range(0, count, 1000):
        curve.add([{"step": k} for k in range(first, min(first + 1000, count))])
    steps = [p["step"] for p in curve.points]
    assert len(steps) <= 4000 and steps[0] == 0
    gaps = {b - a for a, b in pairwise(steps)}
    assert len(gaps) <= 1 and (count < 4000) == (gaps <= {1})


@pytest.fixture
def watched(digits_run: Trainer, tmp_path: Path) -> Path:
    """A copy of a run, in a folder of runs of its own."""
    return Path(shutil.copytree(digits_run.folder.path, tmp_path / "runs" / "digits"))


def runs_of(run: Path) -> Runs:
    return Runs(run.parent, Trainings(run.parent))


def test_a_line_of_the_list(watched: Path) -> None:
    (found,) = runs_of(watched).look()
    records = [json.loads(line) for line in (watched / "metrics.jsonl").read_text().splitlines()]
    assert (found["name"], found["state"], found["step"], found["total_steps"]) == ("digits", "finished", 400, 400)
    assert found["loss"] == pytest.approx(sum(r["loss"] for r in records[-50:]) / 50)
    assert (found["size"], found["channels"], found["data"]) == ([8, 8], 1, "digits")
    assert found["classes"] == [str(k) for k in range(10)] and found["error"] is None and found["seconds_left"] is None


def test_states(watched: Path) -> None:
    runs = runs_of(watched)
    lock = RunLock(watched)
    lock.acquire()
    assert runs.look()[0]["state"] == "training"
    lock.release()
    assert runs.look()[0]["state"] == "finished"
    lines = (watched / "metrics.jsonl").read_text().splitlines(keepends=True)
    (watched / "metrics.jsonl").write_text("".join(lines[:100]))
    assert runs.look()[0]["state"] == "stopped"
    (watched / "recipe.json").write_text("{")
    found = runs.look()[0]
    assert found["state"] == "damaged" and "recipe.json" in found["error"]


def test_a_killed_training_is_none(watched: Path) -> None:
    """It leaves its holder's file behind, also where its number is that of another process now."""
    (watched / HOLDER).write_text(json.dumps({"pid": 1, "host": "here"}))
    assert writing_process(watched) is None
    assert runs_of(watched).look()[0]["state"] == "finished"


def test_looking_does_not_stop_a_training_that_begins(watched: Path) -> None:
    """Looking takes the lock for a moment."""
    done = threading.Event()
    (watched / HOLDER).touch()

    def look() -> None:
        while not done.is_set():
            writing_process(watched)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            lock = RunLock(watched)
            lock.acquire()
            lock.release(failed=True)
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_changes_of_a_run(watched: Path) -> None:
    look = Changes(watched)
    first = dict(look())
    assert len(first["metrics"]["lines"]) == 400 and first["metrics"]["reset"]
    assert [s["step"] for s in first["samples"]["samples"]] == sorted(s["step"] for s in first["samples"]["samples"])
    assert look() == []
    write(watched / "metrics.jsonl", {"step": 401, "total": 800, "loss": 0.25, "images_per_second": 10})
    write(watched / "held-out.jsonl", {"step": 401, "loss": 0.125, "levels": [1, 2], "copy_rate": None})
    again = dict(look())
    assert again["metrics"] == {"lines": [{"step": 401, "loss": 0.25}], "reset": False}
    assert again["held_out"] == {"lines": [{"step": 401, "loss": 0.125, "copy_rate": None}], "reset": False}
    assert (again["state"]["step"], again["state"]["total_steps"]) == (401, 800)


def test_updates_arrive_within_two_seconds(watched: Path) -> None:
    """Over the network, as a browser gets them."""
    serving = serve(watched.parent)
    browser = next(serving).browser()
    arrived: dict[str, float] = {}

    def listen() -> None:
        for name, data in browser.events("/api/runs/digits/events"):
            arrived[f"{name} {data.get('reset')}"] = time.monotonic()
            if name == "metrics" and not data["reset"]:
                return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    until(lambda: "state None" in arrived)
    written = time.monotonic()
    write(watched / "metrics.jsonl", {"step": 401, "loss": 0.25})
    thread.join(10)
    assert arrived["metrics False"] - written < 2
    browser.client.close()
    next(serving, None)


def test_the_list_follows_the_folder(watched: Path) -> None:
    serving = serve(watched.parent)
    browser = next(serving).browser()
    lists = (data for name, data in browser.events("/api/runs/events"))
    assert [run["name"] for run in next(lists)] == ["digits"]
    shutil.copytree(watched, watched.with_name("other"))
    begun = time.monotonic()
    found = next(lists)
    assert {run["name"] for run in found} == {"digits", "other"} and time.monotonic() - begun < 2.5
    browser.client.close()
    next(serving, None)


def test_a_run_in_full(browser: Browser) -> None:
    found = browser.get("/api/runs/digits")
    assert found["sampling"]["sampler"] and found["sampling"]["steps"] >= 1
    assert found["recipe"]["network"]["widths"] == [32, 64] and found["evaluation"] is False
    grid = browser.get(found["samples"][-1]["url"])
    assert grid.startswith(b"\x89PNG")
    assert browser.refused("GET", "/api/runs/digits/samples/7.png")[0] == 404
    assert browser.refused("GET", "/api/runs/nothing")[0] == 404


def test_reports_and_comparisons(browser: Browser, runs: Path) -> None:
    page = browser.get("/api/runs/digits/report").decode()
    assert "Report card" in page and "http://" not in page.split("<body>")[0]
    shutil.copytree(runs / "digits", runs / "other")
    try:
        assert "digits" in browser.get("/api/compare?run=digits&run=other").decode()
        for query in ("", "?run=digits", "?run=digits&run=digits", "?" + "&".join(["run=digits"] * 9)):
            assert browser.refused("GET", f"/api/compare{query}")[0] == 400
    finally:
        shutil.rmtree(runs / "other")


def test_the_studio_ends_with_open_streams(studio: Served, tmp_path: Path) -> None:
    serving = serve(tmp_path)
    browser = next(serving).browser()
    next(browser.events("/api/runs/events"))
    begun = time.monotonic()
    next(serving, None)
    assert time.monotonic() - begun < 5
