"""What trains fastest on this machine: measured before training, not guessed."""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from unnoise.batches import Batches
from unnoise.data.pictures import Pictures
from unnoise.denoiser import NetworkDenoiser
from unnoise.plan import TrainingPlan
from unnoise.precision import bf16_pays
from unnoise.recipe import RunInfo
from unnoise.training import Training, gradients

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
ENOUGH = 1.1  # times as many pictures/s, for which a batch twice as large is taken
PAYS = 1.05  # times as fast, for which compiled code is kept
COMPILING = {"cpu": 120.0, "cuda": 20.0}  # minutes of training from which trying to compile can pay


def tuned(info: RunInfo, pictures: Pictures, say: Callable[[str], None], processes: int) -> RunInfo:
    """What the recipe leaves to this machine, measured and said: precision, batch size, and whether to compile."""
    plan, device = info.recipe.training, info.device
    bf16 = plan.precision == "bf16"
    if plan.precision == "auto":
        bf16, times = bf16_pays(device)
        say(f"precision: {'bf16' if bf16 else 'fp32'}, since bf16 measured {times:.1f} times as fast as fp32")

    def trial() -> Training:
        return info.recipe.build_training(info.shape, len(info.classes), device)

    if plan.batch == 0:
        found = find_batch(trial(), pictures, plan, device, bf16, say)
        plan = replace(plan, batch=found * processes)
        say(f"batch {plan.batch}{f', {found} for each process' if processes > 1 else ''}: a larger one is hardly faster")
    own = replace(plan, batch=max(1, plan.batch // processes))  # what one of them computes
    worth = plan.minutes is not None and plan.minutes >= COMPILING[torch.device(device).type]
    tried = plan.compile == "on" or (plan.compile == "auto" and worth)
    compiled = tried and compiling_pays(trial(), pictures, own, device, bf16, say)
    return replace(info, recipe=replace(info.recipe, training=plan), bf16=bf16, compiled=compiled)


def find_batch(training: Training, pictures: Pictures, plan: TrainingPlan, device: str, bf16: bool,
               say: Callable[[str], None]) -> int:  # fmt: skip
    """The batch size from which one twice as large is hardly faster, or does not fit in memory.

    Larger ones would cost updates for the same pictures. Training is not changed by it.
    """
    model, best, found = copy.deepcopy(training.model).train(), 0.0, SIZES[0]
    for size in SIZES:
        batch = Batches(pictures, replace(plan, batch=size), model.schedule, device)(0)
        if gradients(model, batch, plan, bf16, plan.parts)[1] > plan.parts:  # it had to be cut to fit in memory
            break
        speed = size / fastest(lambda: float(gradients(model, batch, plan, bf16, plan.parts)[0]), 3)  # noqa: B023
        say(f"batch {size}: {speed:.0f} pictures/s")
        if speed < ENOUGH * best:
            break
        best, found = speed, size
    return found


def compiling_pays(training: Training, pictures: Pictures, plan: TrainingPlan, device: str, bf16: bool,
                   say: Callable[[str], None]) -> bool:  # fmt: skip
    """Whether compiled code of the network is faster than the plain one: both are tried, on a copy.

    Without a compiler, or when it fails, it is not, and why is said.
    """
    plain, compiled = copy.deepcopy(training.model).train(), copy.deepcopy(training.model).train()
    batch = Batches(pictures, plan, plain.schedule, device)(0)
    assert isinstance(compiled, NetworkDenoiser)
    begun = time.perf_counter()
    try:
        compiled.compile_network()
        gradients(compiled, batch, plan, bf16, plan.parts)
        took = time.perf_counter() - begun
        seconds = [fastest(lambda: float(gradients(m, batch, plan, bf16, plan.parts)[0]), 5) for m in (plain, compiled)]  # noqa: B023
    except Exception as e:  # whatever a compiler may lack
        say(f"not compiled: {str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__}")
        return False
    gain = seconds[0] / seconds[1]
    kept = gain > PAYS or plan.compile == "on"
    say(f"compiling took {took:.0f} s and makes a step {gain:.2f} times as fast: {'kept' if kept else 'not used'}")
    return kept


def fastest(call: Callable[[], object], times: int) -> float:
    """Seconds of the fastest of some calls, the first not counted."""

    def seconds() -> Iterator[float]:
        for _ in range(times + 1):
            begun = time.perf_counter()
            call()
            yield time.perf_counter() - begun

    return min(list(seconds())[1:])
