"""Evaluations of runs, from Python and by the command."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unnoise as un
from tests.cli.conftest import call
from tests.conftest import small
from tests.launch import finish, launch
from unnoise.evaluation.copying import Copying
from unnoise.evaluation.measures import MEASURES
from unnoise.evaluation.result import Evaluation
from unnoise.runs import evaluate as module
from unnoise.runs.evaluated import evaluated_before
from unnoise.runs.trainer import Trainer


@pytest.fixture
def run(small_run: Trainer, tmp_path: Path) -> Path:
    """A run to be evaluated."""
    shutil.copytree(small_run.folder.path, tmp_path / "run")
    return tmp_path / "run"


def test_what_is_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command's JSON is what is in the run folder, and is found again from what was kept."""
    assert call("evaluate", run, "-n", 110, "--features", "pixels", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((run / "evaluation.json").read_text())
    assert (shown["n"], shown["real"], shown["features"], shown["seed"]) == (110, 110, "pixels", 0)
    assert list(shown["measures"]) == [f"{name} (pixels)" for name in MEASURES]
    for result in shown["measures"].values():
        assert result["low"] <= result["value"] <= result["high"]
    kid = shown["measures"]["kid (pixels)"]
    assert kid["low"] > kid["floor"]  # a network of 12 steps is no good
    assert shown["copying"]["verdict"].startswith("no sign of copying") and shown["copying"]["rate"] == 0
    assert Image.open(run / "evaluation-nearest.png").width > 4 * 128
    bits, terms = shown["bits_per_dim"], shown["likelihood"]
    assert bits == terms["bits_per_dim"] == pytest.approx(sum(terms[t] for t in ("prior", "diffusion", "reconstruction")))
    assert 3 < bits < 9 and terms["low"] < bits < terms["high"] and abs(terms["training"] - bits) < 0.3 and terms["n"] == 100
    assert list(shown["per_class"]) == list(map(str, range(10)))
    assert sum(of["n"] for of in shown["per_class"].values()) == 110
    seen: list[int] = []
    again = un.evaluate(run, n=110, features="pixels", on_progress=seen.append)
    assert again.to_json() == shown
    assert sum(seen) == module.prepare(run, n=110, features="pixels").total
    assert un.evaluate(un.load(run), n=110, features="pixels", seed=1).to_json()["measures"] != shown["measures"]


@pytest.mark.slow
def test_nothing_is_made_twice(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = un.evaluate(run, n=40)
    assert first.features == "classifier"
    monkeypatch.setattr("unnoise.runs.generate.Generation.run", None)
    monkeypatch.setattr("unnoise.evaluation.features.classifier_features", None)
    assert un.evaluate(run, n=40).to_json() == first.to_json()


def test_what_was_found_is_shown_again(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command, computing nothing; but not of other weights, another number of samples, or what is damaged."""
    asked = ("evaluate", run, "-n", 25, "--features", "pixels")
    computed: list[int] = []
    plain = module.Job.run
    monkeypatch.setattr(module.Job, "run", lambda self, advance: computed.append(self.generation.count) or plain(self, advance))  # type: ignore[func-returns-value]
    shown = []
    for _ in range(2):
        assert call(*asked) == 0
        shown.append(capsys.readouterr().out)
    assert computed == [25] and shown[0] == shown[1] and "bits per dimension" in shown[0] and "class '3': recog" in shown[0]
    found = json.loads((run / "evaluation.json").read_text())
    assert Evaluation.from_json(found).to_json() == found
    assert call(*asked[:3], 26, *asked[4:]) == 0 and computed == [25, 26]
    (run / "guide.safetensors").unlink()  # what samples may depend on
    assert call(*asked[:3], 26, *asked[4:]) == 0 and computed == [25, 26, 26]
    found = json.loads((run / "evaluation.json").read_text())
    for damaged in ('{"key": 1}', json.dumps(found | {"likelihood": 3}), json.dumps(found | {"per_class": 3})):
        (run / "evaluation.json").write_text(damaged)
        assert evaluated_before(run, 26, "pixels", 0) is None
    (run / "evaluation.json").write_text(json.dumps(found))
    again = evaluated_before(run, 26, "pixels", 0)
    assert again is not None and again.to_json() == found


def test_shown_again_without_torch() -> None:
    code = "import sys, unnoise.runs.evaluated; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.slow
def test_processes_share_an_evaluation(run: Path) -> None:
    """And find what one finds."""
    alone = un.evaluate(run, n=300, features="pixels").to_json()
    shutil.rmtree(run / "evaluation")
    (run / "evaluation.json").unlink()
    finish(launch("unnoise", "evaluate", str(run), "-n", "300", "--features", "pixels"))
    shared = json.loads((run / "evaluation.json").read_text())
    for name, result in alone["measures"].items():
        assert shared["measures"][name]["value"] == pytest.approx(result["value"], abs=2e-3)
    assert shared["copying"]["verdict"] == alone["copying"]["verdict"]


def test_the_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measures that need more images are named with what to read instead."""
    assert call("evaluate", run, "-n", 30, "--features", "pixels") == 0
    out = capsys.readouterr().out
    assert "30 samples against 30 images that the run never saw" in out and "kid (pixels)" in out
    assert "30 samples and held-out images are too few for some measures: " in out and "frechet (65)" in out and "read kid" in out
    assert "no sign of copying" in out and "evaluation.json" in out
    found = un.evaluate(run, n=10, features="pixels")
    assert not found.measures and "only copying can be judged" in found.notes[0]


def test_a_lookup_run_copies(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = module.prepare(run, n=60, features="pixels")
    monkeypatch.setattr(module.Job, "_samples", lambda self, advance: self.train.pixels[:60])
    found = job.run(lambda _: None)
    assert isinstance(found.copying, Copying) and found.copying.pixels.rate == 1
    assert found.table().count("it copies: 100.0% of the samples") == 1
    assert np.array_equal(found.copying.suspicious, found.copying.nearest)


def test_images_from_elsewhere(run: Path, tmp_path: Path) -> None:
    """Those that were trained on are left out; the run's own at another place are split as it split them."""
    own = small().data.load()
    np.savez(tmp_path / "own.npz", images=own.pixels)
    job = module.prepare(run, data=str(tmp_path / "own.npz"), n=20)
    assert set(job.held_out.hashes) <= set(own.hashes) - set(job.train.hashes) and len(job.held_out) == 20
    other = np.random.default_rng(0).integers(0, 256, (25, 8, 8, 1), dtype=np.uint8)
    assert len(module.prepare(run, data=other, n=40).held_out) == 25
    assert len(module.prepare(run, data=un.ImageDataset(own.pixels, own.labels, own.classes), n=20).train) == len(job.train)


def test_what_cannot_be(run: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    train = module.prepare(run, n=20).train
    np.savez(tmp_path / "seen.npz", images=train.pixels[:30])
    np.savez(tmp_path / "large.npz", images=np.zeros((9, 28, 28, 1), np.uint8))
    assert "all in --data were trained on" in refused("evaluate", run, "--data", tmp_path / "seen.npz")
    assert "28x28x1" in refused("evaluate", run, "--data", tmp_path / "large.npz")
    assert "fewer than the 10 classes" in refused("evaluate", run, "-n", 9)
    assert "choose --n at most so" in refused("evaluate", run, "-n", 10_000)
    assert "did you mean 'pixels'" in refused("evaluate", run, "--features", "pixel")
    assert call("evaluate", run, "-n", 12, "--features", "pixels") == 0
    kept = next((run / "evaluation").glob("features-*.npy"))
    for content in (b"", kept.read_bytes()[:-9], b"\x93NUMPY"):
        kept.write_bytes(content)
        (run / "evaluation.json").unlink(missing_ok=True)  # which would be shown again
        assert "is damaged: remove it" in refused("evaluate", run, "-n", 12, "--features", "pixels")


def test_runs_without_held_out_images(run: Path, refused: Callable[..., str]) -> None:
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["recipe"]["data"]["held_out"] = 0.0
    (run / "recipe.json").write_text(json.dumps(recipe))
    assert "no images that the run never saw" in refused("evaluate", run)
