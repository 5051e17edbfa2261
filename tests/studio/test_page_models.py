"""The studio's page in Chromium, where it works with a model: learning, sampling and restoring as a person would."""

import re
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tests.chromium import in_chromium
from tests.studio.pages import Open, Server, pixels, wait_for

pytestmark = in_chromium


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
    wait_for(lambda: np.abs(np.subtract(pixels(image), pixels(estimate))).mean() < 8)
    assert slider.get_attribute("aria-valuetext") == "t = 0.001"
    clean = pixels(image)
    page.get_by_role("button", name="Another image").click()
    wait_for(lambda: pixels(image) != clean or None)


def test_learn_by_comparing_and_training(visit: Open) -> None:
    """Two settings give other images from the same noise; the small network's loss falls, and its trajectories move."""
    page = visit("learn")
    page.get_by_role("spinbutton", name="Steps").nth(1).fill("8")
    page.get_by_role("button", name="Sample both").click()
    page.get_by_text("Done.").first.wait_for()
    left, right = (page.get_by_role("group", name=side, exact=True).first.locator("canvas").first for side in ("Left", "Right"))
    wait_for(lambda: pixels(left) != pixels(right))
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
    wait_for(lambda: pixels(cloud) != trained)


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
    wait_for(lambda: page.locator("image-grid button:visible").count() == 4)
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
    wait_for(lambda: pixels(large) != final)
    page.get_by_role("button", name="Morph to another").click()
    page.get_by_role("button", name="Image 4", exact=True).click()
    page.get_by_text("From image 2 to image 4").wait_for()
    page.get_by_role("button", name="Image 1", exact=True).click()
    page.get_by_role("button", name="Variations").click()
    page.get_by_text("Variations of image 1").wait_for()
    start.click()
    page.get_by_text("Choose an image").wait_for()
    wait_for(lambda: pixels(first.locator("canvas")) == sampled)  # the same seed


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
    wait_for(lambda: border.get_attribute("aria-valuetext") == "100 % before")
    page.get_by_label("Show where it is in doubt").check()
    wait_for(lambda: page.locator("before-after .overlay").is_visible())
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
    wait_for(lambda: painted() == [17, 18, 19, 20])
    page.touchscreen.tap(*at(6, 6))
    wait_for(lambda: painted() == [17, 18, 19, 20, 54])
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    wait_for(lambda: painted() == [17, 18, 19, 20, 53, 54])
    page.get_by_role("button", name="Undo").click()
    layer.press("Control+z")
    wait_for(lambda: painted() == [17, 18, 19, 20])
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


def test_cancel(visit: Open, server: Server) -> None:
    """By its button, and by leaving the tab: the model is free within seconds."""
    page = visit("sample")
    busy = lambda: server.get("/api/status")["busy"]  # noqa: E731
    page.get_by_role("spinbutton", name="Images").fill("64")
    page.get_by_role("spinbutton", name="Steps").fill("1000")
    for leave in (page.get_by_role("button", name="Cancel"), page.get_by_role("tab", name="Watch")):
        page.get_by_role("button", name="Sample", exact=True).click()
        page.get_by_text("of 1000").wait_for()
        leave.and_(page.locator(":visible")).click()
        left = time.monotonic()
        wait_for(lambda: not busy())
        assert time.monotonic() - left < 5  # two on a quiet machine
