"""An exported page in Chromium, over a plain server of files: the command's own images, and nothing from elsewhere."""

import functools
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import platformdirs
import pytest
import torch
from PIL import Image

from tests.chromium import check_page, in_chromium
from tests.studio.pages import wait_for
from unnoise.data.pixels import from_uint8, to_uint8
from unnoise.diffusion.guidance import ClassGuidance
from unnoise.diffusion.inversion import interpolate
from unnoise.export.runtime import VERSION
from unnoise.export.webpage import MORPH_STEPS, export_webpage
from unnoise.figures import in_range
from unnoise.model import Model
from unnoise.restoration.operators import Mask
from unnoise.restoration.posteriors import DDNM
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError
from unnoise.utils.rng import stream

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = in_chromium

PATIENCE = 60_000  # milliseconds for whatever a slow machine computes


@pytest.fixture(scope="module")
def address(small_run: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a small run, served by nothing more than Python's own server of files."""
    kept = platformdirs.user_cache_path("unnoise") / f"onnxruntime-web-{VERSION}"
    out = tmp_path_factory.mktemp("page") / "digits"
    try:
        export_webpage(small_run.folder.path, out, runtime=kept if kept.is_dir() else None)
    except UserError as e:
        pytest.skip(str(e))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(out))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


Open = Callable[..., "Page"]


@pytest.fixture
def visit(address: str, chromium: "Browser") -> Iterator[Open]:
    """Opens a tab of the page; at the end there must have been no message, and no request to anywhere else."""
    contexts, messages, requests = [], list[str](), list[str]()

    def found(tab: str, **options: Any) -> "Page":
        contexts.append(chromium.new_context(**{"viewport": {"width": 1200, "height": 800}, **options}))
        contexts[-1].on("request", lambda request: requests.append(request.url))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(f"{address}/#{tab}")
        page.locator(".state[data-kind=ready]").wait_for()
        return page

    yield found
    for context in contexts:
        context.close()
    assert not messages
    assert requests and all(url.startswith((address, "data:", "blob:")) for url in requests)


@pytest.fixture(scope="module")
def model(small_run: Trainer) -> Model:
    return Model.load(small_run.folder.path, "cpu")


def shown(canvases: "Locator") -> np.ndarray:
    """The first channel of what canvases of 8x8 show, (N, 8, 8)."""
    script = """all => all.map((canvas) => {
      const copy = new OffscreenCanvas(8, 8).getContext("2d");
      copy.drawImage(canvas, 0, 0);
      return [...copy.getImageData(0, 0, 8, 8).data]; })"""
    return np.array(canvases.evaluate_all(script), dtype=int).reshape(-1, 8, 8, 4)[..., 0]


def check(canvases: "Locator", expected: np.ndarray) -> None:
    """That they come to show these to 2 of 255, and no images that would be equal anyhow."""
    truth = expected[..., 0].astype(int)
    wait_for(lambda: (found := shown(canvases)).shape == truth.shape and np.abs(found - truth).max() <= 2)
    assert expected.std() > 20


def start(page: "Page", tab: str, button: str, seed: int) -> None:
    """Begins a task with a seed, and waits until it is done."""
    panel = page.locator(f"#panel-{tab}")
    panel.get_by_label("Seed", exact=True).fill(str(seed))
    panel.get_by_role("button", name=button, exact=True).click()
    panel.locator("job-bar .row").wait_for(state="hidden")
    panel.get_by_text("Done in").wait_for()


def test_random_numbers(chromium: "Browser", address: str) -> None:
    """NumPy's to the bit: normal numbers, those of the tail among them, and whole ones."""
    page = chromium.new_page()
    page.goto(f"{address}/icon.svg")
    script = """async ([seed, purpose, number, count]) => {
      const { Stream } = await import("/rng.js");
      const classes = [...Array(100).keys()].map((k) => new Stream(seed, "label", k).below(7));
      return [[...new Stream(seed, purpose, number).normal(count)], classes]; }"""
    for seed, purpose, number, count in ((0, "sample", 0, 60_001), (2**53 + 1, "restore 3", 12, 1001)):
        normal, classes = page.evaluate(script, [str(seed), purpose, number, count])
        expected = stream(seed, purpose, number).standard_normal(count, dtype=np.float32)
        assert np.array_equal(np.array(normal, dtype=np.float32), expected)
        assert classes == [stream(seed, "label", k).integers(7) for k in range(100)]
    assert np.abs(stream(0, "sample", 0).standard_normal(60_001, dtype=np.float32)).max() > 3.66
    page.close()


