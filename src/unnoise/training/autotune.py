"""What trains best on this machine, measured before training: precision, network, batch size, compiled code."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from unnoise.data.dataset import ImageDataset
from unnoise.diffusion.denoiser import Denoiser, NetworkDenoiser
from unnoise.networks.unet import AutoUNet, UNetConfig
from unnoise.training.batches import Batch, Batches
from unnoise.training.config import TrainingConfig
from unnoise.training.loop import TrainState, compute_gradients
from unnoise.training.scaling import WIDTHS, excess_loss
from unnoise.utils.errors import UserError
from unnoise.utils.precision import bf16_pays
from unnoise.utils.runtime import Runtime

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
MIN_GAIN = 1.1  # in images/s, for which a batch twice as large is taken
MIN_COMPILED_GAIN = 1.05  # in speed, for which compiled code is kept
MIN_MINUTES = {"cpu": 120.0, "cuda": 20.0}  # of training from which trying to compile can pay
TIMED_PIXELS = 2**16  # of the images on which a CPU's speed is measured: as many as tell it, in little time
Say = Callable[[str], None]


def choose_precision(config: TrainingConfig, runtime: Runtime, say: Say, seconds: float) -> bool:
    """Whether networks run in bfloat16: as configured or, for auto, where it is faster, measured for `seconds`."""
    if config.precision != "auto":
        return config.precision == "bf16"
    bf16, gain = bf16_pays(runtime.device, seconds)
    say(f"precision: {'bf16' if bf16 else 'fp32'}, since bf16 measured {gain:.1f} times as fast as fp32")
    return bf16


class Choice(NamedTuple):
    """A network that was measured: images/s in training, steps in the time there is, loss above what can't be known then."""

    network: UNetConfig
    speed: float
    steps: float
    loss: float


def compare_networks(auto: AutoUNet, size: tuple[int, int], measure: Callable[[UNetConfig], float], batch: int,
                     seconds: float | None, steps: int | None) -> list[Choice]:  # fmt: skip
    """Networks of rising width for images of `size`, each measured, until one is expected to be worse than the one before.

    `measure` gives images/s in training. What counts is the loss after `seconds`, with `steps` at most; without a time, that
    after the time which the network before takes for `steps`. Where widths are given there is one network, and no wider one is
    tried than fits in memory, nor where there is no time for a step.
    """
    found: list[Choice] = []
    for width in auto.widths[:1] or WIDTHS:
        network = auto.of_width(width, size)
        try:
            speed = measure(network)
        except UserError:  # it does not fit in memory
            if found:
                break
            raise

        most = math.inf if steps is None else steps
        expect = partial(_expect, network, speed, batch, max(size))
        whole = expect(min(most, math.inf if seconds is None else seconds * speed / batch))
        before = found[-1] if found else None
        same_time = whole if before is None or seconds is not None else expect(before.steps * speed / before.speed)
        if before is not None and same_time.loss > before.loss:
            found.append(same_time)
            break
        found.append(whole)
        if whole.steps < 1:
            break
    return found


def _expect(network: UNetConfig, speed: float, batch: int, side: int, steps: float) -> Choice:
    """What a network is expected to reach in some steps."""
    return Choice(network, speed, max(0.0, steps), excess_loss(network.widths[0], steps, batch, side))


def training_speed(state: TrainState, images: ImageDataset, config: TrainingConfig, runtime: Runtime) -> float:
    """Images per second in training: forward and backward passes, and the optimizers' step. Changes `state`."""
    h, w = images.shape[1:]
    on_cpu = torch.device(runtime.device).type == "cpu"
    size = max(8, min(config.batch, TIMED_PIXELS // (h * w))) if on_cpu else config.batch
    model = state.model.train()
    batch = Batches(images, replace(config, batch=size), model.schedule, runtime)(0)

    def compute() -> None:
        float(compute_gradients(model, batch, config, runtime, config.micro_batches)[0])  # waits for a GPU

    def update() -> None:
        for optimizer in state.optimizers:
            optimizer.step()
        next(model.parameters()).flatten()[0].item()  # waits for a GPU

    per_image = fastest(compute, 2) / size
    return 1 / (per_image + fastest(update, 2) / config.batch)


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


def compiling_is_tried(config: TrainingConfig, device: str) -> bool:
    """Whether to measure what compiling brings: as configured or, for auto, where training is long."""
    worth_trying = config.minutes is not None and config.minutes >= MIN_MINUTES.get(torch.device(device).type, 20.0)
    return config.compile == "on" or (config.compile == "auto" and worth_trying)


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
