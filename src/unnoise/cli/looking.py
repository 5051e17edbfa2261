"""`unnoise data`, `info` and `doctor`: what there is."""

import json
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, data_changes, say
from unnoise.errors import UserError, nearest

ACTIONS = ("inspect", "list", "clear")


def data(
    action: Annotated[Positional[str], arg(help="inspect, list or clear")],
    source: Annotated[Positional[str | None], arg(help="to inspect: a set's name, a folder, arrays or shards")] = None,
    root: Annotated[str | None, arg(help="the folder that holds a published set")] = None,
    download: Annotated[bool, arg(help="fetch a published set if it is not there")] = False,
    size: Annotated[str | None, arg(help="height and width: 64 or 48,64")] = None,
    out: Annotated[Path, arg(help="write a sheet of some of the pictures here (.png)")] = Path("sheet.png"),
    cache: Annotated[Path | None, arg(help="where decoded pictures are kept; the user's cache folder by default")] = None,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Inspect pictures and say what is there, or list or clear what was decoded before.

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

    from unnoise import draws, figures
    from unnoise.data.inspect import inspect
    from unnoise.data.pictures import split
    from unnoise.recipe import Recipe, override

    asked = data_changes(source, root, download, size) | (changes or {})
    plan = override(Recipe(), asked).data
    pictures = plan.load(cache)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, text in inspect(pictures, split(pictures, plan.held_out)):
        table.add_row(name, Text(text))
    Console().print(table)
    for reason in pictures.skipped:
        say(f"  skipped {reason}")
    order = draws.stream(0, "figure").permutation(len(pictures))[:48]
    figures.save(figures.grid(pictures.read(order), columns=8), out)
    say(f"{out}: {len(order)} of them")
    return 0


def _look_at_cache(action: str, cache: Path | None) -> int:
    from unnoise.data.cache import cache_folder, clear_cache, list_cache

    root = cache or cache_folder()
    if action == "clear":
        say(f"{clear_cache(cache) / 2**20:.1f} MiB freed in {root}")
        return 0
    for kept in list_cache(cache):
        say(f"{kept.bytes / 2**20:8.1f} MiB  {kept.pictures:7} pictures  {kept.where}")
    say(f"in {root}; 'unnoise data clear' removes it all, and what is needed is decoded again")
    return 0


def runs(folder: Annotated[Positional[Path], arg(help="the folder that holds runs")] = Path("runs")) -> int:
    """List the runs in a folder: state, step, loss (mean of the last 50), best held-out loss.

    Example: unnoise runs
    """
    from unnoise.runs import list_runs

    found = list_runs(folder)
    if not found:
        raise UserError(f"no runs in '{folder}': begin one with 'unnoise train' or 'unnoise demo'")
    for r in found:
        of = f" of {r.total}" if r.total else ""
        losses = [f"{name} {value:.4f}" for name, value in (("loss", r.loss), ("held out", r.best)) if value is not None]
        say(f"{r.folder}: {r.state}, step {r.step}{of}" + (f", {', '.join(losses)}" if losses else ""))
    return 0


def info(what: Annotated[Positional[str], arg(help="a run folder or a preset")]) -> int:
    """Print a preset's or a run's whole recipe: every field that an option can change.

    Examples: unnoise info digits
              unnoise info runs/digits
    """
    from unnoise.presets import PRESETS
    from unnoise.recipe import load_run, to_json

    if what not in PRESETS and not Path(what).is_dir():
        raise UserError(f"no run folder or preset '{what}': {nearest(what, PRESETS)}")
    say(json.dumps(to_json(PRESETS[what] if what in PRESETS else load_run(Path(what))), indent=2))
    return 0


def doctor() -> int:
    """Print versions, devices, threads, whether bf16 is fast here (measured), and what will be used."""
    import platform

    import torch
    import torchvision

    from unnoise import __version__
    from unnoise.precision import bf16_pays
    from unnoise.processes import choose_device

    device = choose_device()
    pays, gain = bf16_pays(device)
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    say(f"unnoise {__version__}, python {platform.python_version()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}\n"
        f"devices: cpu{''.join(', ' + g for g in gpus)}; {torch.get_num_threads()} threads\n"
        f"bf16: {gain:.2f} times the speed of fp32 (measured on a 3x3 convolution)\n"
        f"will use: {device}, {'bf16' if pays else 'fp32'}")  # fmt: skip
    return 0
