"""The documentation as a whole: the site, the pages that come from the code, and what pages say of tests and files."""

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.test_docs import CHAPTERS, DOCS, PAGES, ROOT, SOURCES


def test_every_page_is_on_the_site() -> None:
    """Once, by a configuration that can be read at a glance."""
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 20
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, str):
            found.append(node)
        for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(inner)

    walk(tomllib.loads(text)["project"]["nav"])
    assert sorted(found) == sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_formulas_can_be_read_anywhere(page: Path) -> None:
    """No TeX, which forges render and the site, which loads nothing from elsewhere, would show as it is."""
    assert not re.search(r"\$\$|\\(frac|sqrt|alpha|sigma|mathbb|text)\b", page.read_text(encoding="utf-8"))


def test_the_architecture_names_every_file() -> None:
    """Each module of the package, by its name, and none that there is not."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8").partition("## Who may import whom")[0]
    named = set(re.findall(r"`(\w+\.py)`", text))
    missing = [p for p in SOURCES if p.name not in named and p.parent.name not in ("cli", "presets") and p.name != "__main__.py"]
    assert [p.name for p in missing if p.name != "__init__.py"] == []
    assert named <= {p.name for p in (*SOURCES, *(ROOT / "tools").glob("*.py"), *(ROOT / "notebooks").glob("*.py"))}


def program(path: str) -> ModuleType:
    """A script of this repository as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says() -> None:
    for path, text in program("tools/reference.py").pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is not up to date: run python tools/reference.py"


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda p: p.name)
def test_the_tutorials_pages_have_the_code_as_it_is(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chapter's own, in order, and that of the package which it displays."""
    monkeypatch.syspath_prepend(str(ROOT / "notebooks"))
    pages, text, position = program("notebooks/pages.py"), page.read_text(encoding="utf-8"), 0
    for source in pages.code(page.stem):
        position = text.index(f"```python\n{source}\n```", position) + 1
    assert pages.with_sources(text, page.stem) == text, "run python notebooks/pages.py --sources"


def test_each_question_has_its_test() -> None:
    """The twenty questions are numbered, and each names a test that there is."""
    text = (DOCS / "faq.md").read_text(encoding="utf-8")
    questions = re.split(r"^\*\*(?=\d+\.)", text.partition("\n## ")[0], flags=re.M)[1:]
    assert [q.partition(".")[0] for q in questions] == [str(k) for k in range(1, 21)]
    for question in questions:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", question)
        assert tests, question
        for path, name in tests:
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.M), f"{path}::{name}"
