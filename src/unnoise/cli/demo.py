"""`unnoise demo`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from unnoise.cli.options import say
from unnoise.cli.sample import sample
from unnoise.cli.train import begin_run


def demo(run: Annotated[Path, arg(help="folder of the run")] = Path("runs/digits")) -> int:
    """Train on 8x8 digits for one minute, then sample 100 of them.

    Example: unnoise demo
    """
    from unnoise.presets import PRESETS

    folder, k = run, 2
    while folder.exists():
        folder, k = run.with_name(f"{run.name}-{k}"), k + 1
    if folder != run:
        say(f"'{run}' is there already, so this goes to '{folder}'.")
    if status := begin_run(folder, PRESETS["digits"]):
        return status
    sample(folder, n=100, out=folder / "generated")
    say(f"\nLook at:\n  {folder}/generated-grid.png   100 digits that your machine generated\n"
        f"  {folder}/strip.png            one digit's trajectory from noise, the model's estimate below\n"
        f"  {folder}/loss.png             the loss\n\nTry next:\n"
        f"  unnoise sample {folder} -n 1000 --seed 1 --out digits.npz\n"
        "  unnoise train --data YOUR/IMAGES --size 64 --minutes 60\n"
        f"  unnoise studio {folder.parent}   a page in your browser (pip install 'unnoise[studio]')")  # fmt: skip
    return 0
