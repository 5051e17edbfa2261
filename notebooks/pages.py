"""Make the tutorial's pages of docs/tutorial from the chapters as they were executed, with their figures.

python notebooks/run.py && python notebooks/pages.py
"""

import base64
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "tutorial"
TEXT = "```text\n"
LINE = re.compile(r"(`unnoise[\w.]*`), line \d+")  # of displayed code: it moves with every change


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
        return LINE.sub(r"\1", data["text/markdown"]).replace("\n```python", "\n\n```python")
    text = output.get("text") or data.get("text/plain", "")
    return f"{TEXT}{text.rstrip()}\n```"


def code(chapter: str) -> list[str]:
    """The code of a chapter's cells, as it stands in notebooks/."""
    return [c.source for c in jupytext.read(HERE / f"{chapter}.py", fmt="py:percent").cells if c.cell_type == "code"]


def main() -> None:
    DOCS.mkdir(parents=True, exist_ok=True)
    for chapter in sorted(p.stem for p in HERE.glob("[0-9]_*.py")):
        text, images = page(chapter)
        for old in DOCS.glob(f"{chapter}-*.png"):
            old.unlink()
        for name, data in images.items():
            (DOCS / name).write_bytes(data)
        (DOCS / f"{chapter}.md").write_text(text, encoding="utf-8")
        print(f"docs/tutorial/{chapter}.md, {len(images)} figures, {sum(map(len, images.values())) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
