"""What this program does on a GPU, checked and measured in about five minutes, as one table.

    python benchmarks/gpu.py [--out gpu.json]

Speeds are the best of several repetitions. Without a GPU it says so, with exit code 2.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for kernels that repeat; it counts before the first of them

import numpy as np
import torch
from torch.nn import functional

from unnoise.data.dataset import ImageDataset
from unnoise.networks.layers import attend
from unnoise.networks.unet import UNetConfig
from unnoise.presets import PRESETS
from unnoise.recipe import Recipe, override
from unnoise.runs.resume import resume
from unnoise.runs.start import begin
from unnoise.training.batches import Batches
from unnoise.training.loop import compute_gradients, train
from unnoise.utils import philox
from unnoise.utils.runtime import Runtime, choose_device

Rows = Iterator[tuple[str, str]]
TOLERANCE = 1e-6  # between the noise of two devices
SMALL = {"network": UNetConfig((32, 64), blocks=1), "training.batch": 32}
LARGE = {"network": UNetConfig((128, 256, 256), blocks=2, embedding=512, attention_tokens=256), "training.batch": 128}


def best(call: Callable[[], object], device: str, times: int = 5) -> float:
    """Seconds of the fastest of some calls, after one that is not counted; each is waited for."""
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else (lambda: None)
    found = []
    for _ in range(times + 1):
        wait()
        start = time.perf_counter()
        call()
        wait()
        found.append(time.perf_counter() - start)
    return min(found[1:])


def fixed(changes: dict[str, object], size: int, channels: int) -> tuple[Recipe, ImageDataset]:
    """A recipe that measures nothing by itself, and random images for it."""
    pixels = np.random.default_rng(0).integers(0, 256, (2048, size, size, channels), dtype=np.uint8)
    plain: dict[str, object] = {"training.minutes": None, "training.steps": 10**6, "training.learning_rate": 1e-4,
                                "target.sigma_data": 0.5, "data.augment": 0.0}  # fmt: skip
    return override(PRESETS["digits"], plain | changes), ImageDataset(pixels)


def products(device: str, n: int = 8192) -> Rows:
    before = torch.get_float32_matmul_precision()
    for name, kind, precision in (("fp32", torch.float32, "highest"), ("TF32", torch.float32, "high"),
                                  ("bf16", torch.bfloat16, before)):  # fmt: skip
        torch.set_float32_matmul_precision(precision)
        a, b = (torch.randn(n, n, device=device, dtype=kind) for _ in range(2))
        yield f"matrix product, {name}", f"{2 * n**3 / best(partial(torch.mm, a, b), device) / 1e12:.1f} TFLOP/s"
    torch.set_float32_matmul_precision(before)


def noise(device: str, batch: int = 512, size: int = 64) -> Rows:
    """The same noise made by the CPU and copied, and made on the device."""
    shape = (3, size, size)
    on_cpu, there = (partial(philox.normal, 3, slice(0, batch), shape, where) for where in ("cpu", device))
    seconds = [best(lambda: on_cpu().to(device), device), best(there, device)]
    yield f"noise of {batch} at {size}x{size}", f"CPU and copy {1e3 * seconds[0]:.1f} ms, device {1e3 * seconds[1]:.2f} ms"
    words = [f(3, 5, 4096, device).cpu() for f in (philox.random_words, philox.philox)]
    expected = philox.random_words(3, 5, 4096)
    yield "its words", "equal" if all(torch.equal(w, expected) for w in words) else "DIFFERENT"
    difference = float((on_cpu() - there().cpu()).abs().max())
    yield "its largest difference", f"{difference:.1e}{'' if difference <= TOLERANCE else ', TOO LARGE'}"


def waiting(device: str, changes: dict[str, object], size: int, channels: int, bf16: bool, steps: int = 60) -> Rows:
    """The loop where each step's loss is asked for at once, and where it is a step later."""
    recipe, images = fixed(changes, size, channels)
    speeds = []
    for late in (0, 1):
        records = train(recipe.build_state(images.shape, 0, device), images, recipe.training, Runtime(device, bf16))
        waited = [record.loss for record in islice(records, 5)]
        start, before = time.perf_counter(), None
        for record in islice(records, steps):
            asked = before if late else record
            waited += [asked.loss] if asked else []
            before = record
        waited.append(record.loss)
        speeds.append(steps / (time.perf_counter() - start))
        records.close()  # type: ignore[attr-defined]
    name = f"steps/s, {size}x{size}, batch {recipe.training.batch}{', bf16' if bf16 else ''}"
    yield name, f"waiting {speeds[0]:.1f}, not waiting {speeds[1]:.1f}: {speeds[1] / speeds[0]:.2f} times"


