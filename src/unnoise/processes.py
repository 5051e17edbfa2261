"""Several processes that train one model: which one this is, and what they tell each other.

torchrun and `accelerate launch` start them, on one machine or on many; started in any other way a process is alone.
Every method is called by all of them together.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from unnoise.errors import UserError

T = TypeVar("T")
PATIENCE = timedelta(hours=12)  # for others: one machine may decode pictures for long while another has them
SIGNS = ("closed by peer", "reset by peer", "gloo", "nccl")  # in the messages of a connection that was lost


def choose_device() -> str:
    """cuda where there is one, else cpu. Not mps: it has no float64, which the schedules' scales are computed in."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def cores() -> int:
    """The cores that this process may use: by its affinity and, in a container, by its quota of time."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    share, _, period = quota.read_text().partition(" ") if quota.is_file() else ("max", "", "")
    return own if share == "max" else max(1, min(own, int(share) // int(period)))


@dataclass(frozen=True)
class Processes:
    """Process `rank` of `count`, and its device."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @classmethod
    def join(cls) -> "Processes":
        """Those of this launch. Threads are set to the cores there are, unless OMP_NUM_THREADS says otherwise."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > cores():
                torch.set_num_threads(cores())
            return cls(device=choose_device())
        from accelerate import PartialState

        state = PartialState(cpu=choose_device() == "cpu", timeout=PATIENCE)
        return cls(state.process_index, state.num_processes, str(state.device))

    @property
    def first(self) -> bool:
        """Whether it is this process that speaks and writes."""
        return self.rank == 0

    def share(self, size: int) -> slice:
        """This process's part of `size` things."""
        return slice(self.rank * size // self.count, (self.rank + 1) * size // self.count)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.count > 1:
            distributed.all_reduce(value)
        return value

    def any(self, flag: object) -> bool:
        """Whether it is so in one of them."""
        return bool(flag) if self.count == 1 else bool(self.sum(torch.tensor(float(bool(flag)), device=self.device)))

    def follow(self, *flags: bool) -> list[bool]:
        """The first process's flags, for all."""
        if self.count == 1:
            return list(flags)
        told = torch.tensor(flags, dtype=torch.uint8, device=self.device)
        distributed.broadcast(told, 0)
        return [bool(f) for f in told.tolist()]

    def decide(self, make: Callable[[], T]) -> T:
        """What the first process makes, told to all; what the user can mend (UserError, OSError) is raised by all."""
        if self.count == 1:
            return make()
        told: list[Any] = [None]
        if self.first:
            try:
                told = [make()]
            except (UserError, OSError) as e:
                told = [e]
        distributed.broadcast_object_list(told)
        if isinstance(told[0], UserError | OSError):
            raise told[0]
        answer: T = told[0]
        return answer

    def gather(self, value: T) -> list[T]:
        """Everyone's value, in order, for everyone."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value)
        return found

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside it, losing another process is a UserError."""
        try:
            yield
        except RuntimeError as e:
            if self.count == 1 or not _is_lost(e):
                raise
            raise UserError(f"process {self.rank} of {self.count} has lost another one, which ended or can't be reached "
                            f"({str(e).splitlines()[0]}): start all again with 'train --resume RUN'")  from e  # fmt: skip

    def leave(self) -> None:
        """At the end of a launch, all together."""
        if self.count > 1:
            distributed.barrier()
            distributed.destroy_process_group()


def _is_lost(error: RuntimeError) -> bool:
    words = str(error).lower()
    return isinstance(error, distributed.DistError) or any(w in words for w in SIGNS)


ALONE = Processes()


def shard(model: nn.Module, parts: type[nn.Module]) -> None:
    """Keep only this process's piece of each weight (FSDP); each module of type `parts` is brought together by itself."""
    from torch.distributed.fsdp import fully_shard  # half a second that a process alone need not wait for

    model.to(memory_format=torch.contiguous_format)  # the only one that it takes
    for module in [m for m in model.modules() if isinstance(m, parts)] + [model]:
        fully_shard(module, reshard_after_forward=True)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all of its pieces, wherever they are kept. All processes call it together."""
    complete: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return complete


def placed_as(like: Tensor, value: Tensor) -> Tensor:
    """`value`, which all processes have, kept as `like` is: in pieces, or whole."""
    if not hasattr(like, "placements"):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
