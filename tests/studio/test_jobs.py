"""The queue: its length, its order, and what happens to jobs that nobody wants any more."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
import torch
from torch import nn

from tests.studio.conftest import TOKEN, Browser, Served, until
from unnoise.studio import jobs as jobs_module
from unnoise.studio.errors import Refusal
from unnoise.studio.jobs import MOST, Job, Jobs
from unnoise.utils.errors import UserError


class Nothing:
    nbytes = 0

    def to_json(self) -> dict[str, Any]:
        return {"ok": True}


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    found = asyncio.new_event_loop()
    thread = threading.Thread(target=found.run_forever, daemon=True)
    thread.start()
    yield found
    found.call_soon_threadsafe(found.stop)
    thread.join()
    found.close()


@pytest.fixture
def queue(loop: asyncio.AbstractEventLoop) -> Iterator[Jobs]:
    found = Jobs(loop)
    yield found
    found.close()


def watch(job: Job, loop: asyncio.AbstractEventLoop) -> "list[bytes]":
    async def collect() -> list[bytes]:
        return [event async for event in job.watch()]

    return asyncio.run_coroutine_threadsafe(collect(), loop).result(10)


def test_jobs_run_in_order_one_at_a_time(queue: Jobs, loop: asyncio.AbstractEventLoop) -> None:
    order, inside = [], []

    def work(k: int) -> Nothing:
        inside.append(k)
        assert len(inside) == 1
        order.append(k)
        time.sleep(0.01)
        inside.pop()
        return Nothing()

    made = [queue.add(lambda _, k=k: work(k)) for k in range(8)]  # type: ignore[misc]
    assert [watch(job, loop)[-1] for job in made] == [b'event: done\ndata: {"ok":true}\n\n'] * 8
    assert order == list(range(8))


def test_the_queue_is_full_at_twenty(queue: Jobs, loop: asyncio.AbstractEventLoop) -> None:
    free = threading.Event()

    def work(_: Job) -> Nothing:
        free.wait(10)
        return Nothing()

    made = [queue.add(work) for _ in range(MOST)]
    with pytest.raises(Refusal, match="20 jobs wait already") as refused:
        queue.add(work)
    assert refused.value.status == 429
    assert [job.position for job in made] == list(range(MOST)) or made[1].position == 1
    free.set()
    for job in made:
        watch(job, loop)
    assert {job.state for job in made} == {"done"}, "none is lost"
    queue.add(work)


def test_errors_are_sentences(queue: Jobs, loop: asyncio.AbstractEventLoop) -> None:
    def refuse(_: Job) -> Nothing:
        raise UserError("choose another")

    def fail(_: Job) -> Nothing:
        raise RuntimeError("out of memory")

    assert watch(queue.add(refuse), loop)[-1] == b'event: error\ndata: {"error":"choose another"}\n\n'
    assert b"this failed (RuntimeError: out of memory)" in watch(queue.add(fail), loop)[-1]
    assert watch(queue.add(lambda _: Nothing()), loop)[-1].startswith(b"event: done")


def test_a_job_is_cancelled_within_a_call_of_the_network(queue: Jobs, loop: asyncio.AbstractEventLoop) -> None:
    """Before the next layer, so that calls of any length end soon."""

    class Slow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.02)
            return x

    network, seen = nn.Sequential(*(Slow() for _ in range(1000))), threading.Event()

    def work(_: Job) -> Nothing:
        seen.set()
        network(torch.zeros(1))
        return Nothing()

    job = queue.add(work)
    assert seen.wait(5)
    network[0](torch.zeros(1))  # of another thread, which no job concerns
    job.cancel()
    begun = time.monotonic()
    assert watch(job, loop)[-1].startswith(b"event: cancelled")
    assert time.monotonic() - begun < 1


def test_a_job_that_nobody_opened_is_dropped(queue: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "UNWATCHED", 0.1)

    def work(job: Job) -> Nothing:
        for _ in range(500):
            time.sleep(0.01)
            job.check()
        return Nothing()

    job = queue.add(work)
    until(lambda: job.is_over, 5)
    assert job.state == "cancelled"


def test_results_are_bounded_by_number_and_bytes(
    queue: Jobs, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "KEPT", 3)
    monkeypatch.setattr(jobs_module, "KEPT_BYTES", 250)

    class Large(Nothing):
        nbytes = 100

    made = [queue.add(lambda _: Large()) for _ in range(5)]
    for job in made:
        watch(job, loop)
    until(lambda: not queue.busy)
    kept = []
    for job in made:
        try:
            kept.append(queue.find(job.id))
        except Refusal as e:
            assert e.status == 404
    assert kept == made[-2:]


def test_slow_readers_get_the_newest_frame(queue: Jobs, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with what was not read."""
    monkeypatch.setattr(jobs_module, "FRAMES_PER_SECOND", 1e9)

    def work(job: Job) -> Nothing:
        for k in range(100):
            job.show(k + 1, 100, dict)
        return Nothing()

    job = queue.add(work)
    until(lambda: job.is_over)
    events = watch(job, loop)
    assert [e for e in events if b"frame" in e] == [b'event: frame\ndata: {"step":100,"total":100}\n\n']


def test_thirty_requests_at_once(studio: Served) -> None:
    """The extra ones are refused at once, and none of the others is lost."""

    def ask(k: int) -> tuple[int, float, str]:
        with httpx2.Client(base_url=studio.address, headers={"X-Unnoise-Token": TOKEN}, timeout=60) as client:
            begun = time.monotonic()
            answer = client.post("/api/sample", json={"run": "digits", "count": 4, "steps": 8, "seed": k})
            return answer.status_code, time.monotonic() - begun, answer.json().get("job", "")

    browser = studio.browser()
    browser.job("/api/sample", run="digits", count=1, steps=1)  # the model is loaded
    blocker = browser.post("/api/learn/toy", seconds=3)["job"]
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(ask, range(30)))
    taken, refused = ([a for a in answers if a[0] == status] for status in (200, 429))
    assert (len(taken), len(refused)) == (MOST - 1, 30 - MOST + 1)
    assert max(seconds for _, seconds, _ in refused) < 1
    browser.delete(f"/api/jobs/{blocker}")
    for _, _, number in taken:
        assert list(browser.events(f"/api/jobs/{number}/events"))[-1][0] == "done"


def test_a_closed_page_ends_its_job(studio: Served) -> None:
    """Within two seconds, as the page that comes next is answered."""
    browser = studio.browser()
    number = browser.post("/api/sample", run="digits", count=64, steps=1000)["job"]
    for name, _ in browser.events(f"/api/jobs/{number}/events"):
        if name == "frame":
            break
    left = time.monotonic()
    until(lambda: not browser.get("/api/status")["busy"], 5)
    assert time.monotonic() - left < 2
    assert list(browser.events(f"/api/jobs/{number}/events"))[-1][0] == "cancelled"


def test_cancelling_says_so(studio: Served) -> None:
    browser, other = studio.browser(), studio.browser()
    number = browser.post("/api/sample", run="digits", count=64, steps=1000)["job"]
    names = []
    for name, _ in browser.events(f"/api/jobs/{number}/events"):
        names.append(name)
        if name == "frame":
            other.delete(f"/api/jobs/{number}")
    assert names[-1] == "cancelled"


def test_jobs_that_are_gone(browser: Browser) -> None:
    for path in ("events", "grid.png", "images.npz", "trajectory.gif", "trajectory/0", "nearest/0"):
        status, said = browser.refused("GET", f"/api/jobs/0000/{path}")
        assert status == 404 and "begin it again" in said
