"""Where the time of a training step of the presets goes, and what fraction of the machine's measured limit it reaches.

    python benchmarks/step_profile.py [--steps 10] [--top 8]

The limit is a product of two 2048x2048 matrices, the fastest of eight. A step's operations are those of its convolutions and
matrix products, forward and backward; its time is the median of `--steps`, the whole training loop around it included.
"""

import argparse
import json
import time
from itertools import islice
from statistics import median

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from unnoise.data.dataset import ImageDataset
from unnoise.diffusion.loss import diffusion_loss
from unnoise.presets import PRESETS
from unnoise.recipe import override
from unnoise.runs.settle import settle
from unnoise.training.batches import Batches
from unnoise.training.loop import train
from unnoise.utils.precision import bf16_pays
from unnoise.utils.runtime import Runtime


def matrix_speed(kind: torch.dtype, n: int = 2048) -> float:
    """GFLOP/s of a product of two matrices (n, n)."""
    a, b = torch.randn(n, n, dtype=kind), torch.randn(n, n, dtype=kind)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--top", type=int, default=8)
    a = parser.parse_args()
    bf16 = bf16_pays("cpu")[0]
    limit = matrix_speed(torch.bfloat16 if bf16 else torch.float32)
    print(json.dumps({"precision": "bf16" if bf16 else "fp32", "limit GFLOP/s": round(limit)}))
    for name, size, channels in (("digits", 8, 1), ("fashion-mnist", 28, 1), ("images", 64, 3)):
        shape = (256, size, size, channels)
        images = ImageDataset(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        recipe = override(PRESETS[name], {"training.minutes": None, "training.steps": 2000, "data.labels": False})
        recipe, *_ = settle(recipe, images, Runtime(), print, time.perf_counter())
        state = recipe.build_state(images.shape, 0)
        batch = Batches(images, recipe.training, state.model.schedule)(0)
        with FlopCounterMode(display=False) as count:
            diffusion_loss(state.model, batch.x, batch.t, batch.noise).sum().backward()
        work = count.get_total_flops() / 1e9
        state.model.zero_grad()
        records = train(state, images, recipe.training, Runtime(bf16=bf16), recipe.data.flip)
        list(islice(records, 3))
        seconds = []
        for _ in range(a.steps):
            start = time.perf_counter()
            next(records)
            seconds.append(time.perf_counter() - start)
        step = median(seconds)
        print(json.dumps({"preset": name, "size": size, "batch": recipe.training.batch, "GFLOP": round(work, 1),
                          "ms": round(1000 * step, 1), "GFLOP/s": round(work / step),
                          "fraction of the limit": round(work / step / limit, 2)}))  # fmt: skip
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            list(islice(records, 3))
        parts = sorted(profiled.key_averages(), key=lambda e: -e.self_cpu_time_total)
        whole = sum(e.self_cpu_time_total for e in parts)
        print("   " + ", ".join(f"{e.key.removeprefix('aten::')} {e.self_cpu_time_total / whole:.1%}" for e in parts[: a.top]))


if __name__ == "__main__":
    main()
