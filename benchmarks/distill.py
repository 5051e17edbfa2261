"""Teacher and students by network calls at equal seconds in all: a table of distances.

    python benchmarks/distill.py DATA OUT --seconds 60 --judge 'python judge.py digits' [-n 1000] [--seeds 3] [--calls 1,2,3,5,15]
           [--options '--root DIR']

For each seed a teacher trains for so many seconds, a student by each method for as many more, and another teacher for twice as
many; each then samples N images at each number of calls, into OUT/NAME-SEED-CALLS.npz: a teacher with DPM-Solver++(2M), a
student in at most 4 calls. The judge is any command that takes such files and prints a line of JSON for each, with `samples`
(the file), `fd` (a Frechet distance), `c2st` and `nn_ratio`. `--options` are of the training. What is in OUT already is not
made again.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import median

COMMAND = [sys.executable, "-m", "unnoise"]
METHODS = ("matching", "consistency")
MAX_CALLS = 4  # of a student


def run(*words: object) -> None:
    subprocess.run([*COMMAND, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def train(a: argparse.Namespace, seed: int) -> dict[str, Path]:
    """The run folders of teacher, students by method, and a teacher of twice the time."""
    minutes, options = a.seconds / 60, shlex.split(a.options)
    folders = {name: a.out / f"{name}-{seed}" for name in ("teacher", *METHODS, "teacher-twice")}
    for name, folder in folders.items():
        if (folder / "report.html").exists():
            continue
        if name in METHODS:
            run("distill", folders["teacher"], "--minutes", minutes, "--method", name, "--run", folder)
        else:
            time = minutes if name == "teacher" else 2 * minutes
            run("train", *a.data, "--minutes", time, "--seed", seed, "--run", folder, *options)
    return folders


def generate(a: argparse.Namespace, name: str, folder: Path, calls: int) -> Path:
    path = folder.with_name(f"{folder.name}-{calls}.npz")
    if not path.exists():
        how = [] if name in METHODS else ["--sampler", "dpm++2m"]
        run("sample", folder, "-n", a.n, "--steps", calls, "--out", path, *how)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=shlex.split, help="what to train on, as for the command: digits --data FILE")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--judge", required=True)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--calls", default="1,2,3,5,15")
    parser.add_argument("--options", default="")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    paths: dict[Path, tuple[str, int]] = {}
    calls = [int(c) for c in a.calls.split(",")]
    for seed in range(a.seeds):
        for name, folder in train(a, seed).items():
            for c in calls:
                if name not in METHODS or c <= MAX_CALLS:
                    paths[generate(a, name, folder, c)] = (name, c)
    printed = subprocess.run([*shlex.split(a.judge), *map(str, paths)], capture_output=True, text=True, check=True).stdout
    found: dict[str, dict[int, list[dict[str, float]]]] = {}
    for line in printed.splitlines():
        judged = json.loads(line)
        name, c = paths[Path(judged["samples"])]
        found.setdefault(name, {}).setdefault(c, []).append(judged)
        print(line)
    print("| | " + " | ".join(map(str, calls)) + " |\n|---|" + "---|" * len(calls))
    for name, row in found.items():
        for what in ("fd", "c2st", "nn_ratio"):
            cells = [f"{median(j[what] for j in row[c]):.3g} ({', '.join(f'{j[what]:.3g}' for j in row[c])})" if c in row else ""
                     for c in calls]  # fmt: skip
            print(f"| {name}, {what} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
