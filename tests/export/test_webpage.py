"""A run as a web page: its files, what is refused, and in Chromium the command's own images."""

import functools
import hashlib
import http.server
import io
import json
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.error import URLError

import numpy as np
import platformdirs
import pytest
import torch
from PIL import Image

from tests.chromium import check_page, in_chromium
from tests.export.conftest import MakeRun
from unnoise.cli import main
from unnoise.data.pixels import from_uint8, to_uint8
from unnoise.diffusion.inversion import interpolate
from unnoise.export import runtime, webpage
from unnoise.export.webpage import COMPONENTS, PAGE, export_webpage, page_facts
from unnoise.figures import in_range
from unnoise.model import Model
from unnoise.restoration.operators import Mask
from unnoise.restoration.posteriors import DDNM
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError
from unnoise.utils.rng import stream

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

FILES = sorted(p for p in PAGE.rglob("*") if p.suffix in (".js", ".css", ".html"))
PATIENCE = 60_000  # milliseconds for whatever a slow machine computes
CONTENT = {name: f"of {name}".encode() for name in runtime.FILES}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in the place of onnxruntime-web, known by its hashes; and an empty cache."""
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    files = {name: (inside, hashlib.sha256(CONTENT[name]).hexdigest()) for name, (inside, _) in runtime.FILES.items()}
    monkeypatch.setattr(runtime, "FILES", files)
    others = {"README.md": b"read me"}
    return pack(tmp_path / "package.tgz", others | {inside: CONTENT[name] for name, (inside, _) in files.items()})


def test_the_runtime_is_fetched_once(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, said = list[str](), list[str]()

    def answer(url: str, timeout: float) -> io.BufferedReader:
        asked.append(url)
        return package.open("rb")

    monkeypatch.setattr(runtime, "urlopen", answer)
    assert runtime.runtime_files(say=said.append) == CONTENT == runtime.runtime_files(say=said.append)
    assert asked == [runtime.URL] and said == [f"fetching {runtime.PACKAGE} from npm's registry, once"]
    kept = next((package.parent / "cache").glob("onnxruntime-web-*/ort.wasm"))
    kept.write_bytes(b"damaged")
    assert runtime.runtime_files() == CONTENT and len(asked) == 2


def test_the_runtime_where_there_is_no_network(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence that says what to do; and it works with a package, its folder, and the files alone."""

    def refuse(url: str, timeout: float) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(runtime, "urlopen", refuse)
    with pytest.raises(UserError, match=r"can't be fetched \(no route to host\): fetch .*\.tgz on another machine.*`runtime`"):
        runtime.runtime_files()
    assert not (tmp_path / "cache").exists()
    for name, (inside, _) in runtime.FILES.items():
        for place in (tmp_path / "folder" / inside, tmp_path / "dist" / Path(inside).name, tmp_path / "page" / name):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(CONTENT[name])
    for given in (package, tmp_path / "folder", tmp_path / "dist", tmp_path / "page"):
        assert runtime.runtime_files(given) == CONTENT


