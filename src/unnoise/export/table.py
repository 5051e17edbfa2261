"""A sampler's trajectory as a table, for programs that know no sampler: what each call of the network and each step adds up.

Samplers are linear in x, in the estimates and in fresh noise; only the network is not. So a trajectory is a list of sums,

    {"call": "e0", "sum": {"x0": 1}, "alpha": 0.2, "sigma": 0.9}    e0 = the estimate of x_hat at this noise level
    {"noise": "n0"}                                                 n0 = fresh noise, N(0, I)
    {"step": "x1", "sum": {"x0": 0.8, "e0": 0.2, "n0": 0.1}}        x1 = x after the first step; x0 is where it starts

whose coefficients are found by running the sampler itself on unit vectors, one for each name.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.samplers import DDPM
from unnoise.diffusion.sampling import SamplingConfig, trajectory
from unnoise.diffusion.schedules import Schedule
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

Table = dict[str, Any]
PER_STEP = 8  # names that a step may add: its calls, its noise, x
TOLERANCE = 1e-9


class _Tracer(Denoiser):
    """A denoiser, and a source of noise, that writes down what it is asked and answers with a new unit vector."""

    def __init__(self, schedule: Schedule, names: int) -> None:
        super().__init__()
        self.schedule, self.size = schedule, names
        self.names, self.lines = list[str](), list[Table]()

    def name(self, kind: str) -> tuple[str, Tensor]:
        """A new name, and its vector (1, names, 1, 1)."""
        name = f"{kind}{sum(n.startswith(kind) for n in self.names)}"
        if len(self.names) == self.size:
            raise UserError("this sampler calls the network too often in a step to be written as a table: choose another sampler")
        self.names.append(name)
        vector = torch.zeros(1, self.size, 1, 1, dtype=torch.float64)
        vector[0, len(self.names) - 1] = 1
        return name, vector

    def sum(self, x: Tensor) -> dict[str, float]:
        """What x is a sum of."""
        return {self.names[k]: float(x[0, k]) for k in x[0].flatten().nonzero().flatten().tolist()}

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        name, vector = self.name("e")
        scales = {"alpha": float(self.schedule.alpha(t)), "sigma": float(self.schedule.sigma(t))}
        self.lines.append({"call": name, "sum": self.sum(x_t), **scales})
        return vector

    def normal_like(self, x: Tensor) -> Tensor:
        name, vector = self.name("n")
        self.lines.append({"noise": name})
        return vector


def sampler_table(schedule: Schedule, sampling: SamplingConfig, start: float = 1.0) -> Table:
    """{"lines": the sums, "clamp": whether x is clipped to [-1, 1] after each step}, from time `start` down to 0.

    Clamping of estimates and guidance are left to the reader. Raises UserError for a sampler that is not linear.
    """
    sampler = sampling.sampler
    clamp = isinstance(sampler, DDPM) and sampler.clamp
    sampler = replace(sampler, clamp=False) if isinstance(sampler, DDPM) else sampler
    linear = replace(sampling, sampler=sampler, clamp_estimate=False)
    tracer = _Tracer(schedule, 1 + PER_STEP * sampling.steps)
    _, x = tracer.name("x")
    for record in trajectory(tracer, x, linear, tracer, None, start):  # type: ignore[arg-type]
        line = {"step": "", "sum": tracer.sum(record.x)}
        line["step"], vector = tracer.name("x")
        tracer.lines.append(line)
        record.x.copy_(vector)  # in place: the trajectory goes on from a name of its own
    table = {"lines": tracer.lines, "clamp": clamp}
    _check(table, schedule, replace(sampling, clamp_estimate=False), start)
    return table


def follow(table: Table, x: Tensor, denoise: Callable[[Tensor, float, float], Tensor], rng: BatchRng) -> Tensor:
    """The end of the trajectory from x (B, C, H, W); `denoise(x_t, alpha, sigma)` is x_hat."""
    values = {"x0": x}
    for line in table["lines"]:
        if "noise" in line:
            values[line["noise"]] = rng.normal_like(x)
            continue
        total = sum((c * values[name] for name, c in line["sum"].items()), torch.zeros_like(x))
        if "call" in line:
            values[line["call"]] = denoise(total, line["alpha"], line["sigma"])
        else:
            x = values[line["step"]] = total.clamp(-1, 1) if table["clamp"] else total
    return x


class _Bent(Denoiser):
    """Some denoiser that is not linear, to hold a table against its sampler."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def at(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        return torch.tanh(x_t.roll(1, -1) + alpha) + 0.3 * x_t / (alpha + sigma)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        return self.at(x_t, float(self.schedule.alpha(t)), float(self.schedule.sigma(t)))


def _check(table: Table, schedule: Schedule, sampling: SamplingConfig, start: float) -> None:
    """Raises UserError where the table does not give what the sampler gives."""
    denoiser, x = _Bent(schedule), BatchRng(0, [0], "check").normal_like(torch.zeros(1, 2, 3, 3, dtype=torch.float64))
    *_, record = trajectory(denoiser, x, sampling, BatchRng(1, [0]), None, start)
    error = (follow(table, x, denoiser.at, BatchRng(1, [0])) - record.x).abs().max() / record.x.abs().max().clamp(min=1)
    if not error <= TOLERANCE:
        name = type(sampling.sampler).__name__
        raise UserError(f"the sampler {name} can't be written as a table, since its steps are no sums of x, estimates and noise "
                        f"(a relative error of {error:.1e}): choose sampler dpm++2m")  # fmt: skip
