"""Learning, sampling and restoring in the studio, against the functions of the library that do the same."""

import base64
import io
import json
import shutil
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from tests.studio.conftest import Browser
from unnoise.data.pixels import from_uint8, to_uint8
from unnoise.diffusion.schedules import SCHEDULES, add_noise
from unnoise.model import Model
from unnoise.studio.learn import TIMES, times
from unnoise.studio.results import nearest_images
from unnoise.studio.toy import SHAPES, Toy
from unnoise.utils import rng

if TYPE_CHECKING:
    from unnoise.studio.jobs import Job


def pixels(image: dict[str, Any]) -> np.ndarray:
    """uint8 (H, W, 4)."""
    return np.frombuffer(base64.b64decode(image["rgba"]), np.uint8).reshape(image["height"], image["width"], 4)


def grey(images: list[dict[str, Any]]) -> np.ndarray:
    """uint8 (N, H, W, 1)."""
    return np.stack([pixels(image)[..., :1] for image in images])


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model(runs: Path) -> Model:
    return Model.load(runs / "digits")


def test_samples_are_those_of_the_model(browser: Browser, model: Model) -> None:
    frames, end, number = browser.job("/api/sample", run="digits", count=4, seed=3, steps=5, sampler="ddim", label="7")
    truth = model.sample(4, seed=3, steps=5, sampler="ddim", label="7")
    assert np.array_equal(grey(end["images"]), truth)
    assert end["labels"] == ["7"] * 4 and frames[-1]["step"] == frames[-1]["total"] == 5
    assert np.array_equal(np.load(io.BytesIO(browser.get(f"/api/jobs/{number}/images.npz")))["images"], truth)
    grid = Image.open(io.BytesIO(browser.get(f"/api/jobs/{number}/grid.png")))
    assert grid.info["Software"] == "unnoise"
    assert Image.open(io.BytesIO(browser.get(f"/api/jobs/{number}/trajectory.gif"))).n_frames == 5  # type: ignore[attr-defined]


def test_a_trajectory_ends_in_its_sample(browser: Browser) -> None:
    _, end, number = browser.job("/api/sample", run="digits", count=3, steps=6)
    found = browser.get(f"/api/jobs/{number}/trajectory/1")["frames"]
    assert len(found) == 6 and np.array_equal(pixels(found[-1]), pixels(end["images"][1]))
    assert browser.refused("GET", f"/api/jobs/{number}/trajectory/3")[0] == 404


def test_guidance(browser: Browser, model: Model) -> None:
    how = {"run": "digits", "count": 2, "steps": 4, "label": "1"}
    plain, none, guided = (browser.job("/api/sample", **how, **more)[1] for more in ({}, {"guidance": 1}, {"guidance": 3}))
    assert np.array_equal(grey(plain["images"]), grey(none["images"]))
    truth = model.sample(2, label="1", sampling=model.info.sampling(steps=4, guidance=3))
    assert np.array_equal(grey(guided["images"]), truth) and not np.array_equal(truth, grey(plain["images"]))


def test_nearest_training_images(browser: Browser, model: Model) -> None:
    _, end, number = browser.job("/api/sample", run="digits", count=2, steps=6)
    found = browser.get(f"/api/jobs/{number}/nearest/0")["neighbours"]
    distances = [n["distance"] for n in found]
    assert distances == sorted(distances) and len(found) == 6
    difference = grey([end["images"][0]]).astype(float) - grey([found[0]["image"]]).astype(float)
    assert distances[0] == pytest.approx(np.sqrt(np.square(difference).mean()), rel=1e-5)


def test_nearest_images_against_all_distances() -> None:
    values = np.random.default_rng(0).integers(0, 256, (500, 4, 4, 1), dtype=np.uint8)
    found = nearest_images(values[17], [values[:100], values[100:130], values[130:]], 5)
    distances = np.sqrt(np.square(values.astype(float) - values[17].astype(float)).mean((1, 2, 3)))
    order = np.argsort(distances)[:5]
    assert [d for d, _ in found] == pytest.approx(distances[order].tolist(), rel=1e-5)
    assert np.array_equal([image for _, image in found], values[order])


