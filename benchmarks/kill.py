"""Work killed at random moments and at the worst ones: is anything ever lost, unreadable or different?

    python benchmarks/kill.py                   # about 300 kills
    python benchmarks/kill.py --random 10 --each 2

Each trial is a process that works until SIGKILL; then another does the same work again on what is there, to the end. Counted are:
second starts that failed, results that differ from those of unbroken work (to the bit), steps lost (at most the one in progress
may be), and temporary files left. Training saves a checkpoint after every step, so that most kills meet a save. Exits with 1
where anything was lost.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unnoise.data import cache
from unnoise.data.fit import Fit
from unnoise.data.folder import ImageFolder
from unnoise.model import Model
from unnoise.presets import PRESETS
from unnoise.recipe import override
from unnoise.run_folder import RunFolder
from unnoise.runs import generate as generation
from unnoise.runs.averages import make_average
from unnoise.runs.loggers import JsonlLogger
from unnoise.runs.resume import resume
from unnoise.runs.start import begin
from unnoise.training import checkpoint
from unnoise.utils import atomic

STEPS = 12
RECIPE = override(PRESETS["digits"], {
    "network": "unet", "network.widths": [16, 32], "network.blocks": 1, "network.embedding": 32, "training.precision": "fp32",
    "training.minutes": None, "training.steps": STEPS, "training.batch": 32, "training.learning_rate": 1e-3,
    "training.save_every": 1e-9, "training.sample_every": 1e9, "training.sample_count": 1, "training.extra_ema": [0.05],
    "training.snapshots": 4, "sampling.steps": 1,
})  # fmt: skip
Prepare = Callable[[], None]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def silent(_: str) -> None:
    pass


def before(module: object, name: str, accepts: Callable[[tuple[object, ...]], bool], count: int = 1) -> None:
    """Die when `module.name` is called for the `count`-th time with arguments that `accepts` is true of."""
    real, seen = getattr(module, name), [0]

    def patched(*args: object, **options: object) -> object:
        seen[0] += accepts(args)
        if accepts(args) and seen[0] == count:
            die()
        return real(*args, **options)

    setattr(module, name, patched)


def ends(text: str) -> Callable[[tuple[object, ...]], bool]:
    return lambda arguments: str(arguments[0]).endswith(text)


def half_a_line() -> None:
    """Die within the line that tells of the fifth step."""
    append = JsonlLogger._append

    def patched(self: JsonlLogger, path: Path, line: dict[str, object]) -> None:
        if line["step"] == 5:
            with path.open("a") as file:
                file.write(json.dumps(line)[:20])
            die()
        append(self, path, line)  # type: ignore[arg-type]

    JsonlLogger._append = patched  # type: ignore[method-assign,assignment]


@dataclass(frozen=True)
class Work:
    """Something that is done in a folder, its result, and the moments in it to die at; `source` holds a run and images."""

    do: Callable[[Path, Path], None]
    result: Callable[[Path], str]
    points: dict[str, Prepare]


def train(folder: Path, source: Path) -> None:
    run = folder / "run"
    trainer = resume(run, silent) if (run / "recipe.json").exists() else begin(run, RECIPE, silent)
    (folder / "from").write_text(str(trainer.state.step))
    for _ in trainer.train():
        pass


def decode(folder: Path, source: Path) -> None:
    images = ImageFolder(str(source / "images")).read(Fit((8, 8)), folder / "cache")
    np.save(folder / "pixels.npy", images.pixels)


def sample(folder: Path, source: Path) -> None:
    model = Model.load(source / "run")
    for _ in generation.generate(model, generation.Generation.of(model, 12, 0, 2, model.info.recipe.sampling), folder / "a.npz"):
        pass


def average(folder: Path, source: Path) -> None:
    if not (folder / "average" / "recipe.json").exists():
        make_average(source / "run", 0.12, folder / "average")


def digest(*names: str) -> Callable[[Path], str]:
    def of(folder: Path) -> str:
        return " ".join(hashlib.sha256((folder / name).read_bytes()).hexdigest()[:12] for name in names)

    return of


def digest_arrays(folder: Path) -> str:
    with np.load(folder / "a.npz") as file:
        return hashlib.sha256(file["images"].tobytes()).hexdigest()[:12]


WORK = {
    "training": Work(train, digest("run/model.safetensors", f"run/checkpoints/{STEPS:06d}/optimizer.safetensors"), {
        "before the recipe is there": lambda: before(Path, "replace", lambda a: str(a[1]).endswith("recipe.json")),
        "within a line of the log": half_a_line,
        "while the tensors are written": lambda: before(checkpoint, "_sha256", lambda a: "average" in str(a[0]), 5),
        "before the folder is renamed": lambda: before(atomic, "flush_folder", ends(".tmp"), 5),
        "before the pointer is moved": lambda: before(atomic, "write", ends("latest"), 5),
        "while an old one is removed": lambda: before(shutil, "rmtree", lambda a: Path(str(a[0])).name.isdigit(), 2),
        "before the model for use is written": lambda: before(checkpoint, "save_tensors", ends("model.safetensors"), 5),
        "before an average is stored": lambda: before(checkpoint, "save_tensors", lambda a: "snapshots" in str(a[0]), 3),
    }),
    "decoding": Work(decode, digest("pixels.npy"), {
        "within a chunk": lambda: before(cache, "hash_images", lambda a: True, 100),
        "between two chunks": lambda: before(atomic, "write", ends("state.npy"), 2),
        "before it is complete": lambda: before(atomic, "write_json", ends("about.json")),
        "before the folder is renamed": lambda: before(Path, "rename", lambda a: True),
    }),
    "sampling": Work(sample, digest_arrays, {
        "before a batch is written": lambda: before(np, "save", lambda a: True, 3),
        "before a batch is renamed": lambda: before(Path, "replace", lambda a: str(a[1]).endswith(".npy"), 3),
        "before all are joined": lambda: before(generation, "_join", lambda a: True),
        "before the parts are removed": lambda: before(generation, "_remove", lambda a: True),
    }),
    "averaging": Work(average, digest("average/model.safetensors"), {
        "before the recipe is there": lambda: before(Path, "replace", lambda a: str(a[1]).endswith("recipe.json")),
    }),
}  # fmt: skip


def in_child(work: Callable[[], None]) -> int:
    """Fork, run `work` in the child, and give its process number."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException as e:
        print(f"  {type(e).__name__}: {e}", flush=True)
        os._exit(1)


