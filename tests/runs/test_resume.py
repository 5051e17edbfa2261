"""Going on: to another end, from another place, one process at a time, and with another run's weights."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import quiet, small
from unnoise.data.folder import ImageFolder
from unnoise.recipe import Recipe
from unnoise.run_folder import RunFolder
from unnoise.runs.places import run_name
from unnoise.runs.resume import resume
from unnoise.runs.start import begin
from unnoise.runs.trainer import Trainer
from unnoise.utils.atomic import read_records
from unnoise.utils.errors import UserError


def rates(folder: Path) -> list[float]:
    return [r["learning_rate"] for r in read_records(folder / "metrics.jsonl")]


def trained(folder: Path, recipe: Recipe, stop: int = 10**9) -> Trainer:
    run = begin(folder, recipe, quiet)
    for record in (records := run.train()):
        if record.step == stop:
            records.close()
            break
    return run


def test_beyond_its_end_the_rate_rises_anew_and_falls(tmp_path: Path) -> None:
    trained(tmp_path, small(training__steps=10, training__warmup=0))
    said: list[str] = []
    again = resume(tmp_path, said.append, steps=30)
    assert [r.step for r in again.train()] == [*range(11, 31)]
    assert "the learning rate had begun to fall: it rises again, and falls at the new end" in said
    expected = [1] * 12 + [1 - k / 8 for k in range(8)]
    assert rates(tmp_path)[10:] == pytest.approx([1e-3 * v for v in expected])
    info = RunFolder.open(tmp_path).read_info()
    assert (info.total_steps, info.recipe.training.steps, info.extended_at, info.rise_from) == (30, 30, 10, 10)


def test_before_the_rate_has_fallen_another_end_is_as_if_planned(tmp_path: Path) -> None:
    """Bit for bit, the averages too."""
    trained(tmp_path / "whole", small(training__steps=20))
    trained(tmp_path / "broken", small(training__steps=10), stop=5)
    list(resume(tmp_path / "broken", quiet, steps=20).train())
    for name in ("model.safetensors", "checkpoints/000020/model.safetensors", "checkpoints/000020/optimizer.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes(), name


@pytest.mark.parametrize("stop", [10, 12, 25])
def test_an_extended_run_resumes_exactly(tmp_path: Path, stop: int) -> None:
    """Stopped before its first new step (only recipe.json knows of the new end), in the new rise and in the new fall."""
    trained(tmp_path / "whole", small(training__steps=10))
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    list(resume(tmp_path / "whole", quiet, steps=30).train())
    run = resume(tmp_path / "broken", quiet, steps=30)
    if stop > 10:
        for record in (records := run.train()):
            if record.step == stop:
                records.close()
                break
    run.lock.release()
    again = resume(tmp_path / "broken", quiet)
    assert again.state.step == stop and [r.step for r in again.train()] == [*range(stop + 1, 31)]
    assert rates(tmp_path / "whole") == rates(tmp_path / "broken")
    name = "checkpoints/000030/model.safetensors"
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


def test_an_early_end_is_reached_by_a_fall_from_here(tmp_path: Path) -> None:
    """50 of 100 steps done, the rate still at its peak: with 60 in all it would have been falling since step 36."""
    trained(tmp_path, small(training__steps=100), stop=50)
    list(resume(tmp_path, quiet, steps=60).train())
    assert rates(tmp_path)[49:] == pytest.approx([1e-3, *(1e-3 * (1 - k / 10) for k in range(10))])


def test_more_minutes(tmp_path: Path) -> None:
    trained(tmp_path, small(training__steps=4))
    again = resume(tmp_path, quiet, minutes=0.15)
    list(again.train())
    info = RunFolder.open(tmp_path).read_info()
    assert again.state.step > 4 and info.total_steps == again.state.step and info.recipe.training.steps is None


def test_an_end_that_lies_behind_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, small(training__steps=4))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="has done 4 steps already"):
        resume(tmp_path, quiet, steps=4)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_a_budget_of_time_keeps_its_number_of_steps(tmp_path: Path) -> None:
    """What was measured after the last checkpoint is in recipe.json; a kill does not start the minutes over."""
    trained(tmp_path, small(training__minutes=60.0), stop=6)
    folder = RunFolder.open(tmp_path)
    dataclasses.replace(folder.read_info(), total_steps=777).save(folder.recipe)
    assert resume(tmp_path, quiet).state.total == 777


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    for k, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{k}.png")
    return folder


@pytest.mark.parametrize("absolute", [True, False])
def test_run_and_images_move_together(tmp_path: Path, photos: Path, absolute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trained(Path("runs/r"), photos_recipe(photos if absolute else Path("photos")), stop=2)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(tmp_path / "runs", moved / "runs")
    shutil.move(photos, moved / "photos")
    monkeypatch.chdir("/")
    assert resume(moved / "runs" / "r", quiet).state.step == 2


def test_images_at_another_place_are_checked_and_remembered(tmp_path: Path, photos: Path) -> None:
    trained(tmp_path / "r", photos_recipe(photos), stop=2)
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    shutil.move(photos, tmp_path / "away")
    with pytest.raises(UserError, match=f"are not where they were, in '{photos}': say where they are with `data`"):
        resume(tmp_path / "r", quiet)
    Image.new("RGB", (8, 8)).save(other / "0.png")
    with pytest.raises(UserError, match=f"the data '{other}' is not what .* was trained on: say where that is with `data`"):
        resume(tmp_path / "r", quiet, data=other)
    resume(tmp_path / "r", quiet, data=tmp_path / "away").lock.release()
    assert resume(tmp_path / "r", quiet).state.step == 2


@pytest.mark.parametrize(("package", "module"), [("pillow-heif", "pillow_heif"), ("tifffile", "tifffile")])
def test_a_decoder_that_comes_or_goes_is_named(
    tmp_path: Path, photos: Path, package: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why the images are others than the run was trained on, and what to do; whichever way round."""
    reader = pytest.importorskip(module)
    if package == "tifffile":
        reader.imwrite(photos / "a.tif", np.zeros((3, 8, 8), np.uint16), photometric="rgb", planarconfig="separate")
    else:
        reader.register_heif_opener()
        Image.new("RGB", (8, 8), "red").save(photos / "a.heic")
    with pytest.MonkeyPatch.context() as without:
        without.setitem(sys.modules, module, None)
        trained(tmp_path / "r", photos_recipe(photos), stop=2)
    words = rf"was trained on: it was without the images that {package} reads \(1\), .*: uninstall that, or begin a new run"
    with pytest.raises(UserError, match=words):
        resume(tmp_path / "r", quiet)
    trained(tmp_path / "all", photos_recipe(photos), stop=2)
    monkeypatch.setitem(sys.modules, module, None)
    assert resume(tmp_path / "r", quiet).state.step == 2
    with pytest.raises(UserError, match=r"was trained on: not all of it is read here, .*: .*pip install 'unnoise\["):
        resume(tmp_path / "all", quiet)


