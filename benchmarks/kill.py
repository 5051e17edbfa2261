"""Training killed at random moments and inside a save: is anything ever lost or unreadable?

    python benchmarks/kill.py                   # 100 random kills, and 20 at each of 5 points inside a save
    python benchmarks/kill.py --random 10 --each 2

A checkpoint is saved after every step, so that most kills meet a save. Each trial is a process that trains on digits until
SIGKILL; then another process resumes from what is there. Counted are: starts that failed, steps lost (at most the one in
progress may be), and temporary files left after the next start.
"""

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from unnoise.presets import PRESETS
from unnoise.recipe import override
from unnoise.run_folder import RunFolder
from unnoise.runs.resume import resume
from unnoise.runs.start import begin
from unnoise.training import checkpoint
from unnoise.utils import atomic

RECIPE = override(PRESETS["digits"], {
    "network.widths": [16, 32], "network.blocks": 1, "network.embedding": 32, "training.precision": "fp32",
    "training.minutes": None, "training.steps": 100_000, "training.save_every": 1e-9, "training.sample_every": 1e9,
    "training.sample_count": 1, "sampling.steps": 1,
})  # fmt: skip


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def silent(_: str) -> None:
    pass


def before(module: object, name: str, accepts: Callable[[tuple[object, ...]], bool]) -> None:
    """Die when `module.name` is called with arguments that `accepts` is true of."""
    real = getattr(module, name)

    def patched(*args: object, **options: object) -> object:
        if accepts(args):
            die()
        return real(*args, **options)

    setattr(module, name, patched)


# Where inside a save to die; each is set up in the process that trains.
POINTS: dict[str, Callable[[], None]] = {
    "while the tensors are written": lambda: before(checkpoint, "_sha256", lambda a: "average" in str(a[0])),
    "before the folder is renamed": lambda: before(atomic, "flush_folder", lambda a: str(a[0]).endswith(".tmp")),
    "before the pointer is moved": lambda: before(atomic, "write", lambda a: str(a[0]).endswith("latest")),
    "while an old one is removed": lambda: before(shutil, "rmtree", lambda a: Path(str(a[0])).name.isdigit()),
    "before the model for use is written": lambda: before(
        checkpoint, "save_tensors", lambda a: str(a[0]).endswith("model.safetensors")
    ),
}


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


def trial(folder: Path, prepare: Callable[[], None] | None, delay: float) -> tuple[bool, int, int]:
    """Train until killed, then resume: whether that worked, how many steps were lost, how many temporary files are left."""

    def run(until: int | None) -> None:
        fresh = not (folder / "recipe.json").exists()
        trainer = begin(folder, RECIPE, silent) if fresh else resume(folder, silent)
        first = trainer.state.step
        (folder / "from").write_text(str(first))
        if prepare is not None and until is None:
            for record in trainer.train():
                if record.step >= first + 3:
                    prepare()
        for record in trainer.train():
            if until is not None and record.step >= first + until:
                break

    child = in_child(lambda: run(None))
    if prepare is None:
        deadline = time.monotonic() + 60
        while not (folder / "checkpoints" / "latest").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    reached = max((r["step"] for r in atomic.read_records(RunFolder(folder).metrics)), default=0)
    child = in_child(lambda: run(0))
    worked = os.waitpid(child, 0)[1] == 0
    lost = reached - int((folder / "from").read_text())
    left = [p for p in folder.rglob("*") if ".tmp" in p.name]
    return worked, lost, len(left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=100)
    parser.add_argument("--each", type=int, default=20)
    a = parser.parse_args()
    torch.set_num_threads(1)  # so that no thread exists yet when a child is forked
    RECIPE.data.load()  # imports what each child would import anew
    random.seed(0)
    trials = [("at a random moment", None)] * a.random + [(name, point) for name, point in POINTS.items() for _ in range(a.each)]
    results: dict[str, list[tuple[bool, int, int]]] = {}
    with tempfile.TemporaryDirectory() as work:
        for k, (name, point) in enumerate(trials):
            results.setdefault(name, []).append(trial(Path(work) / str(k), point, random.uniform(0, 0.5)))
            shutil.rmtree(Path(work) / str(k))
    for name, found in results.items():
        print(json.dumps({"killed": name, "times": len(found), "failed starts": sum(not worked for worked, _, _ in found),
                          "most steps lost": max(lost for _, lost, _ in found),
                          "temporary files left": sum(left for _, _, left in found)}))  # fmt: skip


if __name__ == "__main__":
    main()
