"""Report cards: what is in them, that it is what was measured, and that nothing of a stranger's run gets out of its place."""

import base64
import copy
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import unnoise as un
from tests.cli.conftest import call
from tests.conftest import small
from unnoise.diffusion.guidance import ClassGuidance
from unnoise.diffusion.samplers import DDIM, DPMpp2S, Heun, Sampler
from unnoise.recipe import RunInfo
from unnoise.reports import words
from unnoise.reports.card import number
from unnoise.reports.render import check_name
from unnoise.run_folder import RunFolder
from unnoise.runs import evaluate
from unnoise.runs import report as module
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError

SECTIONS = ["Samples", "What it was trained on", "Network and recipe", "Watch it learn", "Loss", "How good it is",
            "Does it copy its training images?", "Restoration, and how sure it is", "Speed and cost",
            "How to repeat it"]  # fmt: skip
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>`|[a](http://evil.example)\x1b[31m\u202e'


class Reader(HTMLParser):
    """Elements with their attributes, and the text outside of script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._inside = "", ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(run: Path) -> tuple[str, str]:
    return (run / "report.html").read_text(), (run / "report.md").read_text()


def titles(run: Path) -> list[str]:
    html, markdown = read(run)
    found = re.findall(r"<h2[^>]*>(.*?)</h2>", html)
    assert found == re.findall(r"^## (.*)$", markdown, re.M)
    return found


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_one_file_has_it_all(reported: Path) -> None:
    """Images are in the page, each with its alternative text; nothing names another file or a server."""
    html, _ = read(reported)
    page = Reader(html)
    assert titles(reported) == SECTIONS
    images = page.all("img")
    assert len(images) >= 5 and all(i["alt"] and (i["src"] or "").startswith("data:image/") for i in images)
    assert not re.search(r"https?:", html) and not re.search(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert not re.search(r"url\((?!#)|@import", html)
    assert "\\x" not in page.text  # nothing of ours is escaped as unprintable
    assert [t for t, _ in page.elements if re.fullmatch(r"h\d", t)] == ["h1"] + ["h2"] * len(SECTIONS)
    assert all(i["scope"] in ("col", "row") for i in page.all("th"))
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy and policy.startswith("default-src 'none'; img-src data:")


def test_what_was_measured_is_in_both(reported: Path) -> None:
    found, (html, markdown) = json.loads((reported / "evaluation.json").read_text()), read(reported)
    text = Reader(html).text
    for shown in (text, markdown):
        for name, result in found["measures"].items():
            assert re.search(rf"(^|\W){re.escape(name.removesuffix(' (pixels)'))}, (lower|higher) is better", shown, re.M)
            for value in result.values():
                assert number(value) in shown
        assert found["copying"]["verdict"][1:] in shown
        assert "110 samples against 110 images" in shown and "in features of pixels, seed 0" in shown
        assert "1,623" in shown and "174, never trained on" in shown and "8x8 pixels, grey" in shown
        assert "4 network calls an image" in shown and "PSNR" in shown and "DPM-Solver++(2M), 4 steps" in shown
    for path in re.findall(r"\]\(<(.*?)>\)", markdown):
        assert (reported / path).is_file()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.00123, "0.0012"),
        (-1.94044, "−1.9404"),
        (17.12345, "17.12"),
        (1316.0565, "1,316"),
        (-99.996, "−100.00"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_have_four_digits_or_decimals(value: float, shown: str) -> None:
    assert number(value) == shown


def test_no_place_of_this_machine(run: Path) -> None:
    edit(run / "recipe.json", lambda r: r["recipe"]["data"].update(source={"name": "folder", "path": "/home/me/secret/birds"}))
    un.report(run)
    for text in (Reader(read(run)[0]).text, *read(run)):
        assert "birds" in text and "/home" not in text and "secret" not in text and str(run.parent) not in text
        assert re.search(r"the run(?:'|&#39;)s images are not where they were", text)


def test_what_there_is_not_is_not_invented(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "prepare", partial(evaluate.prepare, n=20, features="pixels"))
    for name in ("evaluation.json", "evaluation-nearest.png", "metrics.jsonl", "report.html"):
        (run / name).unlink()
    for grid in sorted((run / "samples").iterdir())[1:]:
        grid.unlink()
    assert call("report", run) == 0
    assert "not evaluated yet" in capsys.readouterr().out
    assert titles(run) == [t for t in SECTIONS if t not in ("Watch it learn", "Loss", "Speed and cost")]
    assert "Not evaluated yet" in read(run)[0] and "unnoise report digits --evaluate" in read(run)[1]
    assert call("report", run, "--evaluate") == 0
    assert "Not evaluated yet" not in read(run)[0] and (run / "evaluation.json").is_file()


def test_what_later_evaluations_have_is_shown(run: Path) -> None:
    seven = {"n": 11, "real": 7, "recognised": 0.75, "real_recognised": None, "measures": {"kid (pixels)": {"value": 0.0625}}}
    likelihood = {"bits_per_dim": 3.25, "low": 3.125, "high": 3.375, "n": 100}
    edit(run / "evaluation.json", lambda e: e.update(bits_per_dim=3.25, likelihood=likelihood, per_class={"seven": seven}))
    lines = [json.dumps({"step": k, "loss": None, "copy_rate": 0.125 * k}) for k in range(3)]
    (run / "held-out.jsonl").write_text("\n".join(lines))
    un.report(run)
    for text in (Reader(read(run)[0]).text, read(run)[1]):
        for expected in ("3.2500", "3.1250", "seven", "75.0 %", "0.0625", "25.0 % at the end"):
            assert expected in text


def test_a_strangers_words_stay_words(run: Path) -> None:
    edit(run / "recipe.json", lambda r: r.update(classes=[HOSTILE, *r["classes"][1:]], command=HOSTILE, versions=HOSTILE))
    edit(run / "evaluation.json", lambda e: (e["notes"].append(HOSTILE), e["copying"].update(verdict=HOSTILE),
                                             e["measures"].update({HOSTILE: e["measures"]["kid (pixels)"]})))  # fmt: skip
    un.report(run)
    html, markdown = read(run)
    page = Reader(html)
    assert len(page.all("script")) == 1 and not any("onerror" in a for _, a in page.elements) and page.text.count("alert(1)") == 5
    for text in (html, markdown):
        assert "\x1b" not in text and "\u202e" not in text
    prose = re.sub(r"^    .*$", "", markdown, flags=re.M)  # without code, of which nothing is read
    assert not re.search(r"(?<!\\)(?:<script|\[a\]|`\|)", prose)


