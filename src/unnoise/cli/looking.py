"""`unnoise data`, `info` and `doctor`: what there is."""

import json
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, data_changes, say
from unnoise.errors import UserError, nearest


def data(
    source: Annotated[Positional[str], arg(help="a set's name, a folder, or an .npz")],
    root: Annotated[str | None, arg(help="the folder that holds a published set")] = None,
    download: Annotated[bool, arg(help="fetch a published set if it is not there")] = False,
    size: Annotated[str | None, arg(help="height and width: 64 or 48,64")] = None,
    out: Annotated[Path | None, arg(help="write a sheet of the first 36 pictures here (.png)")] = None,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Read pictures and say what they are. Fields of the recipe's data go by their dotted names.

    Examples: unnoise data my/photos --size 64 --out sheet.png
              unnoise data fgvc-aircraft --root DIR --size 64 --data.source.level family
    """
    from unnoise import figures
    from unnoise.data.pictures import split
    from unnoise.recipe import Recipe, override

    plan = override(Recipe(), data_changes(source, root, download, size) | (changes or {})).data
    pictures = plan.load()
    parts = split(pictures, plan.held_out)
    c, h, w = pictures.shape
    say(f"{len(pictures)} pictures of {h}x{w}, {'grey' if c == 1 else 'colour'}, {pictures.pixels.nbytes / 2**20:.1f} MiB; "
        f"{len(parts.train)} to train on, {len(parts.held_out)} held out")  # fmt: skip
    scaled = pictures.pixels.astype("float32") / 127.5 - 1
    say(f"pixels on [-1, 1]: mean {scaled.mean():.3f}, standard deviation {scaled.std():.3f} (sigma_data)")
    if pictures.classes:
        say(f"{len(pictures.classes)} classes: {', '.join(pictures.classes[:20])}")
    for reason in pictures.skipped:
        say(f"skipped {reason}")
    if out is not None:
        if out.suffix != ".png":
            raise UserError(f"--out must end in .png, not '{out}'")
        figures.save(figures.grid(pictures.pixels[:36]), out)
    return 0


def info(what: Annotated[Positional[str], arg(help="a run folder or a preset")]) -> int:
    """Print a run's or a preset's whole recipe: every field that an option can change.

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
    from unnoise.model import choose_device
    from unnoise.training import bf16_pays

    device = choose_device()
    pays, gain = bf16_pays(device)
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    say(f"unnoise {__version__}, python {platform.python_version()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}\n"
        f"devices: cpu{''.join(', ' + g for g in gpus)}; {torch.get_num_threads()} threads\n"
        f"bf16: {gain:.2f} times the speed of fp32 (measured on a 3x3 convolution)\n"
        f"will use: {device}, {'bf16' if pays else 'fp32'}")  # fmt: skip
    return 0
