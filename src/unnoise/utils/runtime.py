"""Where a computation runs: the device, its precision, and the processes that train one model together.

torchrun and `accelerate launch` start several processes, on one machine or on many; started in any other way there is one.
Methods that communicate are called by all processes together.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from unnoise.utils.errors import UserError
from unnoise.utils.messages import pack, unpack
from unnoise.utils.precision import autocast

T = TypeVar("T")
TIMEOUT = timedelta(hours=12)  # one machine may decode images for long while the others have them already
MAX_DIFFERENCE = 1e-3  # of Apple's GPU from the CPU, relative
NO_GPU = "PyTorch finds no GPU"
CONNECTION_LOST = ("closed by peer", "reset by peer", "gloo", "nccl")  # parts of the messages of a lost connection


def choose_device() -> str:
    """cuda where there is one; mps, Apple's GPU, where it computes what the CPU does; else cpu."""
    return choose_device_and_why()[0]


@lru_cache(maxsize=1)
def choose_device_and_why() -> tuple[str, str]:
    """The device, and the reason in a few words."""
    found = torch.accelerator.current_accelerator(check_available=True)
    kind = "cpu" if found is None else found.type
    if kind == "cpu":
        return kind, NO_GPU
    if kind == "cuda":
        return kind, "a GPU that PyTorch finds"
    if kind != "mps":
        return "cpu", f"this program was never tried on {kind}"
    try:
        difference = difference_from_cpu(kind)
    except Exception as e:  # whatever goes wrong there, the CPU will do
        return "cpu", f"Apple's GPU fails in a short check: {str(e).splitlines()[0]}"
    if difference <= MAX_DIFFERENCE:
        return kind, f"Apple's GPU, which computes what the CPU does, to {difference:.0e}"
    return "cpu", f"Apple's GPU differs from the CPU by {difference:.0e} in a short check"


def device_note() -> str | None:
    """Which device is used and why, where there is a GPU, used or passed over."""
    device, reason = choose_device_and_why()
    return None if reason == NO_GPU else f"device: {device} ({reason})"


