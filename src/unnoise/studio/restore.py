"""Restoring in the studio: an image, a task, and what comes out of it, with its doubt."""

import base64
import binascii
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from torch import Tensor
from torch.nn import functional

from unnoise.data.pixels import HALF_RANGE, from_uint8, to_uint8
from unnoise.diffusion.denoiser import Denoiser
from unnoise.model import Model
from unnoise.restoration import tasks
from unnoise.restoration.masks import read_mask
from unnoise.restoration.noise import GaussianNoise, estimate_sigma
from unnoise.restoration.posteriors import matching_time
from unnoise.restoration.restore import ignore
from unnoise.restoration.undo import Found, Undoing, psnr
from unnoise.studio import pixels
from unnoise.studio.errors import Refusal
from unnoise.studio.images import Picked, as_channels
from unnoise.studio.jobs import Job
from unnoise.studio.requests import Fields, api_of, read_fields
from unnoise.studio.sample import SEEDS
from unnoise.studio.uploads import Uploads
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

MOST_SAMPLES, HIGHEST_SIGMA = 16, 1000.0
MIN_SIGMA = 0.13  # of 255: less is no noise
TRIED_SIGMA = 25.0  # of 255, that is added where nobody says how much
DOUBT = (230, 90, 30)  # the colour of the overlay
Json = dict[str, Any]


def number(name: str, default: float | None, low: float, high: float, kind: str = "number") -> Json:
    return {"name": name, "kind": kind, "default": default, "min": low, "max": high}


OPTIONS: dict[str, list[Json]] = {
    "denoise": [],
    "salt-and-pepper": [],
    "inpaint": [],
    "upscale": [number("factor", 4, 2, 16, "integer")],
    "deblur": [{"name": "kind", "kind": "choice", "choices": ["gaussian", "motion"], "default": "gaussian"},
               number("width", 1.5, 0.3, 20), number("length", 9, 2, 60), number("degrees", 0, -180, 180)],
    "colourise": [],
    "dejpeg": [number("quality", None, 1, 95, "integer")],
}  # of each task, as the page asks for them  # fmt: skip


def read_options(task: str, fields: Fields) -> Json:
    """The options of a task, those that are not given as by default. Raises Refusal."""
    found: Json = {}
    for option in OPTIONS[task]:
        name, default = option["name"], option["default"]
        if option["kind"] == "choice":
            found[name] = fields.choice(name, option["choices"], default)
        else:
            read = fields.whole if option["kind"] == "integer" else fields.number
            found[name] = read(name, option["min"], option["max"], default)
    fields.end()
    return found


