"""What trains fastest on this machine, measured before training: precision, batch size, compiled code."""

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from unnoise.data.dataset import ImageDataset
from unnoise.diffusion.denoiser import Denoiser, NetworkDenoiser
from unnoise.training.batches import Batch, Batches
from unnoise.training.config import TrainingConfig
from unnoise.training.loop import TrainState, compute_gradients
from unnoise.utils.precision import bf16_pays
from unnoise.utils.runtime import Runtime

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
MIN_GAIN = 1.1  # in images/s, for which a batch twice as large is taken
MIN_COMPILED_GAIN = 1.05  # in speed, for which compiled code is kept
MIN_MINUTES = {"cpu": 120.0, "cuda": 20.0}  # of training from which trying to compile can pay
Say = Callable[[str], None]


def autotune(config: TrainingConfig, build: Callable[[], TrainState], images: ImageDataset, runtime: Runtime,
             say: Say) -> tuple[TrainingConfig, bool, bool]:  # fmt: skip
    """What the configuration leaves to the machine, measured and said.

    `build` makes a fresh state to try on. Gives the configuration with its batch size, whether networks run in bfloat16, and
    whether the network is compiled.
    """
    bf16 = config.precision == "bf16"
    if config.precision == "auto":
        bf16, gain = bf16_pays(runtime.device)
        say(f"precision: {'bf16' if bf16 else 'fp32'}, since bf16 measured {gain:.1f} times as fast as fp32")
    # One process tries, the others wait: it must not communicate.
    alone = Runtime(runtime.device, bf16)
    count = runtime.world_size
    if config.batch == 0:
        size = find_batch_size(build(), images, config, alone, say)
        config = replace(config, batch=size * count)
        say(f"batch {config.batch}{f', {size} per process' if count > 1 else ''}: a larger one is hardly faster")
    worth_trying = config.minutes is not None and config.minutes >= MIN_MINUTES.get(torch.device(runtime.device).type, 20.0)
    if config.compile == "off" or (config.compile == "auto" and not worth_trying):
        return config, bf16, False
    own = replace(config, batch=max(1, config.batch // count))
    return config, bf16, compiling_pays(build(), images, own, alone, say)


def find_batch_size(state: TrainState, images: ImageDataset, config: TrainingConfig, runtime: Runtime, say: Say) -> int:
    """The batch size from which one twice as large is hardly faster, or does not fit in memory.

    Larger ones would cost updates for the same images. `state` is not changed.
    """
    model, best, found = copy.deepcopy(state.model).train(), 0.0, SIZES[0]

    def step(batch: Batch) -> None:
        float(compute_gradients(model, batch, config, runtime, config.micro_batches)[0])  # waits for a GPU

    for size in SIZES:
        batch = Batches(images, replace(config, batch=size), model.schedule, runtime)(0)
        if compute_gradients(model, batch, config, runtime, config.micro_batches)[1] > config.micro_batches:
            break  # it had to be split to fit in memory
        speed = size / fastest(partial(step, batch), 3)
        say(f"batch {size}: {speed:.0f} images/s")
        if speed < MIN_GAIN * best:
            break
        best, found = speed, size
    return found


def compiling_pays(state: TrainState, images: ImageDataset, config: TrainingConfig, runtime: Runtime, say: Say) -> bool:
    """Whether the compiled network is faster than the plain one: both are tried, on copies.

    Without a compiler, or when it fails, it is not, and the reason is said.
    """
    plain, compiled = copy.deepcopy(state.model).train(), copy.deepcopy(state.model).train()
    batch = Batches(images, config, plain.schedule, runtime)(0)
    assert isinstance(compiled, NetworkDenoiser)

    def step(model: Denoiser) -> None:
        float(compute_gradients(model, batch, config, runtime, config.micro_batches)[0])

    start = time.perf_counter()
    try:
        compiled.compile_network()
        step(compiled)
        took = time.perf_counter() - start
        seconds = [fastest(partial(step, m), 5) for m in (plain, compiled)]
    except Exception as e:  # whatever a compiler may lack
        say(f"not compiled: {str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__}")
        return False
    gain = seconds[0] / seconds[1]
    kept = gain > MIN_COMPILED_GAIN or config.compile == "on"
    say(f"compiling took {took:.0f} s and makes a step {gain:.2f} times as fast: {'kept' if kept else 'not used'}")
    return kept


def fastest(call: Callable[[], object], times: int) -> float:
    """Seconds of the fastest of `times` calls, after one that is not counted."""
    seconds = []
    for _ in range(times + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
