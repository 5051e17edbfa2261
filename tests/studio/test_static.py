"""The page's files: few bytes, nothing from elsewhere, nothing inline, and the report card's colours."""

import re
from pathlib import Path

import pytest

import unnoise

PACKAGE = Path(unnoise.__file__).parent
STATIC = PACKAGE / "studio" / "static"
FILES = sorted(p for p in STATIC.rglob("*") if p.is_file())
SVG = "http://www.w3.org/2000/svg"  # the name of a language, which nothing fetches


def test_size() -> None:
    assert sum(p.stat().st_size for p in FILES) < 200_000


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_nothing_from_elsewhere(path: Path) -> None:
    """No address but our own, no script or style in markup, no text that becomes markup or code."""
    text = path.read_text(encoding="utf-8").replace(SVG, "")
    assert not re.search(r"https?:|[\"'(]//|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=\"", text)


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix == ".js"], ids=lambda p: p.name)
def test_modules_are_small_and_there(path: Path) -> None:
    """What a module imports is there; components know nothing of the server."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r'(?:from|import\() ?"([^"]+)"', text)
    assert all((path.parent / name).is_file() for name in found)
    if path.parent.name == "components":
        assert all(re.fullmatch(r"\./[\w-]+\.js", name) for name in found) and "/api/" not in text
    assert len(text.splitlines()) < (350 if path.name == "words.js" else 250)


def test_the_colours_are_the_report_cards() -> None:
    def colours(path: Path) -> list[str]:
        return re.findall(r"--\w+: #\w+", path.read_text(encoding="utf-8"))

    ours = colours(STATIC / "components" / "components.css")
    assert ours == colours(PACKAGE / "reports" / "templates" / "page.css") and len(ours) == 16
