"""What a page is made of, whatever it is written as: HTML and markdown show the same blocks."""

from dataclasses import dataclass
from typing import ClassVar

from PIL import Image


@dataclass(frozen=True)
class Text:
    """A paragraph; a `notice` stands out."""

    kind: ClassVar[str] = "text"
    text: str
    notice: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and what they are, a line each."""

    kind: ClassVar[str] = "facts"
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """Rows under a head; the first cell of each row names it."""

    kind: ClassVar[str] = "table"
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Code:
    """What to type."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Figure:
    """An image with what it shows (`alt`) and what is to be known of it; `path` is its file, from the folder of the page."""

    kind: ClassVar[str] = "figure"
    alt: str
    caption: str
    image: Image.Image
    path: str


@dataclass(frozen=True)
class Curve:
    """The same of a curve, as the text of an SVG; `path` is the file of an image of it."""

    kind: ClassVar[str] = "curve"
    alt: str
    caption: str
    svg: str
    path: str | None


@dataclass(frozen=True)
class Stages:
    """Figures that a slider leads through, each with its name."""

    kind: ClassVar[str] = "stages"
    caption: str
    figures: tuple[tuple[str, Figure], ...]


Block = Text | Facts | Table | Code | Figure | Curve | Stages


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A title, the sentence that says it all, and sections."""

    kind: str
    title: str
    lead: str
    sections: tuple[Section, ...]
    footer: str
