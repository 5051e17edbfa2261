"""A diffusion model of points in the plane, trained while one looks: all of it in seconds.

Points are images of two channels and one pixel, so that the denoiser, the loss and the samplers are those of everything else.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from torch import Tensor, nn

from unnoise.diffusion.denoiser import FlowVelocity, NetworkDenoiser
from unnoise.diffusion.loss import diffusion_loss
from unnoise.diffusion.samplers import Heun
from unnoise.diffusion.sampling import SamplingConfig, trajectory
from unnoise.diffusion.schedules import Flow
from unnoise.diffusion.timesteps import UniformSteps
from unnoise.studio.jobs import Job
from unnoise.studio.requests import api_of, read_fields
from unnoise.utils.rng import BatchRng

SHOWN, TRACED = 300, 60  # points of a frame, and of trajectories
BATCH, WIDTH, STEPS, SECONDS = 512, 96, 20, 20
FRAME_EVERY = 0.5  # seconds
NOISE = 0.03  # of the points around their curve
Points = list[list[float]]


def _spiral(u: Tensor) -> tuple[Tensor, Tensor]:
    angle = 3 * math.pi * torch.sqrt(u)
    return angle / 5 * torch.cos(angle), angle / 5 * torch.sin(angle)


def _circle(u: Tensor) -> tuple[Tensor, Tensor]:
    return 1.5 * torch.cos(2 * math.pi * u), 1.5 * torch.sin(2 * math.pi * u)


def _moons(u: Tensor) -> tuple[Tensor, Tensor]:
    angle, upper = math.pi * (2 * u % 1), u < 0.5
    x = torch.where(upper, torch.cos(angle), 1 - torch.cos(angle)) - 0.5
    return 1.2 * x, 1.2 * (torch.where(upper, torch.sin(angle), 0.5 - torch.sin(angle)) - 0.25)


def _lissajous(u: Tensor) -> tuple[Tensor, Tensor]:
    return 1.6 * torch.sin(4 * math.pi * u), 1.6 * torch.sin(6 * math.pi * u)


SHAPES: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "spiral": _spiral, "circle": _circle, "two moons": _moons, "knot": _lissajous,
}  # fmt: skip


class PointNetwork(nn.Module):
    """(x (B, 2, 1, 1), c_noise (B,)) -> like x."""

    frequencies: Tensor

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(4))
        sizes = [(2 + 8, width), (width, width), (width, width)]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in sizes)
        self.out = nn.Linear(width, 2)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        angles = c_noise.to(x).reshape(-1, 1).expand(len(x), 1) * self.frequencies
        h = torch.cat([x.flatten(1), angles.sin(), angles.cos()], dim=1)
        for layer in self.hidden:
            h = nn.functional.silu(layer(h))
        found: Tensor = self.out(h)
        return found.reshape(x.shape)


@dataclass(frozen=True)
class Toy:
    """What is learned: points of a curve; `data` (N, 2)."""

    shape: str
    seed: int

    def data(self, count: int, generator: torch.Generator) -> Tensor:
        """Points near the curve, (count, 2, 1, 1)."""
        points = torch.stack(SHAPES[self.shape](torch.rand(count, generator=generator)), 1)
        return (points + NOISE * torch.randn(points.shape, generator=generator))[..., None, None]

    def train(self, job: Job, seconds: float) -> "Trained":
        """Train for so many seconds, showing what samples look like so far, then trace some of them."""
        generator = torch.Generator().manual_seed(self.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            denoiser = NetworkDenoiser(PointNetwork(), Flow(), FlowVelocity())
        optimizer = torch.optim.Adam(denoiser.parameters(), 3e-3)
        begun, due, step, loss = time.monotonic(), 0.0, 0, math.nan
        while (spent := time.monotonic() - begun) < seconds:
            if spent >= due:
                due, shown = spent + FRAME_EVERY, _flat(self.data(SHOWN, generator)) if not step else None
                self._show(job, denoiser, step, spent / seconds, loss, shown)
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * (1 - spent / seconds)
            x = self.data(BATCH, generator)
            t, noise = torch.rand(BATCH, generator=generator), torch.randn(x.shape, generator=generator)
            found = diffusion_loss(denoiser, x, t, noise).mean()
            optimizer.zero_grad()
            found.backward()
            optimizer.step()
            last = float(found.detach())
            step, loss = step + 1, 0.98 * (last if math.isnan(loss) else loss) + 0.02 * last
        return Trained(_sample(denoiser, self.seed, SHOWN)[-1], _sample(denoiser, self.seed, TRACED), step, loss)

    def _show(self, job: Job, denoiser: NetworkDenoiser, step: int, done: float, loss: float, data: Points | None) -> None:
        frame: dict[str, Any] = {"points": _sample(denoiser, self.seed, SHOWN)[-1], "trained": step,
                                 "loss": None if math.isnan(loss) else loss}  # fmt: skip
        job.show(round(1000 * done), 1000, lambda: frame if data is None else frame | {"data": data})


@dataclass(frozen=True)
class Trained:
    """Samples, and the positions of some of them at each step from noise on."""

    points: Points
    positions: list[Points]
    steps: int
    loss: float
    nbytes: int = 0

    def to_json(self) -> dict[str, Any]:
        traced = [[positions[k] for positions in self.positions] for k in range(len(self.positions[0]))]
        return {"points": self.points, "trajectories": traced, "trained": self.steps, "loss": self.loss}


@torch.no_grad()
def _sample(denoiser: NetworkDenoiser, seed: int, count: int) -> list[Points]:
    """The positions of samples at each step, from noise on."""
    rng = BatchRng(seed, range(count))
    x = rng.normal_like(torch.empty(count, 2, 1, 1))
    sampling = SamplingConfig(Heun(), UniformSteps(), STEPS, clamp_estimate=False)
    return [_flat(x), *(_flat(record.x) for record in trajectory(denoiser, x, sampling, rng))]


def _flat(x: Tensor) -> Points:
    found: Points = x.flatten(1).mul(1000).round().div(1000).tolist()
    return found


async def train_toy(request: Request) -> Response:
    fields = await read_fields(request)
    toy = Toy(fields.choice("shape", SHAPES, "spiral"), fields.whole("seed", 0, 2**31, 0))
    seconds = fields.number("seconds", 0.1, SECONDS, 10)
    fields.end()
    api = api_of(request)
    return JSONResponse({"job": api.jobs.add(lambda job: toy.train(job, seconds)).id})