def test_another_runtime_is_refused(package: Path, tmp_path: Path) -> None:
    (tmp_path / "text.tgz").write_text("no archive")
    (tmp_path / "short.tgz").write_bytes(package.read_bytes()[:-40])
    pack(tmp_path / "old.tgz", {inside: b"another version" for inside, _ in runtime.FILES.values()})
    for name, words in (("text", "can't be read"), ("short", "can't be read"), ("missing", "can't be read"),
                        ("old", f"has no .* of onnxruntime-web {runtime.VERSION}: give that version")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            runtime.runtime_files(tmp_path / f"{name}.tgz")
    with pytest.raises(UserError, match="has no"):
        runtime.runtime_files(tmp_path)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_nothing_from_elsewhere(path: Path) -> None:
    """No address but the page's own, nothing inline, no text that becomes markup or code; what is imported is there."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|[\"'(]//|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=\"", text)
    for name in re.findall(r'(?:from|import\() ?"([^"]+)"', text):
        place = (path.parent / name).resolve()
        inside = place.relative_to(PAGE.resolve())
        assert place.is_file() or (COMPONENTS / inside).is_file() or inside.name in runtime.FILES
    assert len(text.splitlines()) < 250


def test_what_the_page_is_told(make: MakeRun, small_run: Trainer) -> None:
    """Classes, guidance where there can be some, the recipe's own steps, and no more than a schedule has."""
    facts = page_facts(Model.load(small_run.folder.path, "cpu"))
    assert facts["classes"] == small_run.info.classes and facts["guidance"] == {"scale": 1, "low": 0, "high": 1e9, "rescale": 0}
    assert facts["start"]["from"] == "data" and facts["shape"] == (1, 8, 8)
    assert [*facts["sample"]] == [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50] and facts["steps"] == 4
    assert sum("step" in line for line in facts["sample"][12]["lines"]) == 12
    assert len(json.dumps(facts)) < 200_000
    never = page_facts(Model.load(make("never", classes=3, training__label_dropout=0), "cpu"))
    assert never["guidance"] is None and never["start"]["from"] == "noise"
    few = page_facts(Model.load(make("few", schedule="linear", schedule__timesteps=10, sampling__steps=7), "cpu"))
    assert [*few["sample"]] == [1, 2, 3, 4, 5, 6, 7, 8, 10] and few["guidance"] is None and few["classes"] == ()


def test_what_no_page_can_show(make: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """One sentence, nothing written."""
    model, out = Model.load(make("run"), "cpu"), tmp_path / "page"
    for shape, words in (((4, 8, 8), "4 channels"), ((3, 8, 1024), "8x1024 are too large")):
        other = replace(model, info=replace(model.info, shape=shape))
        monkeypatch.setattr(webpage.Model, "load", lambda *_, other=other: other)
        with pytest.raises(UserError, match=f"{words}.*choose format onnx"):
            export_webpage(tmp_path / "run", out)
    monkeypatch.undo()
    assert main(["export", str(tmp_path / "run"), "--out", str(out), "--format", "onnx", "--runtime", "x.tgz"]) == 2
    assert "--runtime is what runs the network in a web page, and onnx has none" in capsys.readouterr().err
    assert not out.exists()


def test_the_folder(small_run: Trainer, package: Path, tmp_path: Path, capsys: Any) -> None:
    """All that the page imports and fetches is in it, its size is said, and nothing is written over unasked."""
    out = tmp_path / "page"
    words = ["export", str(small_run.folder.path), "--format", "webpage", "--out", str(out), "--runtime", str(package)]
    assert main(words) == 0
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    assert f"{size / 1e6:.1f} MB, of which 0.0 are onnxruntime-web; the network agrees with torch to" in capsys.readouterr().out
    facts = json.loads((out / "model.json").read_text())
    assert {*facts["sizes"]} == {"runtime/ort.wasm", "denoiser.onnx", "start.bin"} and facts["dynamic_batch"]
    assert all((out / name).stat().st_size == bytes_ for name, bytes_ in facts["sizes"].items())
    moments = small_run.folder.read_moments()
    assert moments is not None
    start = np.fromfile(out / "start.bin", "<f4")
    assert start[0] == moments.residual_std and np.array_equal(start[1:65], moments.mean.flatten())
    assert np.array_equal(start[65:], moments.basis.flatten())
    assert "MIT License" in (out / "runtime" / "LICENSE").read_text()
    assert {p.name for p in (out / "components").iterdir()} == {p.name for p in (COMPONENTS / "components").iterdir()}
    assert main(words) == 2 and "is there already" in capsys.readouterr().err


# In Chromium


@pytest.fixture(scope="module")
def address(small_run: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a small run, served by nothing more than Python's own server of files."""
    kept = platformdirs.user_cache_path("unnoise") / f"onnxruntime-web-{runtime.VERSION}"
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
    script = "all => all.map(c => [...c.getContext('2d').getImageData(0, 0, 8, 8).data])"
    return np.array(canvases.evaluate_all(script), dtype=int).reshape(-1, 8, 8, 4)[..., 0]


def check(found: np.ndarray, expected: np.ndarray, different: float = 2) -> None:
    """Equal to 2 of 255, and no images that would be equal anyhow."""
    assert found.shape == expected.shape[:3] and np.abs(found - expected[..., 0].astype(int)).max() <= 2
    assert expected.std() > 20


def start(page: "Page", tab: str, button: str, seed: int) -> None:
    """Begins a task with a seed, and waits until it is done."""
    panel = page.locator(f"#panel-{tab}")
    panel.get_by_label("Seed", exact=True).fill(str(seed))
    panel.get_by_role("button", name=button, exact=True).click()
    panel.locator("job-bar .row").wait_for(state="hidden")
    panel.get_by_text("Done in").wait_for()


@pytest.mark.slow
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


@pytest.mark.slow
def test_samples_and_their_trajectories(visit: Open, model: Model) -> None:
    """The command's images for a seed, at every step; guided ones of a class; variations."""
    page = visit("sample")
    grid = page.locator("#panel-sample image-grid canvas")
    page.get_by_label("Images").fill("5")
    start(page, "sample", "Sample", 12)
    images = model.sample(5, seed=12)
    check(shown(grid), images)

    page.get_by_role("button", name=re.compile("Image 2")).click()
    slider = page.get_by_role("slider", name="From noise")
    records = list(model.trajectory(range(5), 12))
    assert slider.get_attribute("aria-valuetext") == "step 4 of 4"
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    twins = page.locator(".twins canvas")
    check(shown(twins), np.stack([in_range(records[1].x)[1], to_uint8(records[1].x_hat)[1]]))

    page.get_by_role("button", name="Variations").click()
    page.get_by_text("Variations of image 2").wait_for()
    check(shown(grid), to_uint8(model.image_to_image(from_uint8(images[1:2]), 0.5, range(5), 12)))

    page.get_by_label("Class").first.select_option("7")
    guidance = page.get_by_role("slider", name="Guidance")
    for _ in range(4):
        guidance.press("ArrowRight")
    assert guidance.get_attribute("aria-valuetext") == "2"
    start(page, "sample", "Sample", 3)
    sampling = replace(model.info.recipe.sampling, guidance=webpage.ClassGuidance(2.0))
    check(shown(grid), model.sample(5, seed=3, label="7", sampling=sampling))


@pytest.mark.slow
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
    expected = to_uint8(model.sample_from_noise(noises, replace(model.info.recipe.sampling, steps=webpage.MORPH_STEPS)))
    check(shown(panel.locator("image-grid canvas")), expected)
    slider = panel.get_by_role("slider")
    slider.press("End")
    assert np.array_equal(shown(panel.locator(".large canvas"))[0], shown(panel.locator("image-grid canvas"))[14])


@pytest.fixture
def own_image(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A PNG of 8x8, and its pixels (1, 8, 8, 1)."""
    pixels = (np.add.outer(np.arange(8), np.arange(8)) * 17).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "own.png")
    return tmp_path / "own.png", pixels[None, ..., None]


@pytest.mark.slow
def test_inpaint(visit: Open, model: Model, own_image: tuple[Path, np.ndarray]) -> None:
    """Paint by keyboard, fill in: what `Model.restore` gives by DDNM."""
    page = visit("inpaint")
    panel = page.locator("#panel-inpaint")
    panel.locator("input[type=file]").set_input_files(own_image[0])
    page.wait_for_function("document.querySelector('#panel-inpaint mask-brush canvas').getContext('2d').getImageData(7, 7, 1, 1).data[0] === 238")
    panel.get_by_role("button", name="Fill in").click()
    panel.get_by_text("Paint over what is missing first.").wait_for()
    panel.get_by_role("application").press(" ")
    start(page, "inpaint", "Fill in", 9)
    known = torch.ones(8, 8)
    known[3:6, 3:6] = 0  # the brush is 3 pixels wide, in the middle
    restored = model.restore(from_uint8(own_image[1]), Mask(known), method=DDNM(), samples=6, seed=9)
    check(shown(panel.locator("image-grid canvas")), to_uint8(restored.samples[:, 0]))


@pytest.mark.slow
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
    check(shown(after), expected)
    page.locator("body").press("Tab")


@pytest.mark.slow
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
