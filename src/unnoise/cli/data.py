"""`unnoise data`."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, data_changes, say
from unnoise.utils.errors import UserError, nearest

ACTIONS = ("inspect", "list", "clear")


def data(
    action: Annotated[Positional[str], arg(help="inspect, list or clear")],
    source: Annotated[Positional[str | None], arg(help="to inspect: a data set's name, a folder, arrays or shards")] = None,
    root: Annotated[str | None, arg(help="the folder that holds a published data set")] = None,
    download: Annotated[bool, arg(help="fetch a published data set if it is not there")] = False,
    size: Annotated[str | None, arg(help="height and width: 64 or 48,64")] = None,
    out: Annotated[Path, arg(help="write a sheet of some of the images here (.png)")] = Path("sheet.png"),
    cache: Annotated[Path | None, arg(help="where decoded images are kept; the user's cache folder by default")] = None,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Inspect images and print their statistics, or list or clear the cache of decoded images.

    Examples: unnoise data inspect my/photos --size 64 --resize pad
              unnoise data inspect fgvc-aircraft --root DIR --size 64 --data.source.level family
              unnoise data list
              unnoise data clear
    """
    if action not in ACTIONS:
        raise UserError(f"unknown action '{action}': {nearest(action, ACTIONS)}")
    if action != "inspect":
        return _look_at_cache(action, cache)
    if source is None:
        raise UserError("say what to inspect: unnoise data inspect my/photos --size 64")
    if out.suffix != ".png":
        raise UserError(f"--out must end in .png, not '{out}'")
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from unnoise import figures
    from unnoise.data.dataset import split
    from unnoise.data.stats import describe
    from unnoise.recipe import Recipe, override
    from unnoise.utils.rng import stream

    config = override(Recipe(), data_changes(source, root, download, size) | (changes or {})).data
    images = config.load(cache)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in describe(images, split(images, config.held_out)):
        table.add_row(name, Text(text))
    Console().print(table)
    for reason in images.skipped:
        say(f"  skipped {reason}")
    order = stream(0, "figure").permutation(len(images))[:48]
    figures.save(figures.grid(images.read(order), columns=8), out)
    say(f"{out}: {len(order)} of them")
    return 0


def _look_at_cache(action: str, cache: Path | None) -> int:
    from unnoise.data.cache import cache_folder, clear_cache, list_cache

    root = cache or cache_folder()
    if action == "clear":
        say(f"{clear_cache(cache) / 2**20:.1f} MiB freed in {root}")
        return 0
    for entry in list_cache(cache):
        say(f"{entry.bytes / 2**20:8.1f} MiB  {entry.images:7} images  {entry.where}")
    say(f"in {root}; 'unnoise data clear' removes it all, and what is needed is decoded again")
    return 0
