"""The studio's page in Chromium, each tab used as a person would."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.chromium import check_page, in_chromium
from unnoise.runs.lock import writing_process
from unnoise.runs.trainer import Trainer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = in_chromium

TABS = ("Learn", "Train", "Watch", "Sample", "Restore", "Report")
PATIENCE = 120_000  # milliseconds for whatever a slow machine computes


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


@pytest.fixture(scope="module")
def server(digits_run: Trainer, small_run: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Over two runs: one that has learned digits, and one that has hardly begun."""
    runs = tmp_path_factory.mktemp("runs")
    shutil.copytree(small_run.folder.path, runs / "small")
    shutil.copytree(digits_run.folder.path, runs / "digits")
    found = Server(runs)
    yield found
    found.kill()


Open = Callable[..., "Page"]


@pytest.fixture
def visit(server: Server, chromium: "Browser") -> Iterator[Open]:
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
        assert page.get_by_role("tab", name=name, exact=True).get_attribute("aria-selected") == "true"
        page.get_by_role("tabpanel", name=name).wait_for()


def test_learn_by_dragging(visit: Open) -> None:
    """Other pixels while the slider is dragged; at t = 0 the noisy image is the image, and its estimate too."""
    page = visit("learn")
    image, noisy, estimate = (page.locator(".quartet canvas").nth(k) for k in range(3))
    slider = page.get_by_role("slider", name="Time t")
    wait_for(lambda: len(set(pixels(noisy))) > 2)
    before, box = pixels(noisy), slider.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2, steps=5)
    wait_for(lambda: pixels(noisy) != before)
    page.mouse.up()
    slider.focus()
    page.keyboard.press("Home")
    wait_for(lambda: np.abs(np.subtract(pixels(image), pixels(noisy))).max() <= 8)  # sigma / alpha is 0.01 there
    assert np.abs(np.subtract(pixels(image), pixels(estimate))).mean() < 8
    assert slider.get_attribute("aria-valuetext") == "t = 0.001"
    page.get_by_role("button", name="Another image").click()
    clean = pixels(image)
    wait_for(lambda: pixels(image) != clean or None)


def test_learn_by_comparing_and_training(visit: Open) -> None:
    """Two settings give other images from the same noise; the small network's loss falls, and its trajectories move."""
    page = visit("learn")
    page.get_by_role("button", name="Sample both").click()
    page.get_by_text("Done.").first.wait_for()
    left, right = (page.get_by_role("group", name=side, exact=True).first.locator("canvas").first for side in ("Left", "Right"))
    assert pixels(left) != pixels(right)
    page.get_by_role("spinbutton", name="Seconds").fill("3")
    page.get_by_role("button", name="Train", exact=True).click()
    path = page.get_by_role("slider", name="Along the trajectories")
    path.wait_for()
    line = page.locator(".toy curve-plot path").get_attribute("d")
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", line or "")]
    assert np.mean(heights[-3:]) > np.mean(heights[:3])  # down the page
    cloud = page.locator("point-cloud canvas")
    trained = pixels(cloud)
    path.focus()
    page.keyboard.press("Home")
    assert pixels(cloud) != trained


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
    assert image.get_attribute("src") != last and image.get_attribute("alt") == "Samples at step 0"
    assert wait_for(lambda: image.evaluate("i => i.complete && i.naturalWidth > 0"))


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


def test_sample(visit: Open) -> None:
    """Images clear, can be downloaded, and one of them has a trajectory, neighbours, variations and a morph to another."""
    page = visit("sample")
    page.get_by_role("spinbutton", name="Images").fill("4")
    page.get_by_label("Class").select_option("7")
    page.get_by_role("spinbutton", name="Seed").fill("3")
    start = page.get_by_role("button", name="Sample", exact=True)
    start.click()
    first = page.get_by_role("button", name="Image 1", exact=True)
    page.locator("image-grid.ready").wait_for()
    assert page.locator("image-grid button:visible").count() == 4
    for name, beginning in (("PNG", b"\x89PNG"), ("npz", b"PK"), ("GIF", b"GIF8")):
        with page.expect_download() as download:
            page.get_by_role("link", name=name, exact=True).click()
        assert download.value.path().read_bytes().startswith(beginning)
    sampled = pixels(first.locator("canvas"))
    first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Image 2").wait_for()
    page.locator(".neighbours canvas").first.wait_for()
    slider = page.get_by_role("slider", name="From noise")
    large = page.locator(".large canvas")
    final = pixels(large)
    slider.focus()
    page.keyboard.press("Home")
    assert pixels(large) != final
    page.get_by_role("button", name="Morph to another").click()
    page.get_by_role("button", name="Image 4", exact=True).click()
    page.get_by_text("From image 2 to image 4").wait_for()
    page.get_by_role("button", name="Image 1", exact=True).click()
    page.get_by_role("button", name="Variations").click()
    page.get_by_text("Variations of image 1").wait_for()
    start.click()
    page.get_by_text("Choose an image").wait_for()
    assert pixels(first.locator("canvas")) == sampled  # the same seed


