"""The source of some of this program's objects, and of all that they use of it, as one module for machines that don't have it."""

import ast
import importlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = "unnoise"


@dataclass(frozen=True)
class Module:
    """The source of a module: its definitions, and where each other name is imported from, as (module, name)."""

    lines: list[str]
    definitions: dict[str, ast.stmt]
    imports: dict[str, tuple[str, str | None]]


@cache
def _read(name: str) -> Module:
    path = importlib.import_module(name).__file__
    assert path is not None
    text = Path(path).read_text(encoding="utf-8")
    definitions: dict[str, ast.stmt] = {}
    imports: dict[str, tuple[str, str | None]] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            definitions[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            definitions |= dict.fromkeys(names, node)
        elif isinstance(node, ast.ImportFrom) and node.module:
            imports |= {a.asname or a.name: (node.module, a.name) for a in node.names}
        elif isinstance(node, ast.Import):
            imports |= {a.asname or a.name.partition(".")[0]: (a.name, None) for a in node.names}
    return Module(text.splitlines(), definitions, imports)


@dataclass
class Bundle:
    """What was collected: lines of imports, and the sources in an order in which they can be executed."""

    imports: set[str] = field(default_factory=set)
    sources: list[str] = field(default_factory=list)
    seen: dict[str, tuple[str, ast.stmt]] = field(default_factory=dict)

    def add(self, module: str, name: str) -> None:
        """A definition, after all that it uses."""
        found = _read(module)
        if name in found.imports:
            self._add_import(name, *found.imports[name])
            return
        node = found.definitions.get(name)
        if node is None:  # one of Python's own, or a local name
            return
        if name in self.seen:
            assert self.seen[name] == (module, node), f"two things are called {name}: rename one"
            return
        self.seen |= {n: (module, node) for n, defined in found.definitions.items() if defined is node}
        for used in dict.fromkeys(n.id for n in ast.walk(node) if isinstance(n, ast.Name)):
            if used in found.imports or used in found.definitions:
                self.add(module, used)
        decorators = node.decorator_list if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
        first = min([node.lineno, *(d.lineno for d in decorators)])
        self.sources.append("\n".join(found.lines[first - 1 : node.end_lineno]))

    def _add_import(self, name: str, module: str, original: str | None) -> None:
        if module.partition(".")[0] != PACKAGE:
            plain = module if original is None else original
            start = f"import {plain}" if original is None else f"from {module} import {plain}"
            self.imports.add(start if name in (plain, plain.partition(".")[0]) else f"{start} as {name}")
            return
        assert original is not None, f"import the names of {module}, not the module"
        self.add(module, original)


def bundle(docstring: str, names: list[tuple[str, str]], imports: list[str], ending: str) -> str:
    """The text of a module: these (module, name) and all that they use, then `ending`, which needs these lines of `imports`.

    Annotations are not evaluated, so that two classes may name each other.
    """
    found = Bundle(set(imports))
    for module, name in names:
        found.add(module, name)
    head = [f'"""{docstring}"""', "", "from __future__ import annotations", "", *sorted(found.imports)]
    parts = ["\n".join(head), *found.sources, ending.strip()]
    return "\n\n\n".join(parts) + "\n"
