"""Sampling in the studio: images that clear while one looks; variations of one of them, and one becoming another."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from unnoise import figures
from unnoise.data.labels import check_label, labels_for
from unnoise.data.pixels import from_uint8, to_uint8
from unnoise.diffusion.guidance import NoGuidance
from unnoise.diffusion.inversion import interpolate
from unnoise.diffusion.samplers import SAMPLERS
from unnoise.diffusion.sampling import SamplingConfig, SamplingRecord
from unnoise.model import Model
from unnoise.studio import pixels
from unnoise.studio.errors import Refusal
from unnoise.studio.jobs import Job, Jobs
from unnoise.studio.requests import Fields, api_of, read_fields

MOST, MOST_STEPS, SEEDS = 64, 1000, 2**53
MORPH_STEPS = 50  # of inversion, each five calls, by which images come back nearly as they were
FRAMES, FRAMES_BYTES = 40, 2**24  # of a trajectory that are kept


@dataclass(frozen=True)
class Samples:
    """Finished images (N, H, W, C), frames (F, N, H, W, C) of how they cleared, both uint8, and how they were made."""

    run: str
    seed: int
    images: np.ndarray
    frames: np.ndarray
    labels: tuple[str, ...] | None = None

    @property
    def nbytes(self) -> int:
        return self.images.nbytes + self.frames.nbytes

    def to_json(self) -> dict[str, Any]:
        labels = None if self.labels is None else list(self.labels)
        return {"run": self.run, "seed": self.seed, "images": pixels.all_to_json(self.images), "labels": labels}


class Frames:
    """Keeps evenly spaced frames of a trajectory, no more than memory allows."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []

    def add(self, record: SamplingRecord) -> np.ndarray:
        """The frame after a step, uint8 (N, H, W, C)."""
        frame = figures.in_range(record.x)
        n = max(1, min(FRAMES, FRAMES_BYTES // frame.nbytes, record.steps))
        if record.step * n // record.steps > (record.step - 1) * n // record.steps:
            self.kept.append(frame)
        return frame


def show_all(job: Job, records: Iterator[SamplingRecord]) -> tuple[np.ndarray, np.ndarray]:
    """The images and the frames of a trajectory, shown while they clear."""
    frames = Frames()
    for record in records:
        frame = frames.add(record)
        job.show(record.step, record.steps, lambda frame=frame: {"images": pixels.all_to_json(frame)})  # type: ignore[misc]
    return to_uint8(record.x), np.stack(frames.kept)


@dataclass(frozen=True)
class How:
    """What a request asks of sampling; None is as the run's recipe says, a guidance of 1 is none."""

    sampler: str | None
    steps: int | None
    guidance: float | None

    @classmethod
    def read(cls, fields: Fields) -> "How":
        steps, guidance = fields.whole("steps", 1, MOST_STEPS, None), fields.number("guidance", 0, 100, None)
        return cls(fields.choice("sampler", SAMPLERS, None), steps, guidance)

    def config(self, model: Model) -> SamplingConfig:
        """Raises UserError for what this run can't do."""
        if self.guidance == 1:
            return replace(model.info.sampling(self.sampler, self.steps), guidance=NoGuidance())
        return model.info.sampling(self.sampler, self.steps, self.guidance)


@dataclass(frozen=True)
class Asked:
    """A request for samples: new ones or, with `start` (1, H, W, C) uint8, images like that one, at this `strength`; with two
    images, those between them."""

    run: str
    count: int
    seed: int
    label: str | None
    how: How
    start: np.ndarray | None = None
    strength: float = 0.5

    @classmethod
    def read(cls, fields: Fields, jobs: Jobs) -> "Asked":
        """Raises Refusal for what can't be."""
        asked = cls(fields.text("run"), fields.whole("count", 1, MOST, 16), fields.whole("seed", 0, SEEDS, 0),
                    fields.text("label", None), How.read(fields))  # fmt: skip
        vary, morph = fields.object("from", None), fields.object("morph", None)
        fields.end()
        if vary is not None and morph is not None:
            raise Refusal(400, "'from' and 'morph' are two ways to begin: give one")
        if vary is not None:
            asked = replace(asked, start=_images(vary, jobs, "index"), strength=vary.number("strength", 0.01, 1, 0.5))
            vary.end()
        if morph is not None:
            asked = replace(asked, start=_images(morph, jobs, "a", "b"))
            morph.end()
        return asked

    def sample(self, job: Job, model: Model) -> Samples:
        check_label(self.label, model.info.classes)
        if self.start is not None and len(self.start) > 1:
            return Samples(self.run, self.seed, *show_all(job, self._between(model, from_uint8(self.start))))
        indices, sampling = range(self.count), self.how.config(model)
        labels = labels_for(self.label, model.info.classes, indices, self.seed)
        if self.start is None:
            records = model.trajectory(indices, self.seed, sampling, labels)
        else:
            x = from_uint8(self.start)
            records = model.image_to_image_trajectory(x, self.strength, indices, self.seed, sampling, labels)
        return Samples(self.run, self.seed, *show_all(job, records), names_of(labels, model))

    def _between(self, model: Model, ends: torch.Tensor) -> Iterator[SamplingRecord]:
        """Through the noise that both come from."""
        most = model.info.recipe.schedule.steps or MORPH_STEPS
        sampling = replace(model.info.recipe.sampling, steps=min(MORPH_STEPS, most))
        noises = interpolate(list(model.invert(ends, sampling, model.restoration_label(self.label, 2))), max(2, self.count))
        return model.trajectory_from_noise(noises, sampling, model.restoration_label(self.label, len(noises)))


def names_of(labels: torch.Tensor | None, model: Model) -> tuple[str, ...] | None:
    """Of the classes."""
    return None if labels is None else tuple(model.info.classes[k] for k in labels.tolist())


def samples_of(jobs: Jobs, job: str) -> Samples:
    """What a job has sampled. Raises Refusal where there is nothing, yet or at all."""
    found = jobs.find(job).result
    if not isinstance(found, Samples):
        raise Refusal(409, "this job has no samples: wait until it is done, or begin another")
    return found


def _images(fields: Fields, jobs: Jobs, *names: str) -> np.ndarray:
    """Images of a finished job, by the numbers in these fields."""
    images = samples_of(jobs, fields.text("job")).images
    return images[[fields.whole(name, 0, len(images) - 1) for name in names]]


async def sample(request: Request) -> Response:
    api = api_of(request)
    asked = Asked.read(await read_fields(request), api.jobs)
    api.runs.folder(asked.run)
    return JSONResponse({"job": api.jobs.add(lambda job: asked.sample(job, api.models.load(asked.run))).id})
