"""One process by itself, and the environment that launchers set."""

import math
import os
import re
import socket
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from unnoise.utils import runtime
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import SINGLE, Runtime, available_cores, choose_device, choose_device_and_why, difference_from_cpu


def test_cores_are_those_allowed() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_parts_cover_everything_once() -> None:
    for size in (1, 7, 32):
        for count in (1, 2, 3, 5):
            slices = [Runtime(rank=k, world_size=count).shard(size) for k in range(count)]
            assert [i for s in slices for i in range(size)[s]] == list(range(size))


def test_a_single_process_asks_nobody() -> None:
    assert SINGLE.on_first(lambda: 3) == 3 and SINGLE.gather("a") == ["a"] and SINGLE.broadcast(True, False) == [True, False]
    assert SINGLE.any(1) and not SINGLE.any(0) and float(SINGLE.sum(torch.tensor(2.0))) == 2
    with pytest.raises(UserError, match="mend me"):
        SINGLE.on_first(_fail)
    with pytest.raises(RuntimeError, match="not a lost connection"), SINGLE.guard():
        raise RuntimeError("not a lost connection, though it says gloo")


def _fail() -> None:
    raise UserError("mend me")


@pytest.mark.parametrize(("kind", "difference", "device", "reason"), [
    (None, 0.0, "cpu", "no GPU"),
    ("cuda", 0.0, "cuda", "GPU that PyTorch finds"),
    ("xpu", 0.0, "cpu", "never tried on xpu"),
    ("mps", 1e-6, "mps", "what the CPU does, to 1e-06"),
    ("mps", 0.1, "cpu", "differs from the CPU by 1e-01"),
    ("mps", math.nan, "cpu", "differs from the CPU by nan"),
    ("mps", None, "cpu", "fails in a short check: .*mps"),  # the real check, which fails where there is none
])  # fmt: skip
def test_apples_gpu_is_chosen_where_it_computes_the_same(
    kind: str | None, difference: float | None, device: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = None if kind is None else torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: found)
    if difference is not None:
        monkeypatch.setattr(runtime, "difference_from_cpu", lambda device: difference)
    elif torch.backends.mps.is_available():
        pytest.skip("there is one")
    chosen, why = choose_device_and_why.__wrapped__()
    assert chosen == device and re.search(reason, why)
    monkeypatch.setattr(runtime, "choose_device_and_why", lambda: (chosen, why))
    assert runtime.device_note() == (None if kind is None else f"device: {chosen} ({why})")


def test_a_difference_from_the_cpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one of gradients alone, which are small; training's random numbers stay what they are."""
    state = torch.random.get_rng_state()
    assert difference_from_cpu("cpu") == 0 and torch.equal(torch.random.get_rng_state(), state)
    real, calls = torch.autograd.grad, []

    def wrong(*args: Any) -> list[Tensor]:
        calls.append(args)
        return [g * (1.01 if len(calls) == 1 else 1) for g in real(*args)]

    monkeypatch.setattr(torch.autograd, "grad", wrong)
    assert difference_from_cpu("cpu") == pytest.approx(0.01, rel=1e-3)


CODE = """
from unnoise.utils.runtime import Runtime
import torch
runtime = Runtime.join()
total = runtime.sum(torch.tensor(float(runtime.rank + 1)))
print(runtime.rank, runtime.world_size, runtime.device, float(total), flush=True)
runtime.leave()
"""


def test_the_environment_of_launchers_is_understood() -> None:
    """RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, as torchrun and `accelerate launch` set them."""
    if choose_device() != "cpu":
        pytest.skip("two processes would share one GPU")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen([sys.executable, "-c", CODE], env=shared | {"RANK": str(k), "LOCAL_RANK": str(k)},
                                stdout=subprocess.PIPE, text=True) for k in range(2)]  # fmt: skip
    printed = sorted(process.communicate(timeout=240)[0].split() for process in running)
    assert printed == [["0", "2", "cpu", "3.0"], ["1", "2", "cpu", "3.0"]]
