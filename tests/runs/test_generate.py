"""Samples on disk: each can be generated again, and a generation that stopped goes on."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.launch import finish, launch
from unnoise.data.labels import labels_for
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.model import Model
from unnoise.runs.generate import Generation, generate, regenerate
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError


@pytest.fixture(scope="module")
def model(small_run: Trainer) -> Model:
    return Model.load(small_run.folder.path)


def generation(model: Model, **changes: object) -> Generation:
    """Ten images of seed 3, in batches of four."""
    return replace(Generation.of(model, 10, 3, 4, model.info.recipe.sampling), **changes)  # type: ignore[arg-type]


def test_generated_again_bit_for_bit(model: Model, tmp_path: Path) -> None:
    assert list(generate(model, generation(model), tmp_path / "out")) == [4, 8, 10]
    for index in (0, 5, 9):
        image = tmp_path / "out" / f"{index:06d}.png"
        again, same = regenerate(model, image)
        assert same and np.array_equal(again[..., 0], np.asarray(Image.open(image)))
    text = json.loads(Image.open(image).info["unnoise"])
    assert (text["index"], text["seed"], text["sampling"]["steps"]) == (9, 3, 4)
    assert json.loads((tmp_path / "out" / "generation.json").read_text()) == {k: v for k, v in text.items() if k != "index"}
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "other.png")
    with pytest.raises(UserError, match="does not say how it was generated"):
        regenerate(model, tmp_path / "other.png")


@pytest.mark.parametrize("label", ["7", "all"])
def test_generated_again_with_its_label(model: Model, tmp_path: Path, label: str) -> None:
    list(generate(model, generation(model, label=label), tmp_path / "out"))
    image = tmp_path / "out" / "000006.png"
    again, same = regenerate(model, image)
    assert same and json.loads(Image.open(image).info["unnoise"])["label"] == label
    assert np.array_equal(again, model.sample(10, 3, batch=4, label=label)[6])


def test_other_weights_are_refused(model: Model, tmp_path: Path) -> None:
    list(generate(model, generation(model, weights="0" * 16), tmp_path / "out"))
    with pytest.raises(UserError, match="other weights"):
        regenerate(model, tmp_path / "out" / "000000.png")


@pytest.mark.parametrize("name", ["out", "out.npz"])
def test_what_was_generated_is_kept(model: Model, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after two of three batches: only the third is made when it goes on; with another seed, all of them."""
    made: list[int] = []
    run = Generation.run

    def spy(self: Generation, model: Model, k: int) -> np.ndarray:
        made.append(k)
        return run(self, model, k)

    monkeypatch.setattr(Generation, "run", spy)
    for done in generate(model, generation(model), tmp_path / name):
        if done == 8:
            break
    assert made == [0, 1] and not (tmp_path / "out.npz").exists()
    list(generate(model, generation(model), tmp_path / name))
    assert made == [0, 1, 2]
    if name == "out":
        list(generate(model, generation(model, count=12), tmp_path / name))  # more of the same: the batch that grew
        assert made == [0, 1, 2, 2] and len(list((tmp_path / name).glob("*.png"))) == 12
        list(generate(model, generation(model, seed=4), tmp_path / name, overwrite=True))
        assert made[4:] == [0, 1, 2] and len(list((tmp_path / name).glob("*.png"))) == 10
    else:
        found = np.load(tmp_path / name)["images"]
        assert np.array_equal(found, model.sample(10, 3, batch=4))
        assert not (tmp_path / "out.npz.parts").exists()
        again, written = generation(model), (tmp_path / name).stat().st_mtime_ns
        assert list(generate(model, again, tmp_path / name)) == [10] and made == [0, 1, 2]
        (parts := tmp_path / "out.npz.parts").mkdir()  # as a kill leaves it
        (parts / "generation.json").write_text(json.dumps(asdict(again)))
        assert list(generate(model, again, tmp_path / name)) == [10] and not parts.exists()
        assert (tmp_path / name).stat().st_mtime_ns == written
        with pytest.raises(UserError, match="not generated with these settings"):
            list(generate(model, generation(model, seed=4), tmp_path / name))


@pytest.mark.parametrize("there", ["another generation", "another's images", "an array"])
def test_nothing_is_written_over_unasked(model: Model, tmp_path: Path, there: str) -> None:
    out = tmp_path / ("out.npz" if there == "an array" else "out")
    if there == "another generation":
        list(generate(model, generation(model, weights="0" * 16, count=3), out))
    elif there == "an array":
        np.savez(out, images=np.zeros((2, 8, 8), np.uint8))
    else:
        out.mkdir()
        (out / "000001.png").write_bytes(b"a user's own")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=r"is there already.*choose another `out`, or `overwrite` it"):
        list(generate(model, generation(model), out))
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    list(generate(model, generation(model), out, overwrite=True))
    assert len(np.load(out)["images"] if there == "an array" else list(out.glob("*.png"))) == 10


def test_labels(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """One class for all, each in turn, or drawn; a name that does not exist is answered with the nearest."""
    seen: list[list[int]] = []
    sample_batch = Model.sample_batch

    def spy(self: Model, indices: range, seed: int, sampling: SamplingConfig, label: torch.Tensor) -> torch.Tensor:
        seen.append(label.tolist())
        return sample_batch(self, indices, seed, sampling, label)

    monkeypatch.setattr(Model, "sample_batch", spy)
    for label in ("7", "all", None):
        generation(model, label=label).run(model, 1)
    drawn = labels_for(None, model.info.classes, range(4, 8), seed=3)
    assert drawn is not None and seen == [[7] * 4, [4, 5, 6, 7], drawn.tolist()]
    with pytest.raises(UserError, match="unknown label '77': did you mean '7'"):
        generation(model, label="77").run(model, 1)


@pytest.mark.slow
def test_two_processes_generate_what_one_does(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.folder is not None
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    process = launch(
        "unnoise", "sample", str(model.folder.path), "-n", "10", "--batch", "4", "--seed", "3", "--out", str(tmp_path / "a.npz")
    )
    printed = finish(process)
    assert process.returncode == 0, printed
    found = np.load(tmp_path / "a.npz")["images"].astype(int)
    assert np.abs(found - model.sample(10, 3, batch=4).astype(int)).max() <= 1  # another number of threads
