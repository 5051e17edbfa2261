"""What the documents, the help and the messages tell people to type exists, and the Python in the documents runs."""

import ast
import contextlib
import dataclasses
import importlib
import inspect
import io
import re
import shutil
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unnoise
from tests.cli.conftest import call
from tests.conftest import SMALL
from unnoise.cli import VERBS
from unnoise.networks.unet import UNetConfig
from unnoise.presets import PRESETS
from unnoise.recipe import Recipe, override
from unnoise.registry import TABLES
from unnoise.runs.trainer import Trainer
from unnoise.training.config import TrainingConfig
from unnoise.utils.names import PARTS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
CHAPTERS = [p for p in PAGES if p.parent.name == "tutorial"]  # their code runs as notebooks (tests/test_notebooks.py)
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TEXTS = {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in (*PAGES, *SOURCES)}
PROSE = {"as", "reads", "does"}  # what may follow `unnoise` where it is no command: `import unnoise as un`
OWN = {"network.width", "part.field"}  # a field of the network that the documents define, and a placeholder
PROGRAMS = "\n".join(
    p.read_text(encoding="utf-8") for folder in ("benchmarks", "notebooks", "tools") for p in (ROOT / folder).glob("*.py")
)
FOREIGN = {  # options of all verbs, and of other programs: launchers, tensorboard, ruff, zensical, those here; colours in CSS
    "--help", "--version",
    *("--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--multi_gpu", "--num_processes", "--module"),
    *("--logdir", "--check", "--quiet", "--master-addr", "--clean", "--tyro-print-completion"),
    *("--first", "--second", "--faint"),
    *re.findall(r"[\"'](--[a-z-]+)", PROGRAMS),
}  # fmt: skip


def commands(text: str) -> list[list[str]]:
    """The words after each `unnoise`, to the end of the line, the comment, or the quotation that it stands in."""
    found = re.findall(r"""(?:^|[\s/`'"(])unnoise +([a-z][^`'"\n#]*)""", text, re.M)
    lines = [re.split(r" {3,}| && |\)|; |, |: ", line)[0] for line in found]  # a table's next column, or prose
    return [words for line in lines if (words := line.split())[0].strip(".,;:") not in PROSE]


@cache
def options_of(verb: str) -> frozenset[str]:
    """Those in its own help."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert call(verb, "--help") == 0
    rows = re.findall(r"^(?:│ | {1,2})(--?[a-z].*)$", out.getvalue(), re.M)
    return frozenset(name for row in rows for name in re.findall(r"(?:^|, )(--?[a-z][\w-]*)", row))


def check_command(verb: str, *words: str) -> None:
    """Fails for an unknown verb, option or field of the recipe."""
    verb = verb.strip(".,;:")
    assert verb in VERBS, f"unnoise {verb}"
    takes_fields = "changes" in VERBS[verb].__annotations__
    for word in words:
        name = word.partition("=")[0].strip(".,;:[]")
        if not re.match(r"--?[a-z]", name):
            continue
        if "." in name:
            assert takes_fields and is_field(name[2:]), f"unnoise {verb} {name}"
        elif not (takes_fields and name[2:] in PARTS):
            assert name in options_of(verb), f"unnoise {verb} {name}"


def is_field(name: str) -> bool:
    """Whether it is one of the recipe, by its dotted name."""
    return name in OWN or has_field(Recipe, name.replace("-", "_").split("."))


def has_field(kind: object, names: list[str]) -> bool:
    """Whether a recipe's part of this type, or of one of its choices, has the field."""
    if not names:
        return True
    kinds = TABLES[kind].values() if kind in TABLES else [kind]
    hints = [typing.get_type_hints(k) for k in kinds if dataclasses.is_dataclass(k)]
    return any(names[0] in h and has_field(h[names[0]], names[1:]) for h in hints)


@pytest.mark.parametrize("name", TEXTS)
def test_commands_exist(name: str) -> None:
    for words in commands(TEXTS[name]):
        check_command(*words)


def test_commands_are_found() -> None:
    """In indented lines, in code and in quotes, and none in prose."""
    text = """
        unnoise train digits --steps 3   # and on
        `unnoise data list` and .venv/bin/unnoise demo
        import unnoise as un
        unnoise: train
    """
    assert commands(text) == [["train", "digits", "--steps", "3"], ["data", "list"], ["demo"]]
    assert len(commands(TEXTS["docs/start.md"])) >= 15
    assert {"-h", "--help", "-n", "--n", "--seed", "--from", "--out"} < options_of("sample")


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_shows_commands(verb: str) -> None:
    """Each verb with options has an example, and examples are of that verb."""
    found = commands(VERBS[verb].__doc__ or "")
    examples = [words for words in found if words[0] == verb]
    assert examples or options_of(verb) == {"-h", "--help"}


