"""Whether a change of the code changed any number that the program computes: a list of losses and hashes, to compare.

    python benchmarks/bits.py FOLDER_OF_PHOTOGRAPHS --out after.json [--against benchmarks/bits-before.json]

In fp32 on one thread, through the command alone, so that the code behind it may change its shape: the loss of each of 60 steps
of `digits` and of 12 steps on the first 64 photographs at 64x64; SHA-256 of the weights, of their averages, of the optimizer's
state, of 32 samples, and of one restored image for each task. Tensors are hashed by their values, not their names. The bits are
those of one kind of CPU and one version of torch: record both lists on one machine.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file

QUIET = ["--training.precision", "fp32", "--training.sample-every", "1e9", "--network.widths", "64,128", "--batch", "32",
         "--training.learning-rate", "1e-3"]  # fmt: skip
TASKS = {
    "denoise": ["--sigma", "25"],
    "denoise-blind": [],
    "denoise-sample": ["--sigma", "40", "--mode", "sample"],
    "poisson": ["--noise", "poisson:30"],
    "salt-and-pepper": ["--task", "salt-and-pepper"],
    "inpaint": ["--task", "inpaint", "--mask", "MASK"],
    "upscale": ["--task", "upscale", "--factor", "2"],
    "deblur": ["--task", "deblur", "--blur", "0.8", "--sigma", "4"],
    "dejpeg": ["--task", "dejpeg", "--quality", "20"],
}


def unnoise(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "unnoise", *map(str, words)], check=True, stdout=subprocess.DEVNULL,
                   env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip


def hash_of(arrays: list[np.ndarray]) -> str:
    """Of arrays in any order."""
    each = sorted(hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for a in arrays)
    return hashlib.sha256("".join(each).encode()).hexdigest()


def record(name: str, run: Path, image: Path, mask: Path, colour: bool) -> dict[str, object]:
    """What one trained run has come to."""
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    newest = max((run / "checkpoints").glob("[0-9]*"))
    found: dict[str, object] = {"losses": losses}
    for part in ("model", "average", "optimizer"):
        found[part] = hash_of(list(load_file(newest / f"{part}.safetensors").values()))
    unnoise("sample", run, "-n", 32, "--seed", 3, "--out", run / "samples.npz")
    found["samples"] = hash_of([np.load(run / "samples.npz")["images"]])
    tasks = TASKS | ({"colourise": ["--task", "colourise"]} if colour else {})
    for task, words in tasks.items():
        more = [mask if w == "MASK" else w for w in words]
        many = [] if task.startswith("denoise") else ["--samples", 2]
        unnoise("restore", run, image, *more, *many, "--out", run / task)
        found[task] = hash_of([np.asarray(Image.open(run / task / image.name))])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--against", type=Path)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["UNNOISE_CACHE"] = str(root / "cache")
        (root / "photographs").mkdir()
        for path in sorted(p for p in a.photographs.iterdir() if p.suffix == ".jpg")[:64]:
            (root / "photographs" / path.name).write_bytes(path.read_bytes())
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(60, 190, (16, 24), dtype=np.uint8)).save(root / "grey.png")
        Image.fromarray(rng.integers(60, 190, (64, 72, 3), dtype=np.uint8)).save(root / "colour.png")
        for name, (h, w) in {"small": (16, 24), "large": (64, 72)}.items():
            mask = np.zeros((h, w), np.uint8)
            mask[h // 4 : h // 2, w // 4 : w // 2] = 255
            Image.fromarray(mask).save(root / f"{name}.png")
        unnoise("train", "digits", "--run", root / "digits", "--steps", 60, *QUIET)
        unnoise("train", "--data", root / "photographs", "--size", 64, "--run", root / "colour", "--steps", 12, *QUIET)
        found = {
            "machine": f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
            "torch": torch.__version__,
            "digits": record("digits", root / "digits", root / "grey.png", root / "small.png", colour=False),
            "photographs": record("photographs", root / "colour", root / "colour.png", root / "large.png", colour=True),
        }
    a.out.write_text(json.dumps(found, indent=1) + "\n")
    if a.against:
        before = json.loads(a.against.read_text())
        differ = [f"{run}: {key}" for run in ("digits", "photographs") for key in before[run]
                  if before[run][key] != found[run][key]]  # type: ignore[index]  # fmt: skip
        print("\n".join(f"differs: {d}" for d in differ) or "the same to the bit")
        sys.exit(bool(differ))


if __name__ == "__main__":
    main()
