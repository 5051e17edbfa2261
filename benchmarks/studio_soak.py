"""What the studio takes: first paint, memory over a thousand requests and over a long watch, the slider's latency.

    python benchmarks/studio_soak.py                    # prints a line a figure; a few minutes
    python benchmarks/studio_soak.py --requests 100

The studio runs in a process of its own, as `unnoise studio` begins it, on a folder with one run on images of 28x28. A training is
imitated by a process that appends lines to its log: 7,200 in two minutes, as many as one a second for two hours.
"""

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx2
import numpy as np
import psutil

from unnoise.presets import PRESETS
from unnoise.recipe import override
from unnoise.runs.start import begin

SECONDS, LINES = 120, 7200  # of the watch


def make_run(folder: Path, images: Path) -> None:
    """A run on 600 images of 28x28, a few steps long."""
    np.save(images, np.random.default_rng(0).integers(0, 256, (600, 28, 28), dtype=np.uint8))
    changes = {"training.steps": 20, "training.minutes": None, "training.batch": 16}
    recipe = override(PRESETS["fashion-mnist"], {"data.source": {"name": "array", "path": str(images)}, **changes})
    trainer = begin(folder, recipe)
    list(trainer.train())
    trainer.finish()


def start(runs: Path) -> tuple[psutil.Process, httpx2.Client, float]:
    """The studio, a client with its token, and the seconds that its first page took once it listened."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    command = [sys.executable, "-m", "unnoise", "studio", str(runs), "--port", str(port), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().split(": ")[-1].strip()
    begun = time.perf_counter()
    with httpx2.Client(base_url=address) as first:
        page = first.get("/").text
        first.get("/api/status")
    seconds = time.perf_counter() - begun
    token = page.partition('name="token" content="')[2].partition('"')[0]
    return psutil.Process(process.pid), httpx2.Client(base_url=address, headers={"X-Unnoise-Token": token}, timeout=120), seconds


def mib(process: psutil.Process) -> float:
    return process.memory_info().rss / 2**20


def denoise(client: httpx2.Client, k: int) -> float:
    """The seconds that the slider waits for its pixels."""
    begun = time.perf_counter()
    asked = {"run": "run", "image": {"data": k % 7}, "t": (k % 100 + 1) / 101, "seed": k}
    client.post("/api/learn/denoise", json=asked).raise_for_status()
    return time.perf_counter() - begun


def one_of_all(client: httpx2.Client, k: int) -> None:
    """A request, of another kind each time; each tenth is a job."""
    if k % 10 == 0:
        number = client.post("/api/sample", json={"run": "run", "count": 8, "steps": 3, "seed": k}).json()["job"]
        with client.stream("GET", f"/api/jobs/{number}/events") as answer:
            assert "event: done" in "".join(answer.iter_text())
        client.get(f"/api/jobs/{number}/grid.png").raise_for_status()
    elif k % 10 < 5:
        denoise(client, k)
    else:
        paths = ("/", "/api/status", "/api/runs", "/api/runs/run", "/api/learn/run/schedule")
        client.get(paths[k % 5]).raise_for_status()


def watch(client: httpx2.Client, run: Path, process: psutil.Process) -> tuple[float, float, int]:
    """Memory a tenth into a watch and at its end, and the lines that arrived."""
    arrived, early = 0, 0.0

    def grow() -> None:
        for k in range(LINES):
            with (run / "metrics.jsonl").open("a") as file:
                record = {"step": 21 + k, "total": LINES + 20, "loss": 1 / (k + 1), "images_per_second": 100.0}
                file.write(json.dumps(record) + "\n")
            time.sleep(SECONDS / LINES)

    writer = threading.Thread(target=grow, daemon=True)
    writer.start()
    begun = time.perf_counter()
    with client.stream("GET", "/api/runs/run/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("data: ") and '"lines"' in line:
                arrived += line.count('"step"')
            if not early and time.perf_counter() - begun > SECONDS / 10:
                early = mib(process)
            if not writer.is_alive() and time.perf_counter() - begun > SECONDS + 3:
                break
    return early, mib(process), arrived


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    count = parser.parse_args().requests
    folder = Path(tempfile.mkdtemp())
    run = folder / "runs" / "run"
    make_run(run, folder / "images.npy")
    process, client, seconds = start(folder / "runs")
    try:
        print(f"first page and status, once it listens: {1000 * seconds:.0f} ms", flush=True)
        begun = time.perf_counter()
        client.get("/api/runs").raise_for_status()
        print(f"torch loaded, runs listed: {time.perf_counter() - begun:.1f} s later", flush=True)
        times = [denoise(client, k) for k in range(60)][10:]
        print(f"slider at 28x28: median {1000 * statistics.median(times):.0f} ms, largest {1000 * max(times):.0f} ms", flush=True)
        for k in range(count // 5):
            one_of_all(client, k)
        before = mib(process)
        for k in range(count):
            one_of_all(client, k)
        after = mib(process)
        print(f"resident after {count // 5} requests {before:.0f} MiB, after {count} more {after:.0f} MiB "
              f"({100 * (after / before - 1):+.1f} %)", flush=True)  # fmt: skip
        early, late, arrived = watch(client, run, process)
        print(
            f"watching {arrived} new lines: {early:.0f} MiB early, {late:.0f} MiB at the end ({100 * (late / early - 1):+.1f} %)"
        )
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