WRONG = [
    "unnoise tarin digits", "`unnoise train --setps 3`", "'unnoise sample RUN --training.fall cosine'", "unnoise runs --run x",
    "unnoise info --schedule cosine", "    unnoise morph runs/digits 3 8", "unnoise sample r -m 3", ".venv/bin/unnoise dmeo",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_does_not_exist_is_noticed(text: str) -> None:
    assert len(commands(text)) == 1
    with pytest.raises(AssertionError):
        check_command(*commands(text)[0])


@pytest.mark.parametrize("name", TEXTS)
def test_options_exist(name: str) -> None:
    """Each option that is named anywhere is one of some verb, and each dotted one a field."""
    known = {option for verb in VERBS for option in options_of(verb)} | {f"--{part}" for part in PARTS} | FOREIGN
    for option in re.findall(r"(?<![\w-])--([a-z][\w.-]*[\w])", TEXTS[name]):
        if "." in option:
            assert is_field(option), f"--{option}"
        else:
            assert f"--{option}" in known, f"--{option}"


@pytest.mark.parametrize("name", TEXTS)
def test_recipe_fields_exist(name: str) -> None:
    """As options, and in quotes and code by their dotted names."""
    parts = "|".join(f.name for f in dataclasses.fields(Recipe))
    for field in re.findall(rf"(?:--|[`'\"])((?:{parts})\.[a-z0-9_.-]*[a-z0-9])", TEXTS[name]):
        assert field.endswith(".py") or is_field(field) or exists("unnoise", field.split(".")), field


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """The ```python blocks of a page, each with the line before its first."""
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start(1)].count("\n"), m[1]) for m in re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_names_exist(page: Path) -> None:
    """Imports, names of the front door as `un.Name`, and names in the package as `unnoise.part.name`."""
    for _, block in python_blocks(page) if page not in CHAPTERS else ():
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, a.name) for a in node.names), node.module
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\bun\.([A-Za-z_]\w*)", text):
        assert hasattr(unnoise, name), f"un.{name}"
    for path in re.findall(r"`unnoise((?:\.\w+)+)", text):
        assert exists("unnoise", path[1:].split(".")), f"unnoise{path}"


def exists(module: str, names: list[str]) -> bool:
    """Whether `module.a.b` is a module or something in one."""
    found: Any = importlib.import_module(module)
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(f"{getattr(found, '__name__', '')}.{name}")
        found = getattr(found, name, None)
    return found is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_pages_are_whole(page: Path) -> None:
    """No place is left to fill in, and what they link to is there."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"\b[A-Z]+TABLE\b|\bTODO\b", text)
    for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", text):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        assert DOCS not in page.parents or DOCS in linked.resolve().parents, f"{target} is not on the site"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.M)
            assert anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], f"{target}#{anchor}"


@contextlib.contextmanager
def tiny(folder: Path) -> Iterator[None]:
    """In `folder`, presets have small networks, training ends after two steps, and parts that are registered are forgotten.

    `un.train` and `un.fit` are themselves: only the presets and the number of steps differ.
    """
    tables = {kind: dict(table) for kind, table in TABLES.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, recipe in PRESETS.items():
            if isinstance(recipe.network, UNetConfig):
                patch.setitem(PRESETS, name, override(recipe, SMALL))
        patch.setattr(TrainingConfig, "steps_asked", lambda config, images: 2)
        yield
    for kind, table in tables.items():
        TABLES[kind].clear()
        TABLES[kind].update(table)


def run_python(page: Path) -> dict[str, Any]:
    """Run a page's blocks in order, in one namespace, which is returned; errors show the line of the page."""
    namespace: dict[str, Any] = {"__name__": f"{page.stem}_page"}
    for line, block in python_blocks(page):
        exec(compile("\n" * line + block, str(page), "exec"), namespace)
    return namespace


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `my/photos` and `blurred.png`."""
    folder, rng = tmp_path_factory.mktemp("docs"), np.random.default_rng(0)
    (folder / "my" / "photos").mkdir(parents=True)
    for k in range(12):
        Image.fromarray(rng.integers(0, 256, (70, 80, 3), dtype=np.uint8)).save(folder / "my" / "photos" / f"{k}.png")
    Image.fromarray(rng.integers(90, 160, (32, 32, 3), dtype=np.uint8)).save(folder / "blurred.png")
    return folder


@pytest.fixture(scope="module")
def readme(prepared: Path) -> tuple[Path, dict[str, Any]]:
    """The folder after the README's Python has run in it, and its names."""
    with tiny(prepared):
        return prepared, run_python(README)


def test_the_readme_runs(readme: tuple[Path, dict[str, Any]]) -> None:
    folder, names = readme
    assert (folder / "runs" / "photos" / "model.safetensors").is_file()
    assert names["images"].shape == (16, 64, 64, 3) and names["images"].dtype == np.uint8


def check_start(names: dict[str, Any]) -> None:
    assert names["found"].mean.shape == (1, 3, 32, 32) and bool(names["found"].std.isfinite().all())


def check_own_parts(names: dict[str, Any]) -> None:
    assert names["record"].step == 2 and names["x"].shape == (16, 3, 64, 64)
    assert float(names["x"].abs().max()) <= 1


CHECKS = {"start": check_start, "own-parts": check_own_parts}  # of what is left after a page
RUN = [p for p in PAGES if p != README and p not in CHAPTERS and python_blocks(p)]


@pytest.mark.parametrize("page", RUN, ids=lambda p: p.name)
def test_a_page_runs(page: Path, readme: tuple[Path, dict[str, Any]], small_run: Trainer) -> None:
    """In the folder that the README leaves, with the run of the digits in runs/digits."""
    shutil.copytree(small_run.folder.path, readme[0] / "runs" / "digits", dirs_exist_ok=True)
    with tiny(readme[0]):
        names = run_python(page)
    CHECKS.get(page.stem, lambda _: None)(names)


def test_signatures_of_the_reference_are_those_of_the_code() -> None:
    """Of dataclasses also the fields that they inherit, and no class attributes."""
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    parts = {name: getattr(unnoise, name) for name in dir(unnoise) if name[0].isupper()}
    parts = {name: part for name, part in parts.items() if isinstance(part, type) and dataclasses.is_dataclass(part)}
    assert len(parts) > 40
    for name, part in parts.items():
        (shown,) = re.findall(rf"^un\.{name}\((.*?)\)$", text, re.M | re.S)
        found = ast.parse(f"def f({shown}): ...").body[0]
        assert isinstance(found, ast.FunctionDef)
        assert [a.arg for a in found.args.args] == list(inspect.signature(part).parameters), name
