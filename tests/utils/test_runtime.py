"""One process by itself, and the environment that launchers set."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from unnoise.utils.errors import UserError
from unnoise.utils.runtime import SINGLE, Runtime, available_cores, choose_device


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
