"""Learning in the studio: an image under noise, the network's estimate of it, schedules, two ways of sampling side by side."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from unnoise import figures
from unnoise.data.pixels import from_uint8, to_uint8
from unnoise.diffusion.sampling import SamplingRecord
from unnoise.diffusion.schedules import Schedule, add_noise
from unnoise.model import Model
from unnoise.studio import pixels
from unnoise.studio.errors import Refusal
from unnoise.studio.images import Picked
from unnoise.studio.jobs import Job
from unnoise.studio.requests import api_of, read_fields
from unnoise.studio.sample import MOST, SEEDS, How
from unnoise.utils import rng

TIMES = 200  # of a schedule that are sent, evenly spaced in log(sigma / alpha)
LOWEST, HIGHEST = 0.01, 1e3  # ratios sigma / alpha: an image without visible noise; noise alone
WAITING = 4  # denoisings that may wait for the one that is going on
Json = dict[str, Any]


def schedule(request: Request) -> Response:
    info = api_of(request).runs.open(request.path_params["run"]).read_info()
    t = times(info.recipe.schedule)
    scales = {"alpha": info.recipe.schedule.alpha(t), "sigma": info.recipe.schedule.sigma(t)}
    return JSONResponse({"t": t.tolist(), **{name: value.tolist() for name, value in scales.items()}})


def times(schedule: Schedule) -> torch.Tensor:
    """TIMES times (float64) from nearly the image to t = 1, evenly spaced in log(sigma / alpha)."""
    last = schedule.time_at(torch.tensor(HIGHEST, dtype=torch.float64))
    high = float(schedule.ratio(last))
    ratios = torch.logspace(np.log10(LOWEST), np.log10(high), TIMES, dtype=torch.float64)
    t = schedule.time_at(ratios)
    return torch.cat([t[:-1], torch.ones(1, dtype=t.dtype)])


def show_image(request: Request) -> Response:
    """A training image, as the network sees it."""
    images, index = api_of(request).models.images(request.path_params["run"]), request.path_params["index"]
    image, label = images.read(index)
    return JSONResponse({"image": pixels.to_json(image), "index": index % len(images), "count": len(images), "label": label})


class Interactive:
    """What answers while one drags: beside the jobs, one after the other, few waiting."""

    def __init__(self) -> None:
        self._waiting, self._lock = 0, threading.Lock()

    async def run(self, work: Any) -> Any:
        """Raises Refusal (429) where too many wait."""
        if self._waiting > WAITING:
            raise Refusal(429, "the slider is ahead of the network: wait for the last image")
        self._waiting += 1
        try:
            return await asyncio.to_thread(self._one, work)
        finally:
            self._waiting -= 1

    def _one(self, work: Any) -> Any:
        with self._lock:
            return work()


async def denoise(request: Request) -> Response:
    fields, api = await read_fields(request), api_of(request)
    run, t, seed = fields.text("run"), fields.number("t", 0, 1), fields.whole("seed", 0, SEEDS, 0)
    label, image = fields.text("label", None), Picked.read(fields.object("image"))
    fields.end()
    api.runs.folder(run)

    def work() -> Json:
        return denoised(api.models.load(run), image.fitted(api.models, run, api.uploads), t, seed, label)

    return JSONResponse(await api.interactive.run(work))


@torch.no_grad()
def denoised(model: Model, image: np.ndarray, t: float, seed: int, label: str | None) -> Json:
    """An image uint8 (H, W, C) under noise at time t, and what the network makes of it; differences are around grey."""
    x = from_uint8(image[None])
    time = torch.tensor(max(t, 1e-6), dtype=torch.float64)
    x_t = add_noise(model.denoiser.schedule, x, time, rng.normal(rng.stream(seed, "studio"), x.shape))
    estimate = model.denoiser(x_t.to(model.info.device), time, model.restoration_label(label, 1)).float().cpu()
    shown = {"x": to_uint8(x), "x_t": figures.in_range(x_t), "estimate": to_uint8(estimate),
             "difference": to_uint8((estimate.clamp(-1, 1) - x) / 2)}  # fmt: skip
    at = model.denoiser.schedule.at(time)
    return {**{k: pixels.to_json(v[0]) for k, v in shown.items()}, "alpha": float(at.alpha), "sigma": float(at.sigma)}


@dataclass(frozen=True)
class Compared:
    """The same noise under two settings."""

    a: np.ndarray
    b: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.a.nbytes + self.b.nbytes

    def to_json(self) -> Json:
        return {"a": pixels.all_to_json(self.a), "b": pixels.all_to_json(self.b)}


async def compare(request: Request) -> Response:
    fields, api = await read_fields(request), api_of(request)
    run, seed, count = fields.text("run"), fields.whole("seed", 0, SEEDS, 0), fields.whole("count", 1, MOST // 2, 4)
    ways = []
    for name in ("a", "b"):
        way = fields.object(name)
        ways.append(How.read(way))
        way.end()
    fields.end()
    api.runs.folder(run)

    def work(job: Job) -> Compared:
        model = api.models.load(run)
        return side_by_side(job, *(model.trajectory(range(count), seed, way.config(model)) for way in ways))

    return JSONResponse({"job": api.jobs.add(work).id})


def side_by_side(job: Job, a: Iterator[SamplingRecord], b: Iterator[SamplingRecord]) -> Compared:
    """Two trajectories at once, each by its own number of steps."""
    last = [next(a), next(b)]
    total = last[0].steps + last[1].steps
    while any(record.step < record.steps for record in last):
        behind = min((0, 1), key=lambda k: last[k].step / last[k].steps)
        last[behind] = next((a, b)[behind])
        shown = {name: figures.in_range(record.x) for name, record in zip("ab", last, strict=True)}
        job.show(last[0].step + last[1].step, total, lambda shown=shown: {k: pixels.all_to_json(v) for k, v in shown.items()})  # type: ignore[misc]
    return Compared(*(to_uint8(record.x) for record in last))