def attention(device: str, batch: int = 128, heads: int = 8, tokens: int = 256) -> Rows:
    q, k, v = (torch.randn(batch, heads, tokens, 32, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    forms = (attend, functional.scaled_dot_product_attention)
    written_out, fused = (best(lambda f=f: f(q, k, v).sum().backward(), device) for f in forms)  # type: ignore[misc]
    difference = float((attend(q, k, v).float() - functional.scaled_dot_product_attention(q, k, v).float()).detach().abs().max())
    yield (f"attention, {batch}x{heads}x{tokens} in bf16",
           f"written out {1e3 * written_out:.2f} ms, fused {1e3 * fused:.2f} ms, difference {difference:.0e}")  # fmt: skip


def compiling(device: str, changes: dict[str, object], size: int) -> Rows:
    """Forward and backward pass: plain, compiled, and compiled with CUDA graphs."""
    recipe, images = fixed(changes, size, 3)
    runtime = Runtime(device, bf16=True)
    for name, mode in (("plain", None), ("compiled", "default"), ("compiled, CUDA graphs", "reduce-overhead")):
        state = recipe.build_state(images.shape, 0, device)
        model, begun = state.model.train(), time.perf_counter()
        batch = Batches(images, recipe.training, model.schedule, runtime)(0)
        if mode:
            model.network.compile(dynamic=False, mode=mode)

        def step(model=model, batch=batch) -> None:  # type: ignore[no-untyped-def]
            model.zero_grad()
            compute_gradients(model, batch, recipe.training, runtime)

        try:
            seconds = best(step, device)
            yield f"gradients of {len(batch.x)} at {size}x{size}, {name}", (
                f"{1e3 * seconds:.1f} ms, ready after {time.perf_counter() - begun:.0f} s")  # fmt: skip
        except Exception as e:  # whatever a compiler lacks
            yield f"gradients, {name}", f"failed: {str(e).strip().splitlines()[0][:80]}"


def largest_batch(device: str, changes: dict[str, object], size: int, most: int = 2**14) -> Rows:
    """The largest power of two that is not split to fit in memory, and images/s up to there."""
    recipe, images = fixed(changes, size, 3)
    model, runtime, found = recipe.build_state(images.shape, 0, device).model.train(), Runtime(device, bf16=True), []
    for count in (2**k for k in range(5, most.bit_length())):
        config = replace(recipe.training, batch=count)
        batch = Batches(images, config, model.schedule, runtime)(0)
        if compute_gradients(model, batch, config, runtime)[1] > 1:
            break
        seconds = best(partial(compute_gradients, model, batch, config, runtime), device, 2)
        found.append(f"{count}: {count / seconds:.0f}")
        model.zero_grad()
    yield f"images/s by batch, {size}x{size}, up to the largest", ", ".join(found)


@contextmanager
def repeatable() -> Iterator[None]:
    """Inside it, only kernels that give the same bits again."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def resuming(device: str, folder: Path, steps: int = 20) -> Rows:
    """A run that was stopped and resumed, against one that was not."""
    recipe = override(PRESETS["digits"], SMALL | {"training.minutes": None, "training.steps": steps, "training.batch": 64,
                                                  "training.precision": "fp32", "training.learning_rate": 1e-3,
                                                  "network.style.dropout": 0.1})  # fmt: skip
    with repeatable():
        whole = begin(folder / "whole", recipe, lambda _: None, runtime=Runtime(device))
        losses = [record.loss for record in whole.train()]
        stopped = begin(folder / "stopped", recipe, lambda _: None, runtime=Runtime(device))
        again = [record.loss for record in stopped.train(lambda: stopped.state.step >= steps // 2)]
        resumed = resume(folder / "stopped", lambda _: None, runtime=Runtime(device))
        again += [record.loss for record in resumed.train()]
    pairs = zip(whole.state.models.values(), resumed.state.models.values(), strict=True)
    same = all(torch.equal(a, b) for x, y in pairs for a, b in zip(x.state_dict().values(), y.state_dict().values(), strict=True))
    yield "resuming, with kernels that repeat", "equal to the bit" if same and losses == again else "DIFFERENT"


def digits(device: str, folder: Path, seconds: float = 10.0) -> Rows:
    """Digits trained for some seconds, everything included, and sampled."""
    start = time.perf_counter()
    recipe = override(PRESETS["digits"], {"training.minutes": seconds / 60})
    run = begin(folder / "digits", recipe, lambda _: None, runtime=Runtime(device), started=start)
    records = list(run.train())
    took = time.perf_counter() - start
    loss = np.mean([record.loss for record in records[-50:]])
    yield f"digits for {seconds:.0f} s", f"{len(records)} steps in {took:.1f} s, loss {loss:.3f}"
    start = time.perf_counter()
    images = run.model.sample(100, seed=0)
    std = images.std()
    yield "100 of them", f"{time.perf_counter() - start:.2f} s, standard deviation {std:.0f} of 255 (of the images: 96)"


def checks(device: str, folder: Path) -> Rows:
    """Everything."""
    yield "device", torch.cuda.get_device_name(device) if device != "cpu" else "the CPU"
    yield "torch", torch.__version__
    yield from products(device)
    yield from noise(device)
    yield from waiting(device, SMALL, 8, 1, False)
    yield from waiting(device, LARGE, 32, 3, True)
    yield from attention(device)
    yield from compiling(device, LARGE, 32)
    yield from largest_batch(device, LARGE, 32)
    yield from resuming(device, folder)
    yield from digits(device, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    if (device := choose_device()) == "cpu":
        print("no GPU was found, and this measures one: benchmarks/step_profile.py measures a CPU", file=sys.stderr)
        sys.exit(2)
    found, start = [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for name, value in checks(device, Path(folder)):
            found.append((name, value))
            print(f"| {name} | {value} |", flush=True)
    print(f"| all of it | {time.perf_counter() - start:.0f} s |")
    if a.out:
        a.out.write_text(json.dumps(dict(found), indent=1) + "\n")
    sys.exit(any(word in value for _, value in found for word in ("DIFFERENT", "TOO LARGE")))


if __name__ == "__main__":
    main()
