"""What the documents tell people to type exists."""

import ast
import dataclasses
import importlib
import inspect
import re
import typing
from pathlib import Path

import pytest

from unnoise.cli import VERBS
from unnoise.cli.options import SHORT
from unnoise.recipe import Recipe
from unnoise.registry import TABLES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HELP = [verb.__doc__ or "" for verb in VERBS.values()]


def commands(text: str) -> list[list[str]]:
    """The words after `unnoise`, of each indented line and each piece of code in it."""
    lines = [line.split("#")[0] for line in text.splitlines() if line.startswith("    ")]
    pieces = [*lines, *re.findall(r"`([^`]+)`", text)]
    return [found[1].split() for piece in pieces if (found := re.search(r"(?:^|\s)unnoise\s+([a-z].*)", piece.strip()))]


@pytest.mark.parametrize("text", [*(p.read_text() for p in PAGES), *HELP], ids=[*(p.name for p in PAGES), *VERBS])
def test_commands_exist(text: str) -> None:
    for verb, *words in commands(text):
        if verb not in VERBS:
            continue
        options = {name.rstrip("_").replace("_", "-") for name in inspect.signature(VERBS[verb]).parameters}
        for word in words:
            name = word.partition("=")[0].strip("`.,;:)").removeprefix("--")
            if word.startswith("--") and "." not in name:
                assert name in options | set(SHORT) | {"help", "version"}, f"unnoise {verb} --{name}"


def has_field(kind: object, names: list[str]) -> bool:
    """Whether a recipe's part of this type, or of one of its choices, has the field."""
    if not names:
        return True
    kinds = TABLES[kind].values() if kind in TABLES else [kind]
    hints = [typing.get_type_hints(k) for k in kinds if dataclasses.is_dataclass(k)]
    return any(names[0] in h and has_field(h[names[0]], names[1:]) for h in hints)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_recipe_fields_exist(page: Path) -> None:
    parts = "|".join(f.name for f in dataclasses.fields(Recipe))
    for name in re.findall(rf"--((?:{parts})\.[a-z_.-]*[a-z])", page.read_text()):
        assert has_field(Recipe, name.replace("-", "_").split(".")), f"--{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_imports_exist(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, a.name) for a in node.names), node.module


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_pages_are_whole(page: Path) -> None:
    """No place is left to fill in, and what they link to is there."""
    text = page.read_text()
    assert not re.search(r"\b[A-Z]+TABLE\b|\bTODO\b", text)
    for target in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (page.parent / target).exists(), target
