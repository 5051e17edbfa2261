"""Runs to the hub and from it, by a fake of its API on loopback."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from tests.cli.conftest import call
from tests.export.fake_hub import FakeHub, serving
from unnoise.data.cache import cache_folder
from unnoise.export.hub import push
from unnoise.hub import LIMITS
from unnoise.model import Model
from unnoise.run_folder import RunFolder
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with serving() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_TOKEN", "hf_token")
        monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
        yield found


@pytest.fixture
def pushed(hub: FakeHub, small_run: Trainer) -> FakeHub:
    """The hub with the small run as me/digits."""
    assert push(small_run.folder.path, "me/digits", "cc-by-4.0") == f"{hub.url}/me/digits"
    return hub


def test_a_run_comes_back(pushed: FakeHub, small_run: Trainer) -> None:
    found, expected = Model.load("hf:me/digits", "cpu"), Model.load(small_run.folder.path, "cpu")
    np.testing.assert_array_equal(found.sample(3, seed=1), expected.sample(3, seed=1))
    assert found.guide is not None
    count = len(pushed.downloads)
    Model.load(f"hf:me/digits@{pushed.revision('me/digits')}", "cpu")
    assert count == len(pushed.downloads)  # what was fetched is there
    assert set(pushed.downloads) <= set(LIMITS)


def test_what_is_published(pushed: FakeHub, small_run: Trainer) -> None:
    """The card and what it shows; no checkpoint, no image of the data, no path of this machine."""
    files = pushed.repos["me/digits"]
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: unnoise\n") and "\nlicense: cc-by-4.0\n---\n" in card and "\n# digits\n" in card
    for words in ("## Intended use", "hf:me/digits", "## What it was trained on", "## Does it copy its training images?"):
        assert words in card
    assert any(name.startswith("samples/") for name in files) and not any("checkpoint" in name for name in files)
    assert not {"evaluation-nearest.png", "report-example.png"} & files.keys()
    text = card + files["recipe.json"].decode()
    assert str(small_run.folder.path.parent) not in text and "/home" not in text


def test_paths_of_the_data_stay_here(pushed: FakeHub, small_run: Trainer, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run.folder.path, tmp_path / "run"))
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["recipe"]["data"]["source"] = {"name": "folder", "path": "/home/me/private/photos"}
    (run / "recipe.json").write_text(json.dumps(recipe))
    push(run, "me/photos")
    published = json.loads(pushed.repos["me/photos"]["recipe.json"])
    assert published["recipe"]["data"]["source"]["path"] == "photos"
    assert not any(b"private" in raw for raw in pushed.repos["me/photos"].values())


def test_the_command(pushed: FakeHub, small_run: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                     capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """A run of the hub wherever a run is named; samples go to the current folder."""
    monkeypatch.chdir(tmp_path)
    assert call("push", small_run.folder.path, "me/again") == 0 and "no --license" in capsys.readouterr().out
    assert call("info", "hf:me/digits") == 0
    assert call("sample", "hf:me/digits", "-n", 2) == 0
    assert (tmp_path / "digits" / "generated" / "000001.png").is_file()
    assert call("export", "hf:me/digits", "--format", "diffusers", "--out", "d") == 0
    assert call("figure", "loss", "hf:me/digits", "--out", "loss.png") == 0
    assert call("report", "hf:me/digits") == 0
    words = ("--steps", 1, "--training.sample-count", 1, "--training.precision", "fp32")
    assert call("train", "digits", "--from-run", "hf:me/digits", "--run", "more", *words) == 0
    assert RunFolder(tmp_path / "more").read_info().from_run


Spoil = Callable[[FakeHub], object]


def not_finite(hub: FakeHub) -> None:
    tensors = load(hub.repos["me/digits"]["model.safetensors"])
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    hub.repos["me/digits"]["model.safetensors"] = save(tensors)


def replaced(raw: bytes) -> Spoil:
    def spoil(hub: FakeHub) -> None:
        hub.repos["me/digits"]["model.safetensors"] = raw

    return spoil


CASES: dict[str, tuple[Spoil, str]] = {
    "weights that are not finite": (not_finite, "numbers in '.*' that are not finite"),
    "a header of 20 GB": (replaced((20 * 2**30).to_bytes(8, "little") + b"{}"), "is damaged"),
    "a link, which is its text there": (replaced(b"../../../secret"), "is damaged"),
    "a pickle by another name": (replaced(b"\x80\x04\x95"), "is damaged"),
    "pickles alone": (lambda hub: hub.repos["me/digits"].pop("model.safetensors"), "has no model.safetensors"),
    "more than is read": (lambda hub: hub.sizes.update({"model.safetensors": 2**40}), "more than the 17179869184 that are read"),
    "a recipe of a gigabyte": (lambda hub: hub.sizes.update({"recipe.json": 2**30}), "'recipe.json' of 'hf:me/digits' has"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_a_stranger_may_have_put_there(case: str, pushed: FakeHub) -> None:
    spoil, words = CASES[case]
    spoil(pushed)
    with pytest.raises(UserError, match=words):
        Model.load("hf:me/digits")
    assert not list(cache_folder().rglob("recipe.json"))


def test_other_files_are_left_there(pushed: FakeHub) -> None:
    """Also names that would lead out of the folder."""
    pushed.repos["me/digits"] |= {"../../evil.py": b"", "evil.py": b"", "weights.bin": b"", "/etc/evil": b""}
    Model.load("hf:me/digits", "cpu")
    assert {p.name for p in cache_folder().rglob("*") if p.is_file() and p.suffix != ".lock"} <= set(LIMITS)


def test_a_hub_that_does_not_answer(pushed: FakeHub, small_run: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, words in (("hf:me/nothing", "can't be reached"), ("hf:digits", "hf:OWNER/NAME"), ("hf:a/b/c", "hf:OWNER/NAME")):
        with pytest.raises(UserError, match=words):
            Model.load(name)
    with pytest.raises(UserError, match="identifier of the hub"):
        push(small_run.folder.path, "me/digits", "my own\nlicence")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match=r"did not take 'me/digits'.*hf auth login"):
        push(small_run.folder.path, "me/digits")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="can't be reached"):
        Model.load("hf:me/digits")
