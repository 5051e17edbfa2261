"""Quality against network calls, for every sampler: a table, and a plot.

    python benchmarks/samplers.py RUN OUT --judge 'python judge.py digits' [-n 1000] [--calls 5,8,10,15,20,50] [--long 300]

Images are sampled from the run with each sampler at each number of calls, always from the same noise, into OUT/NAME-CALLS.npz.
The judge is any command that takes such files and prints a line of JSON for each, with `samples` (the file) and `fd` (a Frechet
distance) in it; without one only the images are made. Methods of two calls a step take half the steps. `--long` is a number of
calls for DDPM and DDIM alone. What is in OUT already is not sampled again.
"""

import argparse
import json
import shlex
import subprocess
from pathlib import Path

from unnoise.diffusion.samplers import SAMPLERS
from unnoise.model import Model
from unnoise.runs.generate import Generation, generate

TWO_CALLS = ("heun", "dpm++2s")  # a step, but one in the last
SAME_AS_DDIM = ("euler",)


def steps_for(name: str, calls: int) -> int:
    return (calls + 1) // 2 if name in TWO_CALLS else calls


def generate_with(model: Model, out: Path, count: int, name: str, calls: int) -> Path:
    path = out / f"{name}-{calls}.npz"
    if not path.exists():
        sampling = model.sampling(name, steps_for(name, calls))
        for _ in generate(model, Generation.of(model, count, 0, 250, sampling), path):
            pass
    return path


def plot(found: dict[str, dict[int, float]], path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, line in found.items():
        axes.plot(list(line), list(line.values()), marker="o", markersize=3, label=name)
    axes.set(xlabel="network calls", ylabel="Frechet distance", xscale="log", yscale="log")
    axes.set_xticks(sorted({c for line in found.values() for c in line}))
    axes.get_xaxis().set_major_formatter("{x:.0f}")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--judge")
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--calls", default="5,8,10,15,20,50")
    parser.add_argument("--long", type=int, default=300)
    a = parser.parse_args()
    model = Model.load(a.run)
    names = [name for name in SAMPLERS if name not in SAME_AS_DDIM]
    calls = [int(c) for c in a.calls.split(",")]
    wanted = [(name, c) for name in names for c in calls] + [(name, a.long) for name in ("ddpm", "ddim") if a.long]
    paths = {generate_with(model, a.out, a.n, name, c): (name, c) for name, c in wanted}
    if a.judge is None:
        return
    printed = subprocess.run([*shlex.split(a.judge), *map(str, paths)], capture_output=True, text=True, check=True).stdout
    found: dict[str, dict[int, float]] = {}
    for line in printed.splitlines():
        judged = json.loads(line)
        name, c = paths[Path(judged["samples"])]
        found.setdefault(name, {})[c] = judged["fd"]
    columns = [*calls, *([a.long] if a.long else [])]
    print("| sampler | " + " | ".join(map(str, columns)) + " |\n|---|" + "---|" * len(columns))
    for name, line in found.items():
        print(f"| {name} | " + " | ".join(f"{line[c]:.1f}" if c in line else "" for c in columns) + " |")
    plot(found, a.out / "samplers.png")


if __name__ == "__main__":
    main()