@dataclass(frozen=True)
class Asked:
    """A request: an image, what was done to it, and how many samples; `sigma` of white noise, of 255, None: not known.

    `degrade`: the image is clean, and is degraded first, to try it out.
    """

    run: str
    image: Picked
    task: str
    options: Json
    sigma: float | None
    mask: "Painted | None"
    samples: int
    seed: int
    label: str | None
    degrade: bool

    def restore(self, job: Job, model: Model, values: np.ndarray, path: Path | None) -> "Restoration":
        """`values` (H, W, C) of 8 bits, of the file `path` where it is one."""
        begun, task, clean = time.perf_counter(), self._task(model, values, path), None
        y, restorer = from_uint8(values[None]), model.restorer()
        size = task.check(y.shape[1], task.degraded_size(values.shape[:2]) if self.degrade else values.shape[:2])
        restorer.check_size(size)
        if self.degrade:
            y, clean = task.degrade(y, BatchRng(self.seed, [0], "added")), y
        watched, done = Watched(restorer.denoiser, size), 0.0

        def progress(part: float) -> None:
            nonlocal done
            done = min(done + part, self.samples)
            job.show(round(100 * done), 100 * self.samples, lambda: {"images": watched.estimate()})

        label = model.restoration_label(self.label, 1)
        undoing = Undoing(replace(restorer, denoiser=watched), label, "average", self.samples, None, self.seed, progress)
        found = self._denoise(model, undoing, y) if self.task == "denoise" else undoing.undo(y, task)
        seconds = time.perf_counter() - begun
        if clean is None:
            return Restoration(y, found, None, seconds)
        before = psnr(y, clean) if y.shape == clean.shape else None
        return Restoration(y, found, {"before": before, "after": psnr(found.x, clean)}, seconds)

    def _denoise(self, model: Model, undoing: Undoing, y: Tensor) -> Found:
        """By one call of the network, which has the least error; samples are for the doubt."""
        found = replace(undoing, mode="mean", on_progress=ignore).denoise(y, *self._noise_level(model, y))
        if found.sigma is None or self.samples == 1:
            return found
        return replace(found, std=undoing.denoise(y, found.sigma).std)

    def _noise_level(self, model: Model, y: Tensor) -> tuple[float, bool]:
        """On [-1, 1], and whether it is estimated. Raises UserError where there is next to none."""
        sigma = self.sigma if self.sigma is not None or not self.degrade else TRIED_SIGMA
        level = estimate_sigma(y[0]) if sigma is None else sigma / HALF_RANGE
        if not level * HALF_RANGE > MIN_SIGMA:
            raise UserError(f"there is no noise to speak of in this image (sigma {level * HALF_RANGE:.2g} of 255): say how much "
                            "there is, or choose another task")  # fmt: skip
        matching_time(model.denoiser.schedule, level)
        return level, sigma is None

    def _task(self, model: Model, values: np.ndarray, path: Path | None) -> tasks.Task:
        """Raises UserError for what can't be."""
        sigma = TRIED_SIGMA if self.sigma is None and self.degrade and self.task == "denoise" else self.sigma
        noise, colour, o = GaussianNoise(sigma) if sigma else None, model.info.shape[0] == 3, self.options
        match self.task:
            case "salt-and-pepper":
                return tasks.SaltAndPepper()
            case "inpaint":
                return tasks.Inpaint(self._mask(values), noise)
            case "upscale":
                return tasks.Upscale(o["factor"], noise=noise)
            case "deblur":
                return tasks.Deblur(o["width"], o["length"] if o["kind"] == "motion" else None, o["degrees"], noise)
            case "colourise":
                if not colour:
                    raise UserError("this run was trained on grey images: it can't colourise any, choose another run")
                return tasks.Colourise(noise)
            case "dejpeg":
                if o["quality"] is None and path is None:
                    raise UserError("only a JPEG file says its own quality: give `quality`")
                return tasks.Dejpeg.of_quality(o["quality"], colour) if o["quality"] else _tables(path)
        return tasks.Denoise(noise)

    def _mask(self, values: np.ndarray) -> Tensor:
        if self.mask is None:
            raise UserError("nothing is painted: paint what is missing, or choose a mask")
        return self.mask.fitted((values.shape[0], values.shape[1]))


def _tables(path: Path | None) -> tasks.Dejpeg:
    assert path is not None
    with _called(path, "this image"):
        return tasks.Dejpeg.of_file(path)


@contextmanager
def _called(path: Path, name: str) -> Iterator[None]:
    """In the sentence of an error within, a file of our own is called so."""
    try:
        yield
    except UserError as e:
        raise UserError(str(e).replace(f"'{path}'", name)) from e


@dataclass(frozen=True)
class Painted:
    """A mask: `known` (H, W) is 0 where pixels are missing. By `brush` it was painted over the image as it is shown."""

    known: Tensor
    brush: bool

    @classmethod
    def read(cls, uploads: Uploads, fields: Fields) -> "Painted":
        """One that was sent before, or a PNG as base64. Raises UserError for one that can't be meant."""
        upload, png = fields.text("upload", None), fields.text("png", None, longest=2**20)
        for side in ("width", "height"):  # the PNG says them itself
            fields.whole(side, 1, 2**16, None)
        fields.end()
        if (upload is None) == (png is None):
            raise Refusal(400, "a mask is an `upload` or a `png`: give one of them")
        try:
            path = uploads.path(upload or uploads.add(base64.b64decode(png, validate=True))[0])
        except binascii.Error as e:
            raise Refusal(400, "the mask is no base64: reload the page") from e
        with _called(path, "given"):
            return cls(read_mask(path).known, upload is None)

    def fitted(self, size: tuple[int, int]) -> Tensor:
        """To an image of this (height, width). Raises UserError for a file of another size."""
        if self.brush:
            return functional.interpolate(self.known[None, None], size, mode="nearest")[0, 0]
        if self.known.shape != size:
            h, w = self.known.shape
            raise UserError(f"the mask has {h}x{w} pixels and the image {size[0]}x{size[1]}: make them equal")
        return self.known