def test_restore_noise(visit: Open) -> None:
    """A clean image gets noise first; the PSNR rises, the border between before and after moves, the doubt can be shown."""
    page = visit("restore")
    page.get_by_role("button", name="Or an image of the run").click()
    page.get_by_label("The image is clean").check()
    page.get_by_label("Noise (sigma, of 255)").fill("50")
    page.get_by_role("button", name="Restore", exact=True).click()
    figures = page.locator(".figures")
    page.get_by_text("PSNR").wait_for()
    before, after = map(float, re.findall(r"([\d.]+) dB", figures.inner_text()))
    assert after > before + 1
    border = page.get_by_role("slider", name="Border")
    border.focus()
    page.keyboard.press("End")
    assert border.get_attribute("aria-valuetext") == "100 % before"
    page.get_by_label("Show where it is in doubt").check()
    assert page.locator("before-after .overlay").is_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert Image.open(download.value.path()).size == (8, 8)


def test_paint_and_inpaint(visit: Open, tmp_path: Path) -> None:
    """A mask is painted by mouse and by keyboard, undone, taken from a file; what was not painted stays."""
    page = visit("restore", has_touch=True)
    page.get_by_role("button", name="Or an image of the run").click()
    page.get_by_role("radio", name="Missing parts").check()
    layer = page.get_by_role("application", name="Paint what is missing")
    layer.wait_for()
    page.get_by_role("button", name="Restore", exact=True).click()
    page.get_by_text("Paint over what is missing first").wait_for()
    page.get_by_role("slider", name="Brush").fill("0")
    box = layer.bounding_box()
    assert box is not None
    at = lambda x, y: (box["x"] + (x + 0.5) * box["width"] / 8, box["y"] + (y + 0.5) * box["height"] / 8)  # noqa: E731
    painted = lambda: [k for k, alpha in enumerate(pixels(layer)[3::4]) if alpha]  # noqa: E731
    page.mouse.move(*at(1, 2))
    page.mouse.down()
    page.mouse.move(*at(4, 2), steps=2)
    page.mouse.up()
    assert painted() == [17, 18, 19, 20]
    page.touchscreen.tap(*at(6, 6))
    assert painted() == [17, 18, 19, 20, 54]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    assert painted() == [17, 18, 19, 20, 53, 54]
    page.get_by_role("button", name="Undo").click()
    layer.press("Control+z")
    assert painted() == [17, 18, 19, 20]
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[3:5, 3:5] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    page.locator(".mask input[type=file]").set_input_files(tmp_path / "mask.png")
    wait_for(lambda: painted() == [27, 28, 35, 36])
    shown = np.reshape(pixels(page.locator("mask-brush canvas").first), (8, 8, 4))
    page.get_by_role("button", name="Restore", exact=True).click()
    page.get_by_role("heading", name="Before and after").wait_for()
    after = np.reshape(pixels(page.locator("before-after .after")), (8, 8, 4))
    known = mask == 0
    assert np.abs(after.astype(int) - shown)[known].max() <= 3


def test_reports(visit: Open) -> None:
    page = visit("report")
    page.frame_locator("iframe").get_by_role("heading", name="digits").first.wait_for()
    page.get_by_label("Compared with").select_option("small")
    page.frame_locator("iframe[title='digits and small, compared']").get_by_text("small").first.wait_for()


def test_mistakes_are_sentences(visit: Open, tmp_path: Path) -> None:
    page = visit("train", excused="400 (Bad Request)")
    (tmp_path / "empty").mkdir()
    page.get_by_label("Or a path").fill(str(tmp_path / "empty"))
    page.get_by_role("button", name="Look at it").click()
    assert str(tmp_path / "empty") in page.get_by_role("alert").filter(has_text="empty").inner_text()
