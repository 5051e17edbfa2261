"""A student while it is trained: its teacher, and the noise levels between its calls, found on held-out images."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from unnoise.data.dataset import ImageDataset
from unnoise.data.pixels import from_uint8, to_uint8
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.guidance import NoGuidance
from unnoise.diffusion.timesteps import GivenSteps
from unnoise.evaluation.distances import kernel_distance
from unnoise.model import Model
from unnoise.recipe import RunInfo
from unnoise.run_folder import RunFolder
from unnoise.training.objective import Objective
from unnoise.utils.rng import BatchRng

Times = tuple[tuple[float, ...], int]  # noise levels between calls, and how many calls to make
MAX_CALLS = 4
FIRST = (3.0, 2.0, 1.4, 1.0, 0.7)  # noise levels tried before the second call; few images favour lower ones, which change little
FURTHER = (0.7, 0.5, 0.35, 0.25)  # those before each further call, as fractions of the one before
MIN_HELD_OUT = 20  # by which they are chosen; of fewer the training images serve
MAX_IMAGES = 1000  # that samples are held against


def load_teacher(folder: RunFolder, objective: Objective, device: str) -> Denoiser | None:
    """The teacher, guided as the objective's `guidance` says, where it is needed. Raises UserError where it is gone."""
    if not objective.needs_teacher:
        return None
    model = Model.load(folder.teacher.path, device)
    return model.guided(replace(model.info.recipe.sampling, guidance=getattr(objective, "guidance", NoGuidance())))


@torch.no_grad()
def choose_times(model: Model, images: ImageDataset, count: int, seed: int) -> Times | None:
    """The noise levels sigma / alpha between calls, and how many calls to make, one or two.

    One level after the other, each below the one before, where the kernel distance from `count` samples to the images is least,
    in the principal components of the training images. None where these are not known, since there are too few.
    """
    if model.moments is None:
        return None
    basis = model.moments.basis.flatten(1)
    directions = basis / basis.norm(dim=1, keepdim=True).clamp(min=1e-12)

    def features(x: Tensor) -> Tensor:
        projected: Tensor = from_uint8(to_uint8(x)).flatten(1) @ directions.T
        return projected

    real = features(images.tensor(np.linspace(0, len(images) - 1, min(len(images), MAX_IMAGES)).round().astype(int)))
    scale = real.square().mean().rsqrt()

    def distance(x: Tensor) -> float:
        return kernel_distance((scale * features(x)).double().numpy(), (scale * real).double().numpy())

    def call(x_hat: Tensor, ratio: float, number: int) -> Tensor:
        t = schedule.at(schedule.time_at(torch.tensor(ratio, dtype=torch.float64)))
        noise = BatchRng(seed, range(count), f"times {number}").normal_like(x_hat)
        again: Tensor = denoiser(t.mix(x_hat, noise), t.t, label).clamp(-1, 1)
        return again

    denoiser, schedule, label = model.denoiser, model.denoiser.schedule, model.labels(None, range(count), seed)
    x_hat = model.sample_batch(range(count), seed, model.sampling(steps=1))
    highest = 0.9 * float(schedule.ratio(torch.ones((), dtype=torch.float64)))
    ratios, distances = list[float](), [distance(x_hat)]
    for number in range(1, MAX_CALLS):
        tried = [part * ratios[-1] for part in FURTHER] if ratios else [ratio for ratio in FIRST if ratio < highest]
        found = {ratio: call(x_hat, ratio, number) for ratio in tried}
        ratios.append(min(found, key=lambda ratio: distance(found[ratio])))
        x_hat = found[ratios[-1]]
        distances.append(distance(x_hat))
    return tuple(round(ratio, 4) for ratio in ratios), 1 if distances[0] <= distances[1] else 2


def with_times(info: RunInfo, found: Times | None) -> RunInfo:
    """The run with the times that were found, where there are any."""
    if found is None:
        return info
    sampling = replace(info.recipe.sampling, times=GivenSteps(tuple(found[0])), steps=found[1])
    return replace(info, recipe=replace(info.recipe, sampling=sampling))