class Watched(Denoiser):
    """A denoiser whose last estimate of an image of this `size` (height, width) can be looked at."""

    def __init__(self, denoiser: Denoiser, size: tuple[int, int]) -> None:
        super().__init__()
        self.denoiser, self.schedule, self._size = denoiser, denoiser.schedule, size
        self._last: Tensor | None = None

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        x_hat: Tensor = self.denoiser(x_t, t, label, **cond)
        self._last = x_hat.detach()[:1]
        return x_hat

    def estimate(self) -> list[Json]:
        """The image, or nothing where an image is so large that only its tiles are estimated."""
        h, w = self._size
        if self._last is None or self._last.shape[2] < h or self._last.shape[3] < w:
            return []
        return pixels.all_to_json(to_uint8(self._last[..., :h, :w]))


@dataclass(frozen=True)
class Restoration:
    """What was restored: y (1, C, h, w), what was found, and the PSNR `before` and `after` where the clean image is known."""

    y: Tensor
    found: Found
    psnr: Json | None
    seconds: float

    @property
    def nbytes(self) -> int:
        return self.y.nbytes + self.found.x.nbytes + (self.found.std.nbytes if self.found.std is not None else 0)

    def to_json(self) -> Json:
        x, sigma = self.found.x, self.found.sigma
        before = functional.interpolate(self.y.clamp(-1, 1), x.shape[2:], mode="nearest")
        return {"before": pixels.to_json(to_uint8(before)[0]), "after": pixels.to_json(to_uint8(x)[0]), "said": self.found.said,
                "doubt": None if self.found.std is None else pixels.to_json(overlay(self.found.std)),
                "sigma": None if sigma is None else sigma * HALF_RANGE, "seconds": self.seconds,
                "psnr": self.psnr}  # fmt: skip


def overlay(std: Tensor) -> np.ndarray:
    """A standard deviation (1, C, H, W) as RGBA (H, W, 4): the more doubt, the less transparent; opaque at its largest."""
    doubt = std.mean(1)[0]
    alpha = (255 * doubt / doubt.max().clamp(min=1e-6)).round().byte().cpu().numpy()
    return np.dstack([*(np.full_like(alpha, level) for level in DOUBT), alpha])


async def restore(request: Request) -> Response:
    api = api_of(request)
    fields = await read_fields(request)
    task = fields.choice("task", tasks.TASKS)
    options = read_options(task, fields.object("options", Fields({}, "options.")))
    mask = fields.text_or_object("mask", "upload", None)
    painted = None if mask is None else await run_in_threadpool(Painted.read, api.uploads, mask)
    asked = Asked(fields.text("run"), Picked.read(fields.object("image")), task, options,
                  fields.number("sigma", MIN_SIGMA, HIGHEST_SIGMA, None), painted, fields.whole("samples", 1, MOST_SAMPLES, 8),
                  fields.whole("seed", 0, SEEDS, 0), fields.text("label", None), fields.flag("degrade"))  # fmt: skip
    fields.end()
    api.runs.folder(asked.run)
    path = asked.image.path(api.uploads)

    def work(job: Job) -> Restoration:
        model = api.models.load(asked.run)
        values = asked.image.values(api.models, asked.run, api.uploads)
        if task != "colourise" or asked.degrade:
            values = as_channels(values, model.info.shape[0])
        return asked.restore(job, model, values, path)

    return JSONResponse({"job": api.jobs.add(work).id})


def describe_tasks() -> list[Json]:
    """What the page needs to know of each task."""
    return [{"name": name, "options": OPTIONS[name]} for name in tasks.TASKS]