DAMAGED: list[tuple[str, bytes, str]] = [
    ("evaluation.json", b"{}", "is no evaluation"),
    ("evaluation.json", b'{"n": 1e999}', "is no evaluation"),
    ("evaluation.json", b"[" * 10**5, "is no evaluation"),
    ("evaluation.json", b'{"n": true, "real": 1, "features": "", "seed": 0, "measures": {}}', "is no evaluation"),
    ("evaluation.json", json.dumps({"measures": {str(k): {} for k in range(1001)}}).encode(), "is no evaluation"),
    ("recipe.json", b"{", "is not readable JSON"),
    ("model.safetensors", b"\xff" * 20, "is damaged"),
    ("samples/000012.png", b"GIF89a", "can't be read as an image"),
    ("evaluation-nearest.png", b"", "can't be read as an image"),
    ("report.html", b"<html>mine", "was not written by unnoise"),
    ("report.md", b"# mine", "was not written by unnoise"),
    ("report-example.png", b"\x89PNG mine", "was not written by unnoise"),
]


@pytest.mark.parametrize(("name", "content", "said"), DAMAGED, ids=[f"{n}-{c[:12]!r}" for n, c, _ in DAMAGED])
def test_what_is_broken_is_one_sentence(run: Path, name: str, content: bytes, said: str, refused: Callable[..., str]) -> None:
    (run / name).write_bytes(content)
    before = {p: p.read_bytes() for p in (run / "report.html", run / "report.md")}
    assert said in refused("report", run)
    assert all(path.read_bytes() == kept for path, kept in before.items())


