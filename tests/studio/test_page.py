"""The studio's page in Chromium: every tab can be read by anyone, and runs are trained and watched as a person would."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.chromium import check_page, in_chromium
from tests.studio.pages import PATIENCE, Open, Server, wait_for
from unnoise.runs.lock import writing_process

pytestmark = in_chromium

TABS = ("Learn", "Train", "Watch", "Sample", "Restore", "Report")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_every_tab_is_readable(visit: Open, scheme: Literal["light", "dark"], width: int) -> None:
    page = visit("learn", color_scheme=scheme, viewport={"width": width, "height": 800})
    page.locator(".state[data-kind=ready]").wait_for()
    for name in TABS:
        page.get_by_role("tab", name=name, exact=True).click()
        page.locator("h1:visible").wait_for()
        if name == "Watch":
            page.locator("curve-plot:visible path").first.wait_for()
        check_page(page, scheme)


def test_tabs_by_keyboard(visit: Open) -> None:
    page = visit("learn")
    page.get_by_role("tab", name="Learn").focus()
    for name in (*TABS[1:], TABS[0]):
        page.keyboard.press("ArrowRight")
        page.get_by_role("tab", name=name, exact=True, selected=True).wait_for()
        page.get_by_role("tabpanel", name=name).wait_for()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # before the first has been answered
    page.get_by_role("tabpanel", name=TABS[2]).wait_for()


def test_training_outlives_the_server(visit: Open, server: Server) -> None:
    """Digits are trained from the page, the curve grows, the server is killed; the run goes on, and the page after it."""
    page = visit("train", excused="net::ERR")
    page.get_by_role("button", name="Digits").click()
    page.get_by_label("Name of the run").fill("mine")
    page.get_by_role("spinbutton", name="Minutes").fill("5")
    page.get_by_role("button", name="Start the training").click()
    page.get_by_role("heading", name="mine").wait_for()
    curve = page.locator("article curve-plot path").first
    first = wait_for(lambda: curve.count() and curve.get_attribute("d"))
    wait_for(lambda: curve.get_attribute("d") != first)
    training = psutil.Process(wait_for(lambda: writing_process(server.runs / "mine")))
    server.kill()
    page.get_by_role("alert").filter(has_text="Trainings go on without it").wait_for()
    size = (server.runs / "mine" / "metrics.jsonl").stat().st_size
    wait_for(lambda: (server.runs / "mine" / "metrics.jsonl").stat().st_size > size)
    assert training.is_running()
    server.start()
    page.locator(".state[data-kind=ready]").wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    page.locator("article .badge[data-state=stopped], article .badge[data-state=finished]").wait_for()
    training.wait(PATIENCE / 1000)


def test_watch_it_learn(visit: Open) -> None:
    page = visit("watch")
    slider = page.get_by_role("slider", name="Stage of the training")
    slider.wait_for()
    image = page.locator("article img.grid")
    last = image.get_attribute("src")
    slider.focus()
    page.keyboard.press("Home")
    wait_for(lambda: image.get_attribute("src") != last and image.get_attribute("alt") == "Samples at step 0")
    assert wait_for(lambda: image.evaluate("i => i.complete && i.naturalWidth > 0"))
    page.get_by_role("button", name="Resume").click()
    assert "how many minutes more" in page.get_by_role("alert").filter(has_text="end").inner_text()


def test_two_hours_in_a_moment(visit: Open, server: Server) -> None:
    """7,200 looks at a running training, one a second in truth, leave the page's memory as it was."""
    page = visit("watch", "small")
    page.locator("article curve-plot path").first.wait_for()
    state = next(run for run in server.get("/api/runs") if run["name"] == "digits")
    session = page.context.new_cdp_session(page)

    def watch(looks: range) -> float:
        """Memory after these looks, in bytes."""
        lines = [[{"step": 5 * look + k, "loss": 1 / (1 + look)} for k in range(5)] for look in looks]
        events = [("metrics", {"lines": [{"step": 0, "loss": 1.0}], "reset": not looks.start})]
        for look, five in zip(looks, lines, strict=True):
            events += [("metrics", {"lines": five}), ("state", state | {"step": 5 * look, "state": "training"})]
        body = "retry: 600000\n\n" + "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
        page.route("**/api/runs/digits/events", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
        page.evaluate("location.hash = 'watch/small'")
        page.get_by_role("heading", name="small").wait_for()
        page.evaluate("location.hash = 'watch/digits'")
        page.locator("dd").filter(has_text=f"{5 * looks[-1]:,}").wait_for()
        session.send("HeapProfiler.collectGarbage")
        return float(session.send("Runtime.getHeapUsage")["usedSize"])

    first = watch(range(600))
    assert watch(range(600, 7200)) < 1.1 * first


def test_a_hidden_page_is_silent(visit: Open, server: Server) -> None:
    """It keeps no connection, since a browser has six for all its windows; seen again, it goes on."""
    page = visit("watch")
    page.locator("article curve-plot path").first.wait_for()
    process = psutil.Process(server.process.pid)
    connected = lambda: any(c.status == psutil.CONN_ESTABLISHED for c in process.net_connections())  # noqa: E731
    wait_for(connected)
    hide = "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    wait_for(lambda: not connected())
    page.evaluate(hide, False)
    wait_for(connected)


def test_reports(visit: Open) -> None:
    page = visit("report")
    page.frame_locator("iframe").get_by_role("heading", name="digits").first.wait_for()
    page.get_by_label("Compared with").select_option("small")
    page.frame_locator("iframe[title='digits and small, compared']").get_by_text("small").first.wait_for()


def test_a_folder_is_chosen(visit: Open, tmp_path: Path) -> None:
    """Its images are counted and shown, its classes offered, and what is no image left out with the reason."""
    for k in range(6):
        place = tmp_path / "mine" / "ab"[k % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), 40 * k, dtype=np.uint8)).save(place / f"{k}.png")
    (tmp_path / "mine" / "notes.txt").write_text("hello")
    page = visit("train", excused="415 (Unsupported Media Type)")
    page.locator("file-drop:visible input[type=file]").set_input_files(tmp_path / "mine")
    page.get_by_role("heading", name="6 images found").wait_for()
    assert "“mine/notes.txt”: this is no image" in page.get_by_role("alert").filter(has_text="left out").inner_text()
    page.get_by_text("2 classes: a, b").wait_for()
    page.get_by_label("Learn the classes").wait_for()
    wait_for(lambda: page.locator(".sheet canvas").evaluate("c => c.width > 60"))


def test_mistakes_are_sentences(visit: Open, tmp_path: Path) -> None:
    page = visit("train", excused="400 (Bad Request)")
    (tmp_path / "empty").mkdir()
    page.get_by_label("Or a path").fill(str(tmp_path / "empty"))
    page.get_by_role("button", name="Look at it").click()
    assert str(tmp_path / "empty") in page.get_by_role("alert").filter(has_text="empty").inner_text()