def photos_recipe(path: Path) -> Recipe:
    return small(training__steps=4, data__size=[8, 8], data__source=ImageFolder(str(path)))


NAMES = [("photos", "photos"), ("a/b.npz", "b"), ("hf:owner/cats", "cats"), ("x-{000..099}.tar", "x--000..099"), ("/", "images"),
         (".", "here"), ("../here/.", "here"), ("häuser", "häuser")]  # fmt: skip


@pytest.mark.parametrize(("images", "name"), NAMES)
def test_names_of_runs(images: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run_name(images) == name and run_name("..") == tmp_path.name


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """The second is told who trains; a lock that its process left by dying is no obstacle."""
    trained(tmp_path, small(training__steps=4), stop=2)
    code = (f"import time; from unnoise.runs.resume import resume; run = resume({str(tmp_path)!r}); print('held', flush=True); "
            "time.sleep(99)")  # fmt: skip
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ)
    assert holder.stdout is not None
    try:
        assert any(line == "held\n" for line in holder.stdout)
        with pytest.raises(UserError, match=f"is being written by process {holder.pid} on "):
            resume(tmp_path, quiet)
    finally:
        holder.kill()
        holder.wait()
    assert len(list(resume(tmp_path, quiet).train())) == 2


def test_a_run_begins_with_anothers_weights(tmp_path: Path) -> None:
    """With the same classes all of them; with others what belongs to a class is left out, and that is said."""
    first = trained(tmp_path / "a", small(training__steps=4, training__learning_rate=0.1))
    weights = load_file(tmp_path / "a" / "model.safetensors")
    again = begin(tmp_path / "b", small(training__steps=2), quiet, from_run=tmp_path / "a")
    for state in (again.state.model.state_dict(), again.state.average.state_dict()):
        assert all(torch.equal(state[name], weights[name]) for name in state)
    assert json.loads((tmp_path / "b" / "recipe.json").read_text())["from_run"] == "a"
    assert first.info.classes
    said: list[str] = []
    other = begin(tmp_path / "c", small(training__steps=2, data__labels=False), said.append, from_run=tmp_path / "a")
    state = other.state.model.state_dict()
    assert all(torch.equal(state[name], weights[name]) for name in state) and len(state) < len(weights) - 2
    pixels = np.tile(np.arange(9, dtype=np.uint8)[:, None, None], (1, 8, 8))
    np.savez(tmp_path / "two.npz", images=pixels, labels=np.arange(9) % 2)
    source = {"name": "array", "path": str(tmp_path / "two.npz")}
    two = begin(tmp_path / "d", small(training__steps=2, data__source=source), said.append, from_run=tmp_path / "a")
    state = two.state.model.state_dict()
    differ = [name for name in state if state[name].shape != weights[name].shape]
    assert differ == ["network.label.weight"] and any("what it knows of its own is left out" in line for line in said)
    assert len(list(two.train())) == 2


def test_a_run_on_a_disk_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path / "r", small(training__steps=1), quiet)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(UserError, match=r"can't write to '.*r' \(Read-only file system\): make it writable, or copy it"):
        resume(tmp_path / "r", quiet)


def test_borrowed_weights_before_the_first_checkpoint(tmp_path: Path) -> None:
    """They are another run's: going on would begin with random ones."""
    trained(tmp_path / "a", small(training__steps=1))
    begin(tmp_path / "b", small(training__steps=2), quiet, from_run=tmp_path / "a")
    with pytest.raises(UserError, match=r"b' ended before its first checkpoint, and has not the weights of 'a'"):
        resume(tmp_path / "b", quiet)