def test_variations_and_what_lies_between(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unnoise.studio.sample.MORPH_STEPS", 25)
    _, end, number = browser.job("/api/sample", run="digits", count=2, steps=6)
    near, far = (
        browser.job("/api/sample", run="digits", count=3, steps=6, **{"from": {"job": number, "index": 1, "strength": s}})[1]
        for s in (0.05, 0.95)
    )
    original = grey([end["images"][1]]).astype(float)
    distances = [np.abs(grey(found["images"]).astype(float) - original).mean() for found in (near, far)]
    assert distances[0] < 15 < distances[1]
    _, between, _ = browser.job("/api/sample", run="digits", count=5, morph={"job": number, "a": 0, "b": 1})
    ends = grey(between["images"])[[0, -1]].astype(float)
    assert np.abs(ends - grey(end["images"]).astype(float)).mean() < 20


def test_samples_that_can_not_be(browser: Browser) -> None:
    names = {"sampler": "euler2", "label": "eleven"}
    assert "did you mean 'euler'" in browser.refused("POST", "/api/sample", json={"run": "digits", "sampler": "euler2"})[1]
    number = browser.post("/api/sample", run="digits", label=names["label"])["job"]
    name, data = list(browser.events(f"/api/jobs/{number}/events"))[-1]
    assert name == "error" and "unknown label 'eleven'" in data["error"]
    status, said = browser.refused("POST", "/api/sample", json={"run": "digits", "from": {"job": number, "index": 0}})
    assert status == 409 and "has no samples" in said


def test_an_image_under_noise(browser: Browser, model: Model) -> None:
    """x_t and the estimate are those of the library, on a training image and on one of the user's own."""
    index = 5
    found = browser.post("/api/learn/denoise", run="digits", image={"data": index}, t=0.01, seed=2)
    shown = browser.get(f"/api/runs/digits/data/{index}")
    x = from_uint8(pixels(shown["image"])[None, ..., :1])
    t = torch.tensor(0.01, dtype=torch.float64)
    x_t = add_noise(model.denoiser.schedule, x, t, rng.normal(rng.stream(2, "studio"), x.shape))
    with torch.no_grad():
        estimate = model.denoiser(x_t, t)
    assert np.array_equal(grey([found["estimate"]]), to_uint8(estimate))
    assert np.array_equal(grey([found["x_t"]]), to_uint8(x_t / x_t.abs().max().clamp(min=1)))
    assert found["sigma"] == pytest.approx(float(model.denoiser.schedule.sigma(t)))
    number = browser.upload(png(np.kron(pixels(shown["image"])[..., 0], np.ones((3, 3), np.uint8))))["id"]
    own = browser.post("/api/learn/denoise", run="digits", image={"upload": number}, t=0.01, seed=2)
    assert np.abs(grey([own["x"]]).astype(float) - grey([found["x"]]).astype(float)).mean() < 10


def test_colour_images_in_a_grey_run(browser: Browser) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    number = browser.upload(png(colours))["id"]
    found = browser.post("/api/learn/denoise", run="digits", image={"upload": number}, t=0.1, label="3")
    assert (found["x"]["width"], found["x"]["height"]) == (8, 8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_times_are_even_in_the_noise_level(name: str) -> None:
    schedule = SCHEDULES[name]()
    t = times(schedule)
    steps = schedule.ratio(t[:-1]).log().diff()
    assert len(t) == TIMES and float(t[-1]) == 1 and (t.diff() > 0).all()
    assert steps.max() / steps.min() < 1.05


def test_a_schedule(browser: Browser) -> None:
    found = browser.get("/api/learn/digits/schedule")
    assert len(found["t"]) == len(found["alpha"]) == len(found["sigma"]) == TIMES


def test_labels_of_an_image(browser: Browser) -> None:
    asked = {"run": "digits", "image": {"data": 0}, "t": 0.02}
    plain, labelled = (browser.post("/api/learn/denoise", **asked, **more) for more in ({}, {"label": "3"}))
    assert plain["x_t"] == labelled["x_t"] and plain["estimate"] != labelled["estimate"]
    assert "unknown label" in browser.refused("POST", "/api/learn/denoise", json={**asked, "label": "three"})[1]


def test_images_that_are_gone(browser: Browser, runs: Path, tmp_path: Path) -> None:
    """Sampling goes on without them."""
    gone = Path(shutil.copytree(runs / "digits", runs / "猫"))
    try:
        recipe = json.loads((gone / "recipe.json").read_text())
        recipe["recipe"]["data"]["source"] = {"name": "folder", "path": str(tmp_path / "gone")}
        (gone / "recipe.json").write_text(json.dumps(recipe))
        status, said = browser.refused("GET", "/api/runs/猫/data/0")
        assert status == 404 and "are not where they were" in said and said.endswith("an image of your own")
        number = browser.job("/api/sample", run="猫", count=1, steps=1)[2]
        assert browser.refused("GET", f"/api/jobs/{number}/nearest/0")[0] == 404
        assert browser.get(f"/api/jobs/{number}/grid.png").startswith(b"\x89PNG")
    finally:
        shutil.rmtree(gone)


def test_two_settings_side_by_side(browser: Browser, model: Model) -> None:
    frames, end, _ = browser.job(
        "/api/learn/compare", run="digits", seed=1, count=2, a={"steps": 2}, b={"steps": 9, "sampler": "heun"}
    )
    assert np.array_equal(grey(end["a"]), model.sample(2, seed=1, steps=2))
    assert np.array_equal(grey(end["b"]), model.sample(2, seed=1, steps=9, sampler="heun"))
    assert frames[-1]["step"] == frames[-1]["total"] == 11 and len(frames[-1]["a"]) == 2


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_lie_in_the_plane_that_is_shown(shape: str) -> None:
    points = Toy(shape, 0).data(2000, torch.Generator().manual_seed(0))
    assert points.shape == (2000, 2, 1, 1) and points.abs().max() < 2.2
    assert points.mean((0, 2, 3)).abs().max() < 0.6


def error(points: Any) -> float:
    """The mean distance from the circle."""
    return float(np.abs(np.linalg.norm(points, axis=1) - 1.5).mean())


def test_a_toy_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples come closer to the circle. By a clock of its own: 500 steps, on any machine."""
    frames: list[Any] = []

    class Watching:
        def show(self, step: int, total: int, frame: Any) -> None:
            frames.append(frame())

    monkeypatch.setattr("unnoise.studio.toy.time", SimpleNamespace(monotonic=count(0, 0.02).__next__))
    found = Toy("circle", 0).train(cast("Job", Watching()), 10)
    assert found.steps == pytest.approx(500, abs=2) and 15 <= len(frames) <= 20
    assert error(found.points) < 0.25 < error(frames[0]["points"])


def test_a_toy_in_the_page(browser: Browser) -> None:
    """Each trajectory ends where a sample is."""
    frames, end, _ = browser.job("/api/learn/toy", shape="circle", seconds=0.3)
    assert len(frames[0]["data"]) == 300 and error(frames[0]["data"]) < 0.05
    assert np.array_equal([trace[-1] for trace in end["trajectories"]], end["points"][:60])
    assert len(end["trajectories"][0]) == 21


RESTORED = [
    ("denoise", {"sigma": 60.0}, {}), ("salt-and-pepper", {}, {}), ("deblur", {}, {"width": 1.0}),
    ("deblur", {}, {"kind": "motion", "length": 3}), ("dejpeg", {}, {"quality": 20}),
]  # fmt: skip


@pytest.mark.parametrize(("task", "fields", "options"), RESTORED, ids=[f"{t} {o}" for t, _, o in RESTORED])
def test_restoring_raises_the_psnr(browser: Browser, task: str, fields: Any, options: Any) -> None:
    frames, end, _ = browser.job("/api/restore", run="digits", task=task, image={"data": 1}, degrade=True, samples=4,
                                 options=options, **fields)  # fmt: skip
    assert end["psnr"]["after"] > end["psnr"]["before"]
    assert pixels(end["after"]).shape == pixels(end["doubt"]).shape == pixels(end["before"]).shape
    assert frames and len(frames[-1]["images"]) == 1
    if task == "denoise":
        assert end["sigma"] == pytest.approx(60)


def test_an_image_of_unknown_noise(browser: Browser) -> None:
    """Its sigma is measured; the image may have any size: here six times six digits."""
    digits = [pixels(browser.get(f"/api/runs/digits/data/{k}")["image"])[..., 0] for k in range(36)]
    clean = np.block([digits[k : k + 6] for k in range(0, 36, 6)]).astype(float)
    noisy = clean + np.random.default_rng(0).normal(0, 20, clean.shape)
    number = browser.upload(png(noisy.clip(0, 255).round().astype(np.uint8)))["id"]
    _, end, _ = browser.job("/api/restore", run="digits", task="denoise", image={"upload": number}, samples=1)
    assert 7 < end["sigma"] < 30 and end["psnr"] is None
    assert (end["after"]["width"], end["after"]["height"]) == (48, 48)


def test_painting_a_mask(browser: Browser) -> None:
    """What is not painted stays as it is."""
    painted = np.zeros((8, 8), np.uint8)
    painted[2:5, 2:6] = 255
    mask = {"png": base64.b64encode(png(painted)).decode(), "width": 8, "height": 8}
    how = {"run": "digits", "task": "inpaint", "image": {"data": 0}, "degrade": True, "samples": 4}
    _, end, _ = browser.job("/api/restore", **how, mask=mask)
    clean = pixels(browser.get("/api/runs/digits/data/0")["image"])[..., 0].astype(int)
    assert np.abs(pixels(end["after"])[..., 0].astype(int) - clean)[painted == 0].mean() < 6
    assert end["psnr"]["after"] > end["psnr"]["before"]
    larger = {"png": base64.b64encode(png(painted.repeat(3, 0).repeat(3, 1))).decode()}
    assert browser.job("/api/restore", **how, mask=larger)[1]["after"] == end["after"], "painted over an enlarged image"
    number = browser.upload(png(painted))["id"]
    assert browser.job("/api/restore", **how, mask=number)[1]["after"] == end["after"]


MASKS = [({"png": "no base64!"}, "no base64"), ({}, "give one of them"), ("0" * 32, "is gone"),
         ({"png": base64.b64encode(b"<svg/>").decode()}, "kind SVG")]  # fmt: skip


@pytest.mark.parametrize(("mask", "said"), MASKS, ids=[s for _, s in MASKS])
def test_masks_that_are_none(browser: Browser, mask: Any, said: str) -> None:
    asked = {"run": "digits", "task": "inpaint", "image": {"data": 0}, "mask": mask}
    assert said in browser.refused("POST", "/api/restore", json=asked)[1]


def test_masks_that_do_not_fit(browser: Browser) -> None:
    empty = {"png": base64.b64encode(png(np.zeros((8, 8), np.uint8))).decode()}
    asked = {"run": "digits", "task": "inpaint", "image": {"data": 0}}
    said = browser.refused("POST", "/api/restore", json=asked | {"mask": empty})[1]
    assert "no pixel is missing in the mask given: make it white" in said
    large = browser.upload(png(np.eye(9, dtype=np.uint8) * 255))["id"]
    for mask, words in ((large, "9x9"), (None, "nothing is painted")):
        number = browser.post("/api/restore", **asked, **({"mask": mask} if mask else {}))["job"]
        name, data = list(browser.events(f"/api/jobs/{number}/events"))[-1]
        assert name == "error" and words in data["error"]


def test_restorations_that_can_not_be(browser: Browser) -> None:
    clean = browser.upload(png(np.full((16, 16), 128, np.uint8)))["id"]
    for task, image, words in (("denoise", {"upload": clean}, "no noise to speak of"), ("dejpeg", {"upload": clean}, "no JPEG"),
                               ("colourise", {"data": 0}, "grey images")):  # fmt: skip
        number = browser.post("/api/restore", run="digits", task=task, image=image)["job"]
        name, data = list(browser.events(f"/api/jobs/{number}/events"))[-1]
        assert name == "error" and words in data["error"], data