@pytest.mark.parametrize(
    "line", ['{"step": 1e300, "loss": 1e308, "images_per_second": -1}', '{"step": 13, "loss": -5}', "[" * 10**5]
)
def test_lines_that_nobody_means(run: Path, line: str) -> None:
    for name in ("metrics.jsonl", "held-out.jsonl", "cost.jsonl"):
        with (run / name).open("a") as file:
            file.write(line + "\n")
    un.report(run)


CALLS = [(DDIM(), 5, 5), (Heun(), 5, 9), (DPMpp2S(), 5, 9)]


@pytest.mark.parametrize(("sampler", "steps", "calls"), CALLS, ids=[type(s).__name__ for s, _, _ in CALLS])
def test_calls_are_those_of_the_sampler(sampler: Sampler, steps: int, calls: int) -> None:
    """Heun and 2S take two calls a step but the last; guidance by class takes twice as many."""
    recipe = small(sampling__sampler=sampler, sampling__steps=steps)
    guided = replace(recipe, sampling=replace(recipe.sampling, guidance=ClassGuidance()))
    for found, expected in ((recipe, calls), (guided, 2 * calls)):
        assert words.count_calls(RunInfo(found, (1, 8, 8), ("a", "b"))) == expected


def test_a_training_ends_with_a_report(run: Path, small_run: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an example where that is quick; what can't be written is said and no error."""
    trainer, said = copy.copy(small_run), list[str]()
    trainer.folder, trainer.say = RunFolder(run), said.append
    for seconds, expected in ((1e9, True), (0.0, False)):
        monkeypatch.setattr(module, "SHORT", seconds)
        module.report_training(trainer, 100.0)
        assert ("PSNR" in read(run)[1]) is expected and not said
    (run / "report.html").write_text("mine")
    module.report_training(trainer, 100.0)
    assert "report card can't be written" in said[0] and (run / "report.html").read_text() == "mine"


def test_large_logs_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unnoise.utils.atomic.MAX_LOG", 10)
    with pytest.raises(UserError, match="more than any training logs"):
        RunFolder(run).read_losses()


def test_names_of_pages(tmp_path: Path) -> None:
    (tmp_path / "a.html").mkdir()
    for name, said in (("a.pdf", r"\.html or \.md"), ("a.html", "is a folder")):
        with pytest.raises(UserError, match=said):
            check_name(tmp_path / name)


def test_the_grid_shown_is_the_last(reported: Path) -> None:
    """Its pixels are those of the file."""
    source = Reader(read(reported)[0]).all("img")[0]["src"]
    assert source
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as shown, \
            Image.open(reported / "samples" / "000012.png") as file:  # fmt: skip
        assert shown.tobytes() == file.convert("L").tobytes()


FETCHED: list[tuple[dict[str, object], str]] = [
    ({"name": "hub", "repo": "a/b"}, "on the hub"),
    ({"name": "mnist", "root": "none", "download": True}, "not where they were"),
]


@pytest.mark.parametrize(("source", "said"), FETCHED, ids=[said for _, said in FETCHED])
def test_nothing_is_fetched(run: Path, source: dict[str, object], said: str) -> None:
    edit(run / "recipe.json", lambda r: r["recipe"]["data"].update(source=source))
    un.report(run)
    assert said in read(run)[1] and not Path("none").exists()


def test_links_are_not_shown(run: Path, tmp_path: Path) -> None:
    """A grid that is a link to an image elsewhere is none."""
    Image.new("L", (8, 8)).save(tmp_path / "mine.png")
    (run / "samples" / "000099.png").symlink_to(tmp_path / "mine.png")
    assert 99 not in RunFolder(run).grids() and 12 in RunFolder(run).grids()
