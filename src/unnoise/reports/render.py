"""Pages as HTML, one file that asks nothing of the network, and as markdown; writing them over no one else's file.

What a page shows may be a stranger's: it is escaped, texts lose codes that are not printable, and images are decoded and encoded
anew. Of scripts the browser runs the one of the template alone, by its hash (Content Security Policy, level 2).
"""

import base64
import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from unnoise.reports.blocks import Page
from unnoise.utils import atomic
from unnoise.utils.errors import UserError, printable
from unnoise.utils.names import MARK

TEMPLATES = Path(__file__).parent / "templates"
MARKS = {".html": f'<meta name="generator" content="{MARK[1]}">', ".md": f"<!-- {MARK[1]} -->"}
HEAD = 1024  # bytes of a file in which its mark stands
QUALITY = 90  # of JPEG
SPECIAL = re.compile(r"([\\`*_\[\]<>|#~&])")  # what markdown reads


def to_html(page: Page) -> str:
    """One file: style, script and images are in it."""
    return _render("page.html", page, lambda value: printable(value) if type(value) is str else value)


def to_markdown(page: Page) -> str:
    """The same content; images are files beside it."""
    return _render("page.md", page, lambda value: _escape_markdown(value) if type(value) is str else value)


def write(page: Page, path: Path) -> None:
    """Write a page to a name that ends in .html or .md, atomically. Raises UserError where another's file has it."""
    check_name(path)
    text = {".html": to_html, ".md": to_markdown}[path.suffix](page)
    atomic.write(path, lambda p: p.write_text(text, encoding="utf-8", errors="replace"))


def check_name(path: Path) -> None:
    """Raises UserError, before any work is done, if a page can't have this name, or a file that is no page of ours has it."""
    if path.suffix not in MARKS:
        raise UserError(f"this is written as {' or '.join(MARKS)}: give a name that ends so, not '{path}'")
    if path.is_dir():
        raise UserError(f"'{path}' is a folder: choose another name")
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(HEAD)
        if MARKS[path.suffix].encode() not in head:
            raise UserError(f"'{path}' is there already, and was not written by unnoise: choose another name, or remove it")


def _render(template: str, page: Page, finalize: Callable[[object], object]) -> str:
    """`finalize` is applied to each value that is shown."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=template.endswith(".html"), finalize=finalize,
                              trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)  # fmt: skip
    environment.filters.update(data_uri=data_uri, trusted=Markup, one_line=_one_line)
    script, style = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    return environment.get_template(template).render(page=page, script=Markup(script), policy=Markup(policy()),
                                                     style=Markup(style), mark=Markup(MARKS[Path(template).suffix]))  # fmt: skip


def policy() -> str:
    """The Content Security Policy of a page as HTML."""
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def data_uri(image: Image.Image) -> str:
    """An image within the page: PNG of grey ones, JPEG of those in colour."""
    kind, how = ("png", {}) if image.mode == "L" else ("jpeg", {"quality": QUALITY})
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _escape_markdown(text: str) -> str:
    return SPECIAL.sub(r"\\\1", " ".join(printable(text).split()))


def _one_line(text: str) -> Markup:
    """In an indented block of markdown nothing is read but the end of the line."""
    return Markup(" ".join(printable(text).split()))
