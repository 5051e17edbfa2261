"""Which precision is fast on this machine: measured, not guessed."""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

WITHOUT_FLOAT64 = {"mps"}  # kinds of devices: Apple's GPU


def exact(x: Tensor) -> Tensor:
    """x in float64, or in float32 on a device that has nothing better: where what follows would lose digits."""
    return x.float() if x.device.type in WITHOUT_FLOAT64 else x.double()


def autocast(device: torch.device | str, bf16: bool) -> AbstractContextManager[Any]:
    """Run networks in bfloat16 where that is asked for; weights and everything else stay float32.

    Cast weights are not kept: those of a call without gradients would be taken for one with them, which then has none.
    """
    return torch.autocast(torch.device(device).type, torch.bfloat16, cache_enabled=False) if bf16 else nullcontext()


def bf16_pays(device: torch.device | str, seconds: float = 1.0) -> tuple[bool, float]:
    """Whether bfloat16 is faster than float32 on this device, and how many times: measured on a 3x3 convolution.

    A CPU without bfloat16 instructions emulates it, so a flag would not do. The two take turns and each one's fastest
    call counts, so neither a cold start nor another program at work decides.
    """
    x = torch.randn(16, 64, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    conv = nn.Conv2d(64, 64, 3, padding=1).to(device).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def time_once(enabled: bool) -> float:
        begun = time.perf_counter()
        with autocast(device, enabled):
            conv(x).float().sum().item()
        return time.perf_counter() - begun

    fastest = {True: math.inf, False: math.inf}
    begun, rounds = time.perf_counter(), 0
    while rounds < 8 or time.perf_counter() - begun < seconds:
        for enabled in fastest:
            fastest[enabled] = min(fastest[enabled], time_once(enabled))
        rounds += 1
    gain = fastest[False] / fastest[True]
    return gain > 1.1, gain
