"""What the verbs share: output, progress bars, and options as changes to a recipe."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from unnoise.utils.errors import UserError, printable
from unnoise.utils.names import PARTS

Changes = dict[str, Any]
OWN = {"training.steps": "--steps", "training.minutes": "--minutes", "training.epochs": "--training.epochs",
       "training.batch": "--batch", "training.seed": "--seed", "training.stop_when_copying": "--stop-when-copying",
       "training.tracker": "--tracker", "data.size": "--size", "data.range": "--range", "data.bands": "--bands",
       "data.resize": "--resize", "data.source.root": "--root", "data.source.download": "--download",
       "data.source.subfolders": "--labels folder"}  # fmt: skip
FIELD = re.compile(r"(?<![\w./'-])(?:data|schedule|target|network|training|sampling)(?:\.[a-z_0-9]+)+\b")
SIDES = re.compile(r"^(\d+) ?[x×] ?(\d+)$")
ARGUMENT = re.compile(r"`([a-z_]+)`")
PART = re.compile(r"\bchoose (?:[a-z]+ )*?(schedule|target|network|loss|sampler) (?=[a-z0-9+-]+)")


def say(text: str) -> None:
    print(printable(text), flush=True)


def say_of_run(text: str) -> None:
    """The same for what a library says, which names fields of the recipe."""
    say(as_options(text))


def as_options(message: str) -> str:
    """A message whose fields of a recipe are shown as the options that set them."""
    message = ARGUMENT.sub(lambda m: f"--{m[1].replace('_', '-')}", message)
    message = FIELD.sub(lambda m: OWN.get(m[0], f"--{m[0].replace('_', '-')}"), message)
    return PART.sub(lambda m: m[0].replace(m[1], f"--{m[1]}"), message)


def _value(text: str) -> Any:
    """An option's text: JSON where it is JSON, `a,b` and `HxW` as a list, else itself."""
    text = SIDES.sub(r"\1,\2", text)
    try:
        return json.loads(text)
    except ValueError:
        return [_value(t) for t in text.split(",")] if "," in text else text


def name_of(part: object) -> str:
    """The name by which a part is chosen."""
    from unnoise.registry import to_json

    name: str = to_json(part)["name"]
    return name


@contextmanager
def progress_bar(total: int, what: str, shown: bool = True) -> Iterator[Callable[[float], None]]:
    """How much is done and the time left, a bar in a terminal and else a line now and then; called with each further amount."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console()
    columns = (MofNCompleteColumn(), TextColumn(what), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    if shown and (not console.is_terminal or console.is_dumb_terminal):
        yield Lines(total, what)
        return
    with Progress(*columns, console=console, disable=not shown) as bar:
        task = bar.add_task(what, total=total)
        yield partial(bar.advance, task)


class Lines:
    """Progress where there is no terminal, as in a log."""

    def __init__(self, total: int, what: str) -> None:
        self.total, self.what, self.done = total, what, 0.0
        self.begun = self.said = time.perf_counter()

    def __call__(self, amount: float) -> None:
        """So much more is done."""
        from unnoise.runs import progress

        self.done += amount
        now = time.perf_counter()
        if now - self.said >= progress.LINE_EVERY and 0 < self.done < self.total:
            self.said = now
            left = (now - self.begun) * (self.total / self.done - 1) / 60
            say(f"{self.done:.0f} of {self.total} {self.what}, {left:.1f} minutes left")


def track(done: Iterator[int], total: int, what: str, shown: bool = True) -> Iterator[int]:
    """The same counts, with a bar while they come."""
    before = 0
    with progress_bar(total, what, shown) as advance:
        for count in done:
            advance(count - before)
            before = count
            yield count


def whole_number(text: str, wanted: str) -> int:
    """Raises UserError with `wanted` where the text is no whole number of at least 1."""
    if not text.isdigit() or not int(text):
        raise UserError(f"{wanted}, not '{text}'")
    return int(text)


def split_dotted(arguments: list[str], short: bool) -> tuple[list[str], Changes]:
    """Split off `--part.field value` (or `=value`), and with `short` the parts named in PARTS."""
    plain: list[str] = []
    dotted: Changes = {}
    rest = iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        is_short = short and name.removeprefix("--") in PARTS and name.startswith("--")
        if not is_short and not (name.startswith("--") and "." in name and "/" not in name):
            plain.append(word)
            continue
        found = value if equals else next(rest, None)
        if found is None:
            raise UserError(f"{name} needs a value")
        dotted[PARTS[name[2:]] if is_short else name[2:]] = _value(found)
    return plain, dotted


def data_changes(data: str | None, root: str | None = None, download: bool = False, size: str | None = None,
                 labels: str | None = None, value_range: str | None = None, bands: str | None = None) -> Changes:  # fmt: skip
    """The options of data as recipe fields. Raises UserError for what they can't be."""
    from unnoise.registry import source_of

    asked: Changes = {} if data is None else {"data.source": source_of(data)}
    if root is not None:
        asked["data.source.root"] = root
    if download:
        asked["data.source.download"] = True
    if size is not None:
        sides = _numbers(size, (1, 2), "--size is a side or height,width in pixels, e.g. 64 or 48,64")
        asked["data.size"] = [sides[0], sides[-1]]
    if value_range is not None:
        asked["data.range"] = _numbers(value_range, (2,), "--range is what becomes black and white, e.g. 0,4095", whole=False)
    if bands is not None:
        asked["data.bands"] = _numbers(bands, (1, 3), "--bands is one or three numbers of bands from 1, e.g. 1,2,3")
    return asked | _label_changes(labels, asked.get("data.source"), data)


def _numbers(text: str, counts: tuple[int, ...], wanted: str, whole: bool = True) -> list[float]:
    """`a,b` as so many numbers. Raises UserError with `wanted`."""
    value = _value(text)
    values = value if isinstance(value, list) else [value]
    kinds = (int,) if whole else (int, float)
    if len(values) not in counts or any(type(v) not in kinds for v in values):
        raise UserError(f"{wanted}, not '{text}'")
    return values


def _label_changes(labels: str | None, source: object, data: str | None) -> Changes:
    from unnoise.data.folder import ImageFolder

    if labels not in (None, "folder", "none"):
        raise UserError(f"--labels is folder or none, not '{labels}'")
    if labels == "folder" and not isinstance(source, ImageFolder):
        what = "give --data FOLDER" if data is None else f"'{data}' is none, and labels of its own are used anyway"
        raise UserError(f"--labels folder takes the sub-folders of a folder of images as classes: {what}")
    return {"folder": {"data.source.subfolders": True}, "none": {"data.labels": False}}.get(labels or "", {})