def test_samples_and_their_trajectories(visit: Open, model: Model) -> None:
    """The command's images for a seed, at every step; guided ones of a class; variations."""
    page = visit("sample")
    grid = page.locator("#panel-sample image-grid canvas")
    page.get_by_role("spinbutton", name="Images").fill("5")
    start(page, "sample", "Sample", 12)
    images = model.sample(5, seed=12)
    check(grid, images)

    page.get_by_role("button", name=re.compile("Image 2")).click()
    slider = page.get_by_role("slider", name="From noise")
    records = list(model.trajectory(range(5), 12))
    assert slider.get_attribute("aria-valuetext") == "step 4 of 4"
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    twins = page.locator(".twins canvas")
    check(twins, np.stack([in_range(records[1].x)[1], to_uint8(records[1].x_hat)[1]]))

    page.get_by_role("button", name="Variations").click()
    page.get_by_text("Variations of image 2").wait_for()
    check(grid, to_uint8(model.image_to_image(from_uint8(images[1:2]), 0.5, range(5), 12)))

    page.get_by_label("Class").first.select_option("7")
    guidance = page.get_by_role("slider", name="Guidance")
    for _ in range(4):
        guidance.press("ArrowRight")
    assert guidance.get_attribute("aria-valuetext") == "2"
    start(page, "sample", "Sample", 3)
    sampling = replace(model.info.recipe.sampling, guidance=ClassGuidance(2.0))
    check(grid, model.sample(5, seed=3, label="7", sampling=sampling))


def test_morph(visit: Open, model: Model) -> None:
    """Those of `Model.sample_from_noise`; the slider shows one after the other."""
    page = visit("morph")
    panel = page.locator("#panel-morph")
    panel.get_by_text("Done in").wait_for()
    panel.get_by_label("From seed").fill("4")
    panel.get_by_label("to seed").fill("5")
    panel.get_by_role("button", name="Morph", exact=True).click()
    panel.locator("job-bar .row").wait_for()
    panel.locator("job-bar .row").wait_for(state="hidden")
    noises = interpolate([model.noise_of(0, 4), model.noise_of(0, 5)], 15)
    expected = to_uint8(model.sample_from_noise(noises, replace(model.info.recipe.sampling, steps=MORPH_STEPS)))
    check(panel.locator("image-grid canvas"), expected)
    slider = panel.get_by_role("slider")
    slider.press("End")
    assert np.array_equal(shown(panel.locator(".large canvas"))[0], shown(panel.locator("image-grid canvas"))[14])


@pytest.fixture
def own_image(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A PNG of 8x8, and its pixels (1, 8, 8, 1)."""
    pixels = (np.add.outer(np.arange(8), np.arange(8)) * 17).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "own.png")
    return tmp_path / "own.png", pixels[None, ..., None]


def test_inpaint(visit: Open, model: Model, own_image: tuple[Path, np.ndarray]) -> None:
    """Paint by keyboard, fill in: what `Model.restore` gives by DDNM."""
    page = visit("inpaint")
    panel = page.locator("#panel-inpaint")
    panel.locator("input[type=file]").set_input_files(own_image[0])
    image = panel.locator("mask-brush canvas").first
    while not np.array_equal(shown(image)[0], own_image[1][0, ..., 0]):
        page.wait_for_timeout(50)
    panel.get_by_role("button", name="Fill in").click()
    panel.get_by_text("Paint over what is missing first.").wait_for()
    panel.get_by_role("application").press(" ")
    start(page, "inpaint", "Fill in", 9)
    known = torch.ones(8, 8)  # the brush is a disc of 3 pixels, in the middle
    known[4, 3:6] = known[3:6, 4] = 0
    restored = model.restore(from_uint8(own_image[1]), Mask(known), method=DDNM(), samples=6, seed=9)
    check(panel.locator("image-grid canvas"), to_uint8(restored.samples[:, 0]))


def test_denoise(visit: Open, model: Model, own_image: tuple[Path, np.ndarray]) -> None:
    """One call, as `Restorer.denoise`; noise of the page's own raises no PSNR but the estimate does."""
    page = visit("denoise")
    panel = page.locator("#panel-denoise")
    panel.locator("input[type=file]").set_input_files(own_image[0])
    panel.get_by_text(re.compile(r"PSNR \d")).wait_for()
    panel.get_by_label("Add this much noise").uncheck()
    panel.get_by_text("PSNR").wait_for(state="detached")
    slider = panel.get_by_role("slider", name="Noise")
    sigma = 2 * (255 / 2) ** (float(slider.input_value()) / 100)
    after = panel.locator("canvas.after")
    expected = to_uint8(model.restorer().denoise(from_uint8(own_image[1]), sigma / 127.5))
    check(after, expected)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_every_tab_is_readable(visit: Open, scheme: Literal["light", "dark"], width: int) -> None:
    page = visit("sample", color_scheme=scheme, viewport={"width": width, "height": 800})
    page.get_by_text("Done in").wait_for()
    page.get_by_role("button", name=re.compile("Image 1,")).click()
    check_page(page, scheme)
    for tab in ("Morph", "Inpaint", "Denoise"):
        page.get_by_role("tab", name=tab).click()
        page.locator(f"#panel-{tab.lower()} canvas").first.wait_for()
        check_page(page, scheme)
