"""ImageDataset on the disk: each can be drawn again, and a drawing that stopped goes on."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.test_distributed import finish, launch
from tests.training.test_loop import quiet, small
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.model import Model
from unnoise.runs.generate import Drawing, draw_to, plan_drawing, redraw
from unnoise.runs.start import begin
from unnoise.utils.errors import UserError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("gallery") / "run"
    list(begin(folder, small(training__steps=12), quiet).train())
    yield Model.load(folder)


def drawing(model: Model, **changes: object) -> Drawing:
    return replace(plan_drawing(model, 10, 3, 4, model.info.recipe.sampling), **changes)  # type: ignore[arg-type]


def test_drawn_again_bit_for_bit(model: Model, tmp_path: Path) -> None:
    assert list(draw_to(model, drawing(model), tmp_path / "out")) == [4, 8, 10]
    for number in (0, 5, 9):
        image = tmp_path / "out" / f"{number:06d}.png"
        again, same = redraw(model, image)
        assert same and np.array_equal(again[..., 0], np.asarray(Image.open(image)))
    told = json.loads(Image.open(image).info["unnoise"])
    assert (told["number"], told["seed"], told["sampling"]["steps"]) == (9, 3, 4)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "other.png")
    with pytest.raises(UserError, match="does not say how it was drawn"):
        redraw(model, tmp_path / "other.png")


def test_other_weights_are_refused(model: Model, tmp_path: Path) -> None:
    list(draw_to(model, drawing(model, weights="0" * 16), tmp_path / "out"))
    with pytest.raises(UserError, match="other weights"):
        redraw(model, tmp_path / "out" / "000000.png")


@pytest.mark.parametrize("name", ["out", "out.npz"])
def test_what_was_drawn_is_kept(model: Model, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after two of three batches: only the third is drawn when it goes on; with another seed, all of them."""
    drawn: list[int] = []
    draw = Drawing.draw

    def spy(self: Drawing, model: Model, k: int) -> np.ndarray:
        drawn.append(k)
        return draw(self, model, k)

    monkeypatch.setattr(Drawing, "draw", spy)
    for done in draw_to(model, drawing(model), tmp_path / name):
        if done == 8:
            break
    assert drawn == [0, 1] and not (tmp_path / "out.npz").exists()
    list(draw_to(model, drawing(model), tmp_path / name))
    assert drawn == [0, 1, 2]
    if name == "out":
        list(draw_to(model, drawing(model, count=12), tmp_path / name))  # more of the same: the batch that grew
        assert drawn == [0, 1, 2, 2] and len(list((tmp_path / name).glob("*.png"))) == 12
        list(draw_to(model, drawing(model, seed=4), tmp_path / name))
        assert drawn[4:] == [0, 1, 2] and len(list((tmp_path / name).glob("*.png"))) == 10
    else:
        found = np.load(tmp_path / name)["images"]
        assert np.array_equal(found, np.concatenate(list(model.draw(10, 3, 4))))
        assert not (tmp_path / "out.npz.micro_batches").exists()


def test_labels(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """One class for all, or one after the other; a name that does not exist is answered with the nearest."""
    seen: list[torch.Tensor | None] = []
    sample = Model.sample

    def spy(self: Model, numbers: range, seed: int, sampling: SamplingConfig, label: torch.Tensor | None) -> torch.Tensor:
        seen.append(label)
        return sample(self, numbers, seed, sampling, label)

    monkeypatch.setattr(Model, "sample", spy)
    for label in (None, 7, -1):
        drawing(model, label=label).draw(model, 1)
    drawn, one, every = seen
    assert drawn is None and one is not None and every is not None
    assert one.tolist() == [7] * 4 and every.tolist() == [4, 5, 6, 7]
    assert model.label_of("7") == 7
    with pytest.raises(UserError, match="unknown label '77': did you mean '7'"):
        model.label_of("77")


def test_two_processes_draw_what_one_does(model: Model, tmp_path: Path) -> None:
    assert model.folder is not None
    process = launch(
        "unnoise", "sample", str(model.folder), "-n", "10", "--batch", "4", "--seed", "3", "--out", str(tmp_path / "a.npz")
    )
    said = finish(process)
    assert process.returncode == 0, said
    found = np.load(tmp_path / "a.npz")["images"].astype(int)
    assert np.abs(found - np.concatenate(list(model.draw(10, 3, 4))).astype(int)).max() <= 1  # another number of threads
