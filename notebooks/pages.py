"""Make the tutorial's pages of docs/tutorial from the chapters as they were executed, with their figures.

    python notebooks/run.py && python notebooks/pages.py
    python notebooks/pages.py --sources     # the code of the package that they display as it is now, all else as it was

Needs the extra `notebooks`.
"""

import ast
import base64
import re
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from tutorial import code_of

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "tutorial"
TEXT = "```text\n"
DISPLAYED = re.compile(r"^`unnoise[\w.]*`(?:, line \d+)?\n+```python\n.*?\n```$", re.M | re.S)  # code of the package


def page(chapter: str) -> tuple[str, dict[str, bytes]]:
    """A chapter's Markdown, and its figures by file name."""
    parts, images = [], {}
    for cell in nbformat.read(HERE / "executed" / f"{chapter}.ipynb", as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(prose(cell.source))
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            if png := output.get("data", {}).get("image/png"):
                name = f"{chapter}-{len(images) + 1}.png"
                images[name] = base64.b64decode(png)
                parts.append(f"![figure {len(images)} of chapter {chapter[0]}]({name})")
            elif (text := shown(output)).startswith(TEXT) and parts[-1].startswith(TEXT):  # what is printed comes in pieces
                parts[-1] = parts[-1].removesuffix("```") + text.removeprefix(TEXT)
            else:
                parts.append(text)
    return "\n\n".join(parts).rstrip() + "\n", images


def prose(text: str) -> str:
    """Text of a chapter, whose links lead from notebooks/ to docs/, for a page in docs/tutorial."""
    return text.replace("](../docs/", "](../")


def shown(output: Any) -> str:
    """What a cell printed, or Markdown that it displayed."""
    data = output.get("data", {})
    if "text/markdown" in data:
        return str(data["text/markdown"])
    text = output.get("text") or data.get("text/plain", "")
    return f"{TEXT}{text.rstrip()}\n```"


def code(chapter: str) -> list[str]:
    """The code of a chapter's cells, as it stands in notebooks/."""
    return [c.source for c in jupytext.read(HERE / f"{chapter}.py", fmt="py:percent").cells if c.cell_type == "code"]


def with_sources(text: str, chapter: str) -> str:
    """A page whose displayed code of the package is as it is now: what the chapter's calls of `source` name, in order."""
    names: dict[str, Any] = {}
    parts = []
    for cell in code(chapter):
        for node in ast.parse(cell).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(ast.unparse(node), names)
            elif re.fullmatch(r"source\(([\w.]+)\)", call := ast.unparse(node)):
                parts.append(eval(call[len("source(") : -1], names))
    new = iter(parts)
    found = DISPLAYED.sub(lambda _: code_of(next(new)), text)
    assert next(new, None) is None, chapter
    return found


def main() -> None:
    if sys.argv[1:] == ["--sources"]:
        for path in sorted(DOCS.glob("*.md")):
            path.write_text(with_sources(path.read_text(encoding="utf-8"), path.stem), encoding="utf-8")
        return
    DOCS.mkdir(parents=True, exist_ok=True)
    for chapter in sorted(p.stem for p in HERE.glob("[0-9]_*.py")):
        text, images = page(chapter)
        for old in DOCS.glob(f"{chapter}-*.png"):
            old.unlink()
        for name, data in images.items():
            (DOCS / name).write_bytes(data)
        (DOCS / f"{chapter}.md").write_text(with_sources(text, chapter), encoding="utf-8")
        print(f"docs/tutorial/{chapter}.md, {len(images)} figures, {sum(map(len, images.values())) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
