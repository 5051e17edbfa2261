"""Write the pages of docs/reference that come from the code: Python, commands, fields of a recipe.

    python tools/reference.py            # --check: write nothing, name the pages that are not up to date, and exit with 1

Signatures are read from the source, not from objects, so that they are the same on every version of Python.
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "unnoise"
GROUPS = {  # of the public names, by where they are defined
    "runs": "Train, load, evaluate", "model": "A trained model", "reports": "Comparing runs", "data": "Images",
    "diffusion": "Diffusion", "networks": "Networks", "training": "Training", "restoration": "Restoring",
    "evaluation": "Evaluation", "recipe": "Recipes", "presets": "Recipes", "registry": "Recipes", "utils": "Errors",
}  # fmt: skip
WIDTH = 100  # of a signature, before each argument has a line of its own
EXITS = """
| exit code | |
|---|---|
| 0 | done |
| 1 | done in part: some of the images could not be restored, each is named |
| 2 | not done: one sentence says what is wrong and what works; nothing half written is left |
| 129, 130, 143 | stopped by a hangup, Ctrl-C or SIGTERM (128 and the signal's number); all is kept |

For every verb: `--help`; `--quiet` prints nothing but errors and warnings. `--version` alone prints the version. Where a program
may read what is printed there is `--json`. Bars and colours are for terminals: elsewhere and with `TERM=dumb` there are
lines, and `NO_COLOR` is obeyed. `UNNOISE_CACHE` is where decoded images are kept, `OMP_NUM_THREADS` the number of threads.
"""

RECIPE = """# Fields of a recipe

Each is an option by its dotted name (`--training.batch 64`), a key of `recipe.json` and, in Python, of `un.override` and
`un.train(..., **{"training.batch": 64})`. Where a field is a part its name chooses one (`--schedule cosine`), and its own fields
follow. `unnoise info digits` prints a preset's or a run's whole recipe.
"""


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    stale = [path for path, text in pages().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is not what the code says: run python tools/reference.py")
        else:
            path.write_text(pages()[path], encoding="utf-8")
            print(path.relative_to(ROOT))
    return int(check and bool(stale))


@cache
def pages() -> dict[Path, str]:
    """Each page's text by its path."""
    made = {"api": _api(), "commands": _commands(), "recipe": _recipe()}
    return {ROOT / "docs" / "reference" / f"{name}.md": "\n".join(lines).strip() + "\n" for name, lines in made.items()}


def _api() -> Iterator[str]:
    yield "# Python\n\nThe public names: `import unnoise as un`. Each is loaded when it is first used.\n"
    names = {}
    for node in ast.parse((SOURCE / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.name: node.module for alias in node.names}
    for title in dict.fromkeys(GROUPS.values()):
        yield f"## {title}\n"
        for name, module in sorted(names.items(), key=lambda item: item[0].lower()):
            if GROUPS[module.partition(".")[0]] == title:
                yield from _describe(name, module)


@cache
def _module(name: str) -> ast.Module:
    path = SOURCE.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def _describe(name: str, module: str) -> Iterator[str]:
    """A function, class or value with its signature, its docstring and, of a class, its public methods."""
    yield f"### un.{name}\n"
    for node in _module(module).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            yield _code(f"un.{name}", node.args, node.returns)
            yield f"{ast.get_docstring(node) or ''}\n"
        elif isinstance(node, ast.ClassDef) and node.name == name:
            yield from _class(node, module)
        elif isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == name:
            yield f"`{ast.unparse(node.annotation)}`, from `unnoise.{module}`.\n"


def _fields(node: ast.ClassDef, module: str) -> dict[str, str]:
    """The fields of a dataclass or named tuple by name, also those of the classes that it derives from, in their order."""
    found: dict[str, str] = {}
    for base in map(ast.unparse, node.bases):
        for path in (module, *_imported(base, module)):
            for other in _module(path).body:
                if isinstance(other, ast.ClassDef) and other.name == base:
                    found |= _fields(other, path)
    if any("dataclass" in ast.unparse(d) for d in node.decorator_list) or "NamedTuple" in map(ast.unparse, node.bases):
        own = {ast.unparse(f.target): ast.unparse(f) for f in node.body if isinstance(f, ast.AnnAssign)}
        found |= {name: text for name, text in own.items() if "ClassVar" not in text and "init=False" not in text}
    return found


def _imported(name: str, module: str) -> list[str]:
    """The module of this package that a name of `module` comes from, if any."""
    return [node.module.removeprefix("unnoise.") for node in _module(module).body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unnoise.")
            and any(alias.name == name for alias in node.names)]  # fmt: skip


def _class(node: ast.ClassDef, module: str) -> Iterator[str]:
    bases = [ast.unparse(base) for base in node.bases if ast.unparse(base) not in ("ABC", "NamedTuple")]
    bases = [base for base in bases if not base.startswith("_")]
    arguments = list(_fields(node, module).values())
    constructor = next((f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"), None)
    if constructor is not None:
        arguments = _arguments(constructor.args)
    yield _fenced(f"un.{node.name}", arguments) + (f"A kind of `{', '.join(bases)}`.\n" if bases else "")
    yield f"{ast.get_docstring(node) or ''}\n"
    for f in node.body:
        if isinstance(f, ast.FunctionDef) and not f.name.startswith("_") and (doc := ast.get_docstring(f)):
            is_property = any(ast.unparse(d) in ("property", "cached_property") for d in f.decorator_list)
            call = "" if is_property else f"({', '.join(_arguments(f.args))})"
            yield f"- `.{f.name}{call}`: {' '.join(doc.split(chr(10) + chr(10))[0].split())}"
    yield ""


def _arguments(a: ast.arguments) -> list[str]:
    """Each with its annotation and default, in order."""
    text = ast.unparse(a)
    found = ast.parse(f"def f({text}): ...").body[0]
    assert isinstance(found, ast.FunctionDef)
    plain = [*found.args.posonlyargs, *found.args.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(found.args.defaults)) + list(found.args.defaults)
    parts = [_argument(arg, default) for arg, default in zip(plain, defaults, strict=True) if arg.arg not in ("self", "cls")]
    if found.args.vararg is not None:
        parts.append(f"*{ast.unparse(found.args.vararg)}")
    elif found.args.kwonlyargs:
        parts.append("*")
    parts += [_argument(arg, default) for arg, default in zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True)]
    return parts + ([f"**{ast.unparse(found.args.kwarg)}"] if found.args.kwarg is not None else [])


def _argument(arg: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(arg) + (f" = {ast.unparse(default)}" if default is not None else "")


def _code(name: str, arguments: ast.arguments, returns: ast.expr | None) -> str:
    return _fenced(name, _arguments(arguments), f" -> {ast.unparse(returns)}" if returns is not None else "")


def _fenced(name: str, arguments: list[str], tail: str = "") -> str:
    text = f"{name}({', '.join(arguments)}){tail}"
    if len(text) > WIDTH:
        text = f"{name}(\n" + "".join(f"    {a},\n" for a in arguments) + f"){tail}"
    return f"```text\n{text}\n```\n"


def _commands() -> Iterator[str]:
    from unnoise.cli import VERBS

    yield f"# Commands\n{EXITS}"
    for name, verb in VERBS.items():
        text, _, examples = re.sub(r"\n *Examples?: *", "\0", inspect.getdoc(verb) or "").partition("\0")
        yield f"## unnoise {name}\n\n{text.strip()}\n"
        if examples:
            yield "```sh\n" + "\n".join(line.strip() for line in examples.splitlines()) + "\n```\n"
        options = [_option(p) for p in inspect.signature(verb).parameters.values() if p.name != "changes"]
        yield "\n".join([*options, ""])


def _option(p: inspect.Parameter) -> str:
    """A line of the list: its names, what it is for, and its default where that is a value."""
    told = next(m for m in p.annotation.__metadata__ if hasattr(m, "help"))
    positional = any("Positional" in repr(m) for m in p.annotation.__metadata__)
    name = told.name or p.name.rstrip("_").replace("_", "-")
    names = [name.upper()] if positional else [*(told.aliases or ()), f"--{name}"]
    default = f" (default `{p.default}`)" if p.default not in (None, False, inspect.Parameter.empty) else ""
    return f"- {', '.join(f'`{n}`' for n in names)}: {told.help}{default}"


def _recipe() -> Iterator[str]:
    from unnoise.recipe import Recipe
    from unnoise.registry import TABLES

    yield RECIPE
    for f in fields(Recipe):
        yield f"## {f.name}\n"
        if f.type not in TABLES:
            yield from _part(f.type, f.name, "")
        for kind, name in [(f.type, f.name), *_kinds_within(f.type, f.name)]:
            yield from _choices(kind, name)


def _kinds_within(kind: Any, name: str) -> Iterator[tuple[Any, str]]:
    """The parts that are fields of one that is no choice itself."""
    from unnoise.registry import TABLES

    if kind not in TABLES:
        yield from ((f.type, f"{name}.{f.name}") for f in fields(kind) if f.type in TABLES)


def _choices(kind: Any, name: str) -> Iterator[str]:
    import unnoise
    from unnoise.registry import TABLES

    for choice, part in TABLES.get(kind, {}).items():
        yield f"### {name} {choice}\n"
        public = f"un.{part.__name__}" if part.__name__ in unnoise.__all__ else f"{part.__module__}.{part.__name__}"
        yield from _part(part, name, f"`{public}`. ")


def _part(part: type, name: str, before: str) -> Iterator[str]:
    """The docstring of a part, and its fields."""
    yield f"{before}{inspect.getdoc(part) or ''}\n"
    if is_dataclass(part):
        given = {f.name for f in fields(part) if f.metadata.get("json", True)}
        for base in reversed(part.__mro__):
            for node in ast.walk(_class_node(base)) if base.__module__.startswith("unnoise.") else ():
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in given:
                    given.discard(node.target.id)
                    default = f" = {ast.unparse(node.value)}" if node.value is not None else ""
                    yield f"- `{name}.{node.target.id}`: `{ast.unparse(node.annotation)}{default}`"
    yield ""


@cache
def _class_node(part: type) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(part)))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))
    sys.exit(main())
