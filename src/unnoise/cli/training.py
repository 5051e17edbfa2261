"""`unnoise demo` and `unnoise train`."""

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.drawing import sample
from unnoise.cli.options import Changes, data_changes, say, whole_number
from unnoise.errors import UserError, nearest

if TYPE_CHECKING:
    from unnoise.recipe import Recipe
    from unnoise.run import Run
    from unnoise.training import TrainingRecord

LINE_EVERY = 30.0  # seconds


def demo(run: Annotated[Path, arg(help="folder of the run")] = Path("runs/digits")) -> int:
    """Train on 8x8 digits for one minute, then draw 100 of them.

    Example: unnoise demo
    """
    from unnoise.presets import PRESETS

    folder, k = run, 2
    while folder.exists():
        folder, k = run.with_name(f"{run.name}-{k}"), k + 1
    if folder != run:
        say(f"'{run}' is there already, so this goes to '{folder}'.")
    if status := begin(folder, PRESETS["digits"]):
        return status
    sample(folder, n=100, out=folder / "drawn")
    say(f"\nLook at:\n  {folder}/drawn-grid.png   100 digits that your machine drew\n"
        f"  {folder}/strip.png        one digit's way from noise, the model's estimate below\n"
        f"  {folder}/loss.png         how it learned\n\nTry next:\n"
        f"  unnoise sample {folder} -n 1000 --seed 1 --out digits.npz\n"
        "  unnoise train --data YOUR/PICTURES --size 64 --minutes 60")  # fmt: skip
    return 0


def train(
    preset: Annotated[Positional[str | None], arg(help="a preset: digits, fashion-mnist, pictures, notebook")] = None,
    data: Annotated[str | None, arg(help="a set's name, a folder of pictures, or an .npz")] = None,
    root: Annotated[str | None, arg(help="the folder that holds a published set, e.g. fgvc-aircraft-2013b")] = None,
    download: Annotated[bool, arg(help="fetch a published set if it is not there")] = False,
    size: Annotated[str | None, arg(help="height and width of the pictures: 64 or 48,64")] = None,
    run: Annotated[Path | None, arg(help="folder to write to; runs/NAME by default")] = None,
    resume: Annotated[Path | None, arg(help="go on with this run; takes no other option")] = None,
    steps: Annotated[int | None, arg(help="train for this many steps")] = None,
    minutes: Annotated[float | None, arg(help="train for this long; the number of steps is measured")] = None,
    batch: Annotated[str | None, arg(help="pictures a step; auto: the size that trains fastest, measured before")] = None,
    seed: Annotated[int | None, arg(help="of every random draw")] = None,
    labels: Annotated[str | None, arg(help="folder: the first sub-folder is the class; none: train without")] = None,
    strict: Annotated[bool, arg(help="stop if a file can't be read, instead of leaving it out")] = False,
    cache: Annotated[Path | None, arg(help="where decoded pictures are kept; the user's cache folder by default")] = None,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Train a model on pictures, or go on with a run that stopped.

    Parts go by --schedule, --target, --network, --loss, --sampler and --resize (a wrong name is answered with those that there
    are), any other field of the recipe by its dotted name, e.g. --network.widths 32,64; `unnoise info PRESET` shows them all.

    Examples: unnoise train digits --minutes 2
              unnoise train --data my/photos --size 64 --minutes 60
              unnoise train digits --schedule cosine --target velocity --sampling.steps 30
              unnoise train --resume runs/photos
    """
    from unnoise.data.local import Folder
    from unnoise.presets import PRESETS
    from unnoise.processes import Processes
    from unnoise.recipe import override
    from unnoise.run import Run

    if resume is not None:
        team = Processes.join()
        with team.together():
            return _follow(Run.resume(resume, say, cache, team))
    # Small square pictures, in which text may not be mirrored, are alike enough to share a preset.
    alike = {"mnist": "fashion-mnist", "cifar10": "fashion-mnist"}
    chosen = preset or (alike.get(data, data if data in PRESETS else "pictures") if data else "digits")
    if chosen not in PRESETS:
        raise UserError(f"unknown preset '{chosen}': {nearest(chosen, PRESETS)}")
    size_asked = 0 if batch == "auto" else None if batch is None else whole_number(batch, "--batch is auto or a number")
    given = {"training.steps": steps, "training.minutes": minutes, "training.batch": size_asked, "training.seed": seed}
    asked: Changes = {k: v for k, v in given.items() if v is not None} | data_changes(data, root, download, size)
    if labels == "folder":
        asked["data.source.subfolders"] = True
    elif labels == "none":
        asked["data.labels"] = False
    elif labels is not None:
        raise UserError(f"--labels is folder or none, not '{labels}'")
    if steps is not None and minutes is None:
        asked["training.minutes"] = None
    recipe = override(PRESETS[chosen], asked | (changes or {}))
    if recipe.data.source == Folder():
        raise UserError(f"the preset '{chosen}' needs pictures: give --data FOLDER")
    if preset is None:
        say(f"the preset '{chosen}' ('unnoise info {chosen}' shows it)")
    name = Path(data).stem if data else None
    return begin(run or Path("runs") / (name or chosen), recipe, strict, cache)


def begin(folder: Path, recipe: "Recipe", strict: bool = False, cache: Path | None = None) -> int:
    from unnoise.processes import Processes
    from unnoise.run import Run

    team = Processes.join()
    with team.together():
        return _follow(Run.begin(folder, recipe, say, strict, cache, team))


def _follow(run: "Run") -> int:
    """Train with progress; on Ctrl-C keep everything and say how to go on."""
    from unnoise.run import Stop

    with Stop() as stop, Shown(run) as shown:
        for record in run.train(lambda: stop.asked):
            shown.update(record)
        asked = stop.asked
    if run.processes.any(asked):
        run.say(f"stopped at step {run.training.step}; all is kept. Go on with: unnoise train --resume {run.folder}")
        return 128 + (asked or signal.SIGTERM)
    run.finish()
    run.say(f"trained {run.training.step} steps{shown.facts and f', {shown.facts}'}: {run.folder}")
    run.processes.leave()
    return 0


class Shown:
    """Training on the screen: a bar in a terminal; elsewhere, such as in a file, a line now and then."""

    def __init__(self, run: "Run") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (TextColumn("step {task.completed}"), BarColumn(), TextColumn("{task.fields[facts]}"),
                   TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
        console = Console()
        self.run, self.mean, self.facts, self.bar = run, 0.0, "", console.is_terminal and run.processes.first
        self._progress = Progress(*columns, console=console, disable=not self.bar)
        self._task = self._progress.add_task("train", total=run.training.total, completed=run.training.step, facts="")
        self._begun, self._said = time.perf_counter(), time.perf_counter()
        self._before = run.training.step

    def __enter__(self) -> "Shown":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def update(self, r: "TrainingRecord") -> None:
        """Show one more step."""
        self.mean = r.loss if not self.facts else 0.98 * self.mean + 0.02 * r.loss
        self.facts = f"loss {self.mean:.4f}, {r.pictures_per_second:.0f} pictures/s"
        if self.bar:
            self._progress.update(self._task, completed=r.step, total=r.total, facts=self.facts)
        elif (now := time.perf_counter()) - self._said > LINE_EVERY:
            self._said, left = now, ""
            if r.total:
                left = f", {(r.total - r.step) * (now - self._begun) / (r.step - self._before) / 60:.1f} minutes left"
            self.run.say(f"step {r.step}{f' of {r.total}' if r.total else ''}: {self.facts}{left}")