def difference_from_cpu(device: str) -> float:
    """The largest difference of a small network's output and gradients there from the CPU's, each relative to its largest."""

    def compute(device: str) -> list[Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            x, conv = torch.randn(2, 16, 16, 16), partial(nn.Conv2d, 16, 16, 3, padding=1)
            network = nn.Sequential(conv(), nn.GroupNorm(4, 16), nn.SiLU(), conv(stride=2), nn.Upsample(scale_factor=2.0), conv())
        network = network.to(device).to(memory_format=torch.channels_last)
        scale = torch.tensor(0.7, dtype=torch.float64)  # on the CPU, as a sampler's are
        out = scale * network(x.to(device))
        gradients = torch.autograd.grad(out.square().mean(), list(network.parameters()))
        return [value.detach().cpu() for value in (out, *gradients)]

    pairs = zip(compute(device), compute("cpu"), strict=True)
    return float(torch.stack([(found - expected).abs().max() / expected.abs().max() for found, expected in pairs]).max())


def is_asynchronous(device: torch.device | str) -> bool:
    """Whether operations on it are queued and reading a result waits for all of them: everywhere but on a CPU."""
    return torch.device(device).type != "cpu"


def copy_to(x: Tensor, device: torch.device | str) -> Tensor:
    """`x`, on the CPU, on another device; a GPU copies it when it comes to that, and nobody waits."""
    return (x.pin_memory() if torch.device(device).type == "cuda" else x).to(device, non_blocking=True)


def available_cores() -> int:
    """The cores that this process may use: by its affinity and, in a container, by its CPU quota."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    limit, _, period = quota.read_text().partition(" ") if quota.is_file() else ("max", "", "")
    return own if limit == "max" else max(1, min(own, int(limit) // int(period)))


@dataclass(frozen=True)
class Runtime:
    """Process `rank` of `world_size`, its `device`, and whether networks run in bfloat16 there.

    `threads` is how many a training whose length is a matter of time may set, 0 where it is to leave them as they are.
    """

    device: str = "cpu"
    bf16: bool = False
    rank: int = 0
    world_size: int = 1
    threads: int = 0

    @classmethod
    def join(cls) -> "Runtime":
        """That of this launch. Threads are set to the cores available, unless OMP_NUM_THREADS says otherwise."""
        if (os.environ.get("WORLD_SIZE") or "1") == "1":
            device = choose_device()
            if "OMP_NUM_THREADS" in os.environ:
                return cls(device)
            if torch.get_num_threads() > available_cores():
                torch.set_num_threads(available_cores())
            return cls(device, threads=torch.get_num_threads() if device == "cpu" else 0)
        device = choose_device()
        if device == "mps":
            device = "cpu"  # several processes would share the one GPU, and have no backend there
        if device != "cpu":
            index = int(os.environ.get("LOCAL_RANK", "0"))
            torch.accelerator.set_device_index(index)
            device = f"{device}:{index}"
        backend = distributed.get_default_backend_for_device(device.partition(":")[0])
        if not distributed.is_initialized():  # by an earlier call in this process
            distributed.init_process_group(backend, timeout=TIMEOUT)
        return cls(device, rank=distributed.get_rank(), world_size=distributed.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether it is this process that prints and writes files."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Networks run in bfloat16 inside it, where that was chosen."""
        return autocast(self.device, self.bf16)

    def shard(self, size: int) -> slice:
        """This process's part of `size` items."""
        return slice(self.rank * size // self.world_size, (self.rank + 1) * size // self.world_size)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world_size > 1:
            distributed.all_reduce(value)
        return value

    def any(self, flag: object) -> bool:
        """Whether `flag` is true in any process."""
        return bool(flag) if self.world_size == 1 else bool(self.sum(torch.tensor(float(bool(flag)), device=self.device)))

    def broadcast(self, *flags: bool) -> list[bool]:
        """The first process's flags, in every process."""
        if self.world_size == 1:
            return list(flags)
        values = torch.tensor(flags, dtype=torch.uint8, device=self.device)
        distributed.broadcast(values, 0)
        return [bool(v) for v in values.tolist()]

    def on_first(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first process, in every process; its UserError or OSError is raised in every process.

        Of several processes the others get it as JSON: lists for tuples, also in the first one.
        """
        if self.world_size == 1:
            return make()
        message = b""
        if self.is_first:
            try:
                message = pack(make())
            except (UserError, OSError) as e:
                message = pack(e)
        size = torch.tensor(len(message), device=self.device)
        distributed.broadcast(size, 0)
        data = self._to_tensor(message, int(size))
        distributed.broadcast(data, 0)
        result: T = unpack(data.cpu().numpy().tobytes())
        if isinstance(result, UserError | OSError):
            raise result
        return result

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank, in every process; of several processes as JSON, lists for tuples."""
        if self.world_size == 1:
            return [value]
        message = pack(value)
        sizes = self._gather(torch.tensor([len(message)], device=self.device))
        data = self._gather(self._to_tensor(message, max(map(int, sizes))))
        return [unpack(d[: int(size)].cpu().numpy().tobytes()) for d, size in zip(data, sizes, strict=True)]

    def _to_tensor(self, message: bytes, size: int) -> Tensor:
        """A message on the device, zeros behind it."""
        data = torch.zeros(size, dtype=torch.uint8)
        data[: len(message)] = torch.frombuffer(bytearray(message), dtype=torch.uint8) if message else 0
        return data.to(self.device)

    def _gather(self, own: Tensor) -> list[Tensor]:
        found = [torch.empty_like(own) for _ in range(self.world_size)]
        distributed.all_gather(found, own)
        return found

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Inside it, losing another process is a UserError."""
        try:
            yield
        except RuntimeError as e:
            if self.world_size == 1 or not _is_connection_lost(e):
                raise
            raise UserError(f"process {self.rank} of {self.world_size} has lost another one, which ended or can't be reached "
                            f"({str(e).splitlines()[0]}): start all again with 'train --resume RUN'")  from e  # fmt: skip

    def leave(self) -> None:
        """At the end of a launch."""
        if self.world_size > 1:
            distributed.barrier()
            distributed.destroy_process_group()


def _is_connection_lost(error: RuntimeError) -> bool:
    message = str(error).lower()
    return isinstance(error, distributed.DistError) or any(part in message for part in CONNECTION_LOST)


SINGLE = Runtime()