def trial(work: Work, folder: Path, source: Path, prepare: Prepare | None, delay: float) -> dict[str, object]:
    """Work until killed, then again to the end: whether that worked, what it gave, steps lost, temporary files left."""
    folder.mkdir()

    def first() -> None:
        if prepare is not None:
            prepare()
        work.do(folder, source)

    child = in_child(first)
    if prepare is None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    reached = max((r["step"] for r in atomic.read_records(RunFolder(folder / "run").metrics)), default=0)
    worked = os.waitpid(in_child(lambda: work.do(folder, source)), 0)[1] == 0
    again = int((folder / "from").read_text()) if (folder / "from").exists() else 0
    left = [p for p in folder.rglob("*") if ".tmp" in p.name]
    return {"killed": killed, "worked": worked, "result": work.result(folder) if worked else "", "lost": reached - again,
            "left": len(left)}  # fmt: skip


def prepare_source(source: Path) -> None:
    """A trained run, and 1200 images to decode."""
    train(source, source)
    (source / "images").mkdir()
    for k, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (1200, 12, 12, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(source / "images" / f"{k}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=100, help="kills of training at a random moment; of other work a tenth")
    parser.add_argument("--each", type=int, default=10, help="kills at each point")
    parser.add_argument("--only", nargs="+", choices=WORK, default=list(WORK))
    a = parser.parse_args()
    torch.set_num_threads(1)  # so that no thread exists yet when a child is forked
    random.seed(0)
    anything_lost = False
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "source"
        source.mkdir()
        os.waitpid(in_child(lambda: prepare_source(source)), 0)
        for name, work in ((name, WORK[name]) for name in a.only):
            begun, folder = time.monotonic(), Path(temporary) / "unbroken"
            folder.mkdir()
            os.waitpid(in_child(lambda work=work, folder=folder: work.do(folder, source)), 0)  # type: ignore[misc]
            took, expected = time.monotonic() - begun, work.result(folder)
            shutil.rmtree(folder)
            points: dict[str, tuple[Prepare | None, int]] = {
                "at a random moment": (None, a.random if name == "training" else a.random // 10),
                **{point: (prepare, a.each) for point, prepare in work.points.items()},
            }
            for point, (prepare, count) in points.items():
                found = []
                for _ in range(count):
                    found.append(trial(work, Path(temporary) / "trial", source, prepare, random.uniform(0.1, 1) * took))
                    shutil.rmtree(Path(temporary) / "trial")
                row = {"work": name, "killed": point, "times": sum(bool(f["killed"]) for f in found),
                       "failed starts": sum(not f["worked"] for f in found),
                       "other results": sum(f["result"] != expected for f in found),
                       "most steps lost": max((int(str(f["lost"])) for f in found), default=0),
                       "temporary files left": sum(int(str(f["left"])) for f in found)}  # fmt: skip
                print(json.dumps(row), flush=True)
                assert row["times"] or prepare is None, f"{name} does not come by the point '{point}'"
                anything_lost |= bool(row["failed starts"] or row["other results"] or int(str(row["most steps lost"])) > 1)
    sys.exit(int(anything_lost))


if __name__ == "__main__":
    main()
