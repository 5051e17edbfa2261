"""`unnoise data`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, as_options, data_changes, say
from unnoise.utils.errors import UserError, nearest

if TYPE_CHECKING:
    from unnoise.data.sources import DataConfig

ACTIONS = ("inspect", "list", "clear")
SHAPES = "--resize crop, which cuts the longer side, or pad or squash"


def data(
    action: Annotated[Positional[str], arg(help="inspect, list or clear")],
    source: Annotated[Positional[str | None], arg(help="to inspect: a data set's name, a folder, arrays or shards")] = None,
    root: Annotated[str | None, arg(help="the folder that holds a published data set")] = None,
    download: Annotated[bool, arg(help="fetch a published data set if it is not there")] = False,
    size: Annotated[str | None, arg(help="height and width: 64 or 48,64; without it one is suggested")] = None,
    labels: Annotated[str | None, arg(help="folder: the first sub-folder is the class; none: leave labels away")] = None,
    range: Annotated[str | None, arg(help="values that become black and white: 0,4095; all of 8 or 16 bits by default")] = None,
    bands: Annotated[str | None, arg(help="the bands that are red, green and blue, or grey, from 1: 1,2,3 or 4")] = None,
    out: Annotated[Path, arg(help="write a sheet of some of the images here (.png)")] = Path("sheet.png"),
    overwrite: Annotated[bool, arg(help="replace a file of that name that this program did not write")] = False,
    cache: Annotated[Path | None, arg(help="where decoded images are kept; the user's cache folder by default")] = None,
    json_: Annotated[bool, arg(name="json", help="print one JSON value and nothing else")] = False,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Inspect images and print their statistics, or list or clear the cache of decoded images.

    Without --size, files are looked at and not decoded: how many there are, their sizes and formats, what can't be read, and a
    size to train at.

    Examples: unnoise data inspect my/photos
              unnoise data inspect my/photos --size 64 --resize pad --labels folder
              unnoise data inspect fgvc-aircraft --root DIR --size 64 --data.source.level family
              unnoise data list --json
              unnoise data clear
    """
    if action not in ACTIONS:
        raise UserError(f"unknown action '{action}': {nearest(action, ACTIONS)}")
    if action != "inspect":
        return _look_at_cache(action, cache, json_)
    if source is None:
        raise UserError("say what to inspect: unnoise data inspect my/photos")
    from unnoise import figures
    from unnoise.recipe import Recipe, override

    figures.check_name(out, overwrite=True)

    asked = data_changes(source, root, download, size, labels, range, bands)
    return _inspect(override(Recipe(), asked | (changes or {})).data, out, cache, overwrite, json_)


def _inspect(config: "DataConfig", out: Path, cache: Path | None, overwrite: bool, as_json: bool) -> int:
    from unnoise import figures
    from unnoise.data.cache import FileSource
    from unnoise.data.dataset import split
    from unnoise.data.stats import describe
    from unnoise.data.survey import survey
    from unnoise.presets import fit_size
    from unnoise.utils.rng import stream

    if config.fit.size is None and isinstance(config.source, FileSource):
        found = survey(config.source.listing(), config.fit)
        if found.usual is None or fit_size(found.usual) != found.usual or len(set(found.sizes)) > 1:
            _print([*found.rows, *_suggest(found.usual)], found.skipped, as_json)
            return 0
    figures.check_name(out, overwrite=overwrite)
    images = config.load(cache)
    _print(describe(images, split(images, config.held_out)), images.skipped, as_json)
    order = stream(0, "figure").permutation(len(images))[:48]
    figures.save(figures.grid(images.read(order), columns=8), out, overwrite=overwrite)
    if not as_json:
        say(f"{out}: {len(order)} of them")
    return 0


def _suggest(usual: tuple[int, int] | None) -> Iterator[tuple[str, str]]:
    """A size to train at, and why."""
    from unnoise.presets import DEFAULT_SIDE, fit_size

    if usual is None:
        return
    h, w = fit_size(usual)
    why = (f"theirs, rounded down so that networks can halve it; all are brought to it by {SHAPES}" if max(usual) <= DEFAULT_SIDE
           else f"{DEFAULT_SIDE} is what an ordinary machine can learn in an hour, and twice the side takes about four times as "
           f"long; all are brought to it by {SHAPES}")  # fmt: skip
    yield "suggested", f"--size {h if h == w else f'{h},{w}'}: {why}"


def _print(rows: Iterable[tuple[str, str]], skipped: Sequence[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"rows": [[name, as_options(text)] for name, text in rows], "skipped": list(skipped)}))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in rows:
        table.add_row(name, Text(as_options(text)))
    Console().print(table)
    for reason in skipped:
        say(f"  skipped {as_options(reason)}")


def _look_at_cache(action: str, cache: Path | None, as_json: bool) -> int:
    from unnoise.data.cache import cache_folder, clear_cache, list_cache

    root = cache or cache_folder()
    if action == "clear":
        freed = clear_cache(cache)
        say(json.dumps({"freed": freed}) if as_json else f"{freed / 2**20:.1f} MiB freed in {root}")
        return 0
    if as_json:
        print(json.dumps([{**vars(entry), "folder": str(entry.folder)} for entry in list_cache(cache)]))
        return 0
    for entry in list_cache(cache):
        say(f"{entry.bytes / 2**20:8.1f} MiB  {entry.images:7} images  {entry.where}")
    say(f"in {root}; 'unnoise data clear' removes it all, and what is needed is decoded again")
    return 0
