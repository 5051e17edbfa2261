"""What each choice buys: 8x8 digits, equal seconds of training for each, several seeds.

    python benchmarks/ablation.py                                  # every row; about an hour on two cores
    python benchmarks/ablation.py --rows base "no residuals" --seeds 0
    python benchmarks/ablation.py --judge "python judge.py digits"  # adds another program's figures

c2st is the accuracy, by cross-validation, of a support vector machine (RBF kernel, raw pixels) that classifies digits as
held-out or sampled: 0.5 is perfect, 1 is the worst. A judge is a program that is given .npz files of samples and prints a line
of JSON for each with the key `fd`, a Frechet distance. Results are stored in --out, and what is there is not measured again.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

from unnoise.presets import PRESETS
from unnoise.recipe import Recipe, override
from unnoise.runs.start import begin

# The classical setting, in which the schedule and the target each matter: times uniform in t.
UNIFORM = {"training.times": "uniform", "target": "velocity"}
STEPS = {"training.times": "discrete", "target": "velocity", "schedule": "linear", "schedule.timesteps": 300}

# What `network auto` chooses on two cores, so that all rows have it whatever the machine does meanwhile.
BASE = {
    "network": "unet",
    "network.widths": [16, 32],
    "network.blocks": 1,
    "training.batch": 32,
    "training.learning_rate": 5.7e-3,
}

NOTEBOOK = "the notebook's recipe"
ROWS: dict[str, dict[str, Any]] = {
    "base": {},
    "no residuals": {"network.style.residual": False},
    "relu": {"network.style.activation": "relu"},
    "gelu": {"network.style.activation": "gelu"},
    "batch norm": {"network.style.norm": "batch"},
    "no norm": {"network.style.norm": "none"},
    "no attention": {"network.attention_tokens": 0},
    "l1": {"training.loss": "l1"},
    "huber": {"training.loss": "huber"},
    "linear, T = 300": STEPS,
    "linear, T = 300, zero terminal SNR": STEPS | {"schedule.zero_terminal_snr": True},
    "linear, T = 300, start from data": STEPS | {"sampling.start": "data"},
    "linear, T = 1000": STEPS | {"schedule.timesteps": 1000},
    "cosine": UNIFORM | {"schedule": "cosine"},
    "flow": UNIFORM | {"schedule": "flow"},
    "cosine, epsilon target": UNIFORM | {"schedule": "cosine", "target": "epsilon"},
    "cosine, x0 target": UNIFORM | {"schedule": "cosine", "target": "x0"},
    "cosine, edm target": UNIFORM | {"schedule": "cosine", "target": {"name": "edm", "sigma_data": 0.75}},
    "flow, flow target": UNIFORM | {"schedule": "flow", "target": "flow"},
}


def recipe(row: str, seconds: float, seed: int, precision: str) -> Recipe:
    common = {
        "training.minutes": seconds / 60,
        "training.seed": seed,
        "training.precision": precision,
        "training.sample_every": 1e9,
        "data.held_out": 0.25,
    }
    if row == NOTEBOOK:  # its whole recipe, with one halving less and no flips, since these are 8x8 digits
        own = {"data.source": "digits", "data.size": None, "data.flip": False, "network.widths": [64, 128, 256, 512]}
        return override(PRESETS["notebook"], own | common)
    return override(PRESETS["digits"], BASE | ROWS[row] | common)


def measure(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    seconds, samples, judge = options.seconds, options.samples, options.judge
    folder = options.out / f"{row}-{seed}".replace(" ", "-").replace(",", "").replace("'", "")
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted measurement
    trainer = begin(folder, recipe(row, seconds, seed, options.precision))
    start = time.perf_counter()
    steps = sum(1 for _ in trainer.train())
    trained = time.perf_counter() - start
    pixels = trainer.model.sample(samples, seed)
    file = folder / "samples.npz"
    np.savez(file, images=pixels)
    held_out = trainer.split.held_out.pixels
    both = np.concatenate([held_out, pixels[: len(held_out)]]).reshape(-1, held_out[0].size) / 255.0
    truth = np.repeat([0, 1], [len(held_out), min(len(held_out), len(pixels))])
    c2st = cross_val_score(SVC(C=10.0), both, truth, cv=5).mean()
    result = {
        "row": row,
        "seed": seed,
        "budget": seconds,
        "samples": samples,
        "precision": options.precision,
        "steps": steps,
        "seconds": round(trained, 1),
        "c2st": round(float(c2st), 3),
        "sampling": round(time.perf_counter() - start - trained, 1),
    }
    if judge:
        printed = subprocess.run([*shlex.split(judge), str(file)], capture_output=True, text=True, check=True).stdout
        result["fd"] = json.loads(printed.splitlines()[-1])["fd"]
    return result


def table(results: list[dict[str, Any]]) -> str:
    """Mean over the seeds, and half the distance between the largest and the smallest."""
    lines = ["| | steps | seconds | c2st | fd |", "|---|---|---|---|---|"]
    for row in dict.fromkeys(r["row"] for r in results):
        mine = [r for r in results if r["row"] == row]
        steps = round(np.mean([r["steps"] for r in mine]))
        cells = [_cell([r[key] for r in mine if key in r]) for key in ("seconds", "c2st", "fd")]
        lines.append(f"| {row} | {steps} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    return f"{np.mean(values):.3g} (± {np.ptp(values) / 2:.2g})" if values else "-"


def main() -> None:
    names = [*ROWS, NOTEBOOK]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--judge")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    log = a.out / "results.jsonl"
    results = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    settings = {"budget": a.seconds, "samples": a.samples, "precision": a.precision}
    if any(r.get(k) != v for r in results for k, v in settings.items()):
        parser.error(f"'{log}' was measured with other seconds, samples or precision: choose another --out")
    done = {(r["row"], r["seed"]) for r in results if not a.judge or "fd" in r}
    results = [r for r in results if (r["row"], r["seed"]) in done]
    for seed in a.seeds:
        for row in a.rows:
            if (row, seed) not in done:
                results.append(measure(row, seed, a))
                with log.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
    print(table([r for r in results if r["row"] in a.rows]))


if __name__ == "__main__":
    main()
