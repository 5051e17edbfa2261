"""A run as a web page: its files, and what is refused."""

import hashlib
import io
import json
import re
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest

from tests.cli.conftest import call
from tests.export.conftest import MakeRun
from unnoise.export import runtime, webpage
from unnoise.export.webpage import PAGE, STUDIO, export_webpage, page_facts
from unnoise.model import Model
from unnoise.recipe import override
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError

FILES = sorted(p for p in PAGE.rglob("*") if p.suffix in (".js", ".css", ".html"))
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
    for name, words in (("text", "can't be read"), ("short", "has no"), ("missing", "can't be read"),
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
        assert place.is_file() or (STUDIO / inside).is_file() or inside.name in runtime.FILES
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


def test_a_student_answers_in_few_calls(make: MakeRun) -> None:
    """As many as its times are for; it is not guided, and between two images it makes the calls that it makes to sample."""
    student = {
        "training.objective": "consistency",
        "sampling.sampler": "consistency",
        "sampling.times": "given",
        "sampling.steps": 2,
    }
    model = Model.load(make("student", classes=3, training__label_dropout=0.1), "cpu")
    model = replace(model, info=replace(model.info, recipe=override(model.info.recipe, student)))
    facts = page_facts(model)
    assert list(facts["sample"]) == [1, 2, 3, 4] and facts["steps"] == 2 and facts["guidance"] is None
    assert sum("call" in line for line in facts["ddim"]["lines"]) == 2


def test_what_no_page_can_show(make: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """One sentence, nothing written."""
    model, out = Model.load(make("run"), "cpu"), tmp_path / "page"
    for shape, words in (((4, 8, 8), "4 channels"), ((3, 8, 1024), "8x1024 are too large")):
        other = replace(model, info=replace(model.info, shape=shape))
        monkeypatch.setattr(Model, "load", lambda *_, other=other: other)
        with pytest.raises(UserError, match=f"{words}.*choose format onnx"):
            export_webpage(tmp_path / "run", out)
    monkeypatch.undo()
    assert call("export", tmp_path / "run", "--out", out, "--format", "onnx", "--runtime", "x.tgz") == 2
    assert "--runtime is an option of a web page, not of onnx: leave it out" in capsys.readouterr().err
    assert call("export", tmp_path / "run", "--out", out, "--format", "webpage", "--weights", "fp16") == 2
    assert "unknown weights 'fp16': did you mean 'float16'?" in capsys.readouterr().err
    assert not out.exists()


def test_the_folder(
    small_run: Trainer, package: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """All that the page imports and fetches is in it, its size is said, and nothing is written over unasked."""
    out = tmp_path / "page"
    monkeypatch.setattr(webpage, "write_graph", lambda denoiser, model, path: (path.write_bytes(b"a graph") > 0, 1e-6))
    words = ("export", small_run.folder.path, "--format", "webpage", "--out", out, "--runtime", package)
    assert call(*words) == 0
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
    assert {p.name for p in (out / "components").iterdir()} == {p.name for p in (STUDIO / "components").iterdir()}
    assert call(*words) == 2 and "is there already" in capsys.readouterr().err
