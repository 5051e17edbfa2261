"""Runs side by side."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import unnoise as un
from tests.cli.conftest import call
from unnoise.reports.compare import within_noise
from unnoise.reports.evaluations import Value

NOISE = [  # value, half interval, of two runs; whether their difference is within noise: sqrt(3^2 + 4^2) = 5
    (10.0, 3.0, 14.9, 4.0, True), (10.0, 3.0, 15.1, 4.0, False), (10.0, 0.0, 10.0, 0.0, True), (10.0, 0.0, 10.1, 0.0, False),
    (10.0, 3.0, 17.1, 4.0, False), (15.1, 4.0, 10.0, 3.0, False), (14.9, 4.0, 10.0, 3.0, True),
]  # fmt: skip


@pytest.mark.parametrize(("a", "half_a", "b", "half_b", "expected"), NOISE)
def test_noise(a: float, half_a: float, b: float, half_b: float, expected: bool) -> None:
    values = [Value(v, v - half, v + half, 0.0) for v, half in ((a, half_a), (b, half_b))]
    assert within_noise(*values) is expected


@pytest.fixture
def pair(reported: Path, tmp_path: Path) -> tuple[Path, Path]:
    return tuple(Path(shutil.copytree(reported, tmp_path / name)) for name in ("one", "two"))  # type: ignore[return-value]


def change(run: Path, measure: str | None = None, **values: object) -> None:
    """Change an evaluation, or one of its measures."""
    path = run / "evaluation.json"
    found = json.loads(path.read_text())
    (found if measure is None else found["measures"][measure]).update(values)
    path.write_text(json.dumps(found))


def test_better_is_said_only_beyond_noise(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Lower or higher, as the measure has it."""
    one, two = pair
    change(one, "kid (pixels)", value=1.0, low=0.7, high=1.3)
    change(two, "kid (pixels)", value=0.4, low=0.3, high=0.5)
    change(one, "precision (pixels)", value=0.9, low=0.85, high=0.95)
    change(two, "precision (pixels)", value=0.5, low=0.4, high=0.6)
    found = un.compare(one, two, out=tmp_path / "page.md")
    verdicts = {row.name: row.verdict for row in found.rows}
    assert verdicts.pop("kid (pixels)") == "two is better" and verdicts.pop("precision (pixels)") == "one is better"
    assert set(verdicts.values()) == {"within noise"} and not found.reasons and not found.differ
    assert "the recipes are equal" in found.table() and "two is better" in found.table()
    assert "1.0000" in (tmp_path / "page.md").read_text() and "0.7000 to 1.3000" in (tmp_path / "page.md").read_text()


def test_the_best_of_three(pair: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = pair
    three = Path(shutil.copytree(two, tmp_path / "three"))
    for run, value in ((one, 1.0), (two, 0.11), (three, 0.1)):
        change(run, "kid (pixels)", value=value, low=value - 0.05, high=value + 0.05)
    (row,) = [r for r in un.compare(one, two, three).rows if r.name == "kid (pixels)"]
    assert row.verdict == "three is better, within noise of two"


@pytest.mark.parametrize(("name", "value", "said"), [("n", 99, "n"), ("real", 99, "number of real images"), ("seed", 1, "seed")])
def test_only_equals_are_compared(pair: tuple[Path, Path], name: str, value: int, said: str) -> None:
    change(pair[1], None, **{name: value})
    found = un.compare(*pair)
    assert {row.verdict for row in found.rows} == {"can't be compared"}
    assert found.reasons[0].endswith(f"differ in: {said}")


def test_what_differs(pair: tuple[Path, Path]) -> None:
    """Fields of the recipe, other images, and an evaluation that is missing."""
    path = pair[1] / "recipe.json"
    info = json.loads(path.read_text())
    info["recipe"]["training"]["learning_rate"] = 0.5
    info["recipe"]["data"]["source"] = {"name": "folder", "path": "/home/me/birds"}
    info["fingerprint"] = "other"
    path.write_text(json.dumps(info))
    found = un.compare(*pair)
    differ = {name: values for name, *values in found.differ}
    assert differ["training.learning_rate"] == ["0.001", "0.5"] and differ["data.source"] == ["digits", "birds"]
    assert set(differ) == {"training.learning_rate", "data.source", "fingerprint"}
    assert {row.verdict for row in found.rows} == {"can't be compared"} and "images" in found.reasons[0]
    (pair[1] / "evaluation.json").unlink()
    assert "two is not evaluated" in un.compare(*pair).reasons[0]


def test_the_command(pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert call("compare", "one", "two") == 0
    assert "within noise" in capsys.readouterr().out
    html = (tmp_path / "comparison.html").read_text()
    assert "kid (pixels): within noise" in html and html.count("<img") == 2 and "unnoise compare one two" in html


def test_mistakes(pair: tuple[Path, Path], tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "two runs or more" in refused("compare", pair[0], "--out", tmp_path / "c.html")
    assert "each given once" in refused("compare", pair[0], pair[0], "--out", tmp_path / "c.html")
    assert "no run folder" in refused("compare", pair[0], tmp_path / "none")
    (tmp_path / "c.html").write_text("mine")
    assert "was not written by unnoise" in refused("compare", *pair, "--out", tmp_path / "c.html")
    assert (tmp_path / "c.html").read_text() == "mine"
