"""Beginning a student: a run that is trained to sample in one or two calls of the network what its teacher samples in many."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unnoise.diffusion.guidance import AutoGuidance, ClassGuidance, Guidance, NoGuidance
from unnoise.diffusion.loss import PseudoHuber
from unnoise.diffusion.samplers import Consistency
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.timesteps import GivenSteps, LogNormalTimes
from unnoise.model import Model
from unnoise.recipe import Recipe, RunInfo
from unnoise.run_folder import RunFolder
from unnoise.runs.resume import find_images
from unnoise.runs.settle import with_whole_previews
from unnoise.runs.start import Say, begin, silent
from unnoise.runs.trainer import Trainer
from unnoise.training.consistency import ConsistencyTuning
from unnoise.training.matching import DistributionMatching
from unnoise.utils.errors import UserError, nearest
from unnoise.utils.runtime import SINGLE, Runtime

TEACHER = 0.5  # of a budget that teacher and student share: the parts by which docs/distill.md was measured
MATCHING_RATE, CONSISTENCY_RATE = 0.3, 0.5  # of the teacher's learning rate
MATCHING_TIMES = LogNormalTimes(mean=-0.8, std=1.4)  # at which samples are compared with images
LEVEL = 1.4  # where the second call begins
FURTHER = (0.5, 0.25)  # where further calls begin, for which a student is not trained, as parts of the last trained level


def student_folder(run: Path | str) -> RunFolder:
    """Where a run's student lies by default: beside it."""
    path = Path(run)
    return RunFolder(path.parent / f"{path.resolve().name}-fast")


def divide_budget(recipe: Recipe) -> tuple[Recipe, tuple[float | None, int | None]]:
    """The recipe with the teacher's part of its budget, and the minutes and steps that are the student's."""
    config = recipe.training
    minutes, steps = config.minutes, config.steps
    if config.epochs is not None or minutes is steps is None:
        raise UserError("a training with its student divides a number of minutes or steps: give `minutes` or `steps`")
    own = replace(config, minutes=minutes and TEACHER * minutes, steps=steps and max(1, round(TEACHER * steps)))
    student = minutes and (1 - TEACHER) * minutes, steps and max(1, steps - round(TEACHER * steps))
    return replace(recipe, training=own), student


def begin_student(run: Path | str, out: Path | str | None = None, minutes: float | None = None, steps: int | None = None,
                  guidance: float | None = None, say: Say = print, runtime: Runtime = SINGLE, data: Any = None,
                  started: float | None = None, method: str = "matching") -> Trainer:  # fmt: skip
    """Begin to distil a run into the folder `out`, by default RUN-fast, for `minutes` or `steps`.

    `guidance` is the strength of guidance, by class or else by the run's early average, that the student learns: by default
    that of the run's own sampling; 1 is none. `data` says where the images are now, or gives again those that Python gave;
    `started` is when the clock began (`time.perf_counter`). `method` is a key of METHODS. Raises UserError for a run that is a
    student itself or has no weights, and where no budget is given.
    """
    say = say if runtime.is_first else silent
    if method not in METHODS:
        raise UserError(f"unknown method '{method}': {nearest(method, METHODS)}")
    folder = RunFolder.open(run)
    info = folder.read_info()
    if info.recipe.training.objective.from_teacher:
        raise UserError(f"'{run}' is a student itself: distil its teacher, {info.from_run}, or go on with "
                        f"'unnoise train --resume {run} --minutes 10'")  # fmt: skip
    if minutes is None and steps is None:
        raise UserError("a student needs a budget: give `minutes` or `steps`")
    model = Model.load(run, runtime.device)
    learned = guidance_of(info, guidance)
    sampling = replace(info.recipe.sampling, guidance=learned)
    model.guided(sampling)  # refuses what the run can't have
    if model.lacks_guide(sampling):
        learned = NoGuidance()
        say("the student learns no guidance, since its teacher has no early average yet")
    elif guidance is None and not isinstance(learned, NoGuidance):
        say("the student learns the guidance with which its teacher samples (guidance 1: none)")
    info = find_images(folder, info, data, say, None, runtime)[1]
    recipe = student_recipe(info.recipe, learned, method)
    recipe = replace(recipe, training=replace(recipe.training, minutes=minutes, steps=steps))
    if info.recipe.training.sharded and not recipe.training.sharded:
        say("a student by matching is not sharded, unlike its teacher: each process holds teacher, student and critic whole")
    return begin(out or student_folder(run).path, recipe, say, runtime=runtime, started=started, from_run=run)


def student_recipe(taught: Recipe, guidance: Guidance, method: str) -> Recipe:
    """The recipe of a run's student, without a budget."""
    recipe, sampling = METHODS[method](taught, guidance), taught.sampling
    training = replace(with_whole_previews(recipe.training), minutes=None, steps=None, epochs=None, stop_when="never",
                       snapshots=0, extra_ema=())  # fmt: skip
    objective = training.objective
    levels = objective.levels if isinstance(objective, DistributionMatching) else ()
    times = GivenSteps((*levels, *(part * levels[-1] for part in FURTHER))) if levels else GivenSteps()
    steps = 1 + max(1, len(levels))
    few = SamplingConfig(Consistency(), times, steps, sampling.clamp_estimate, sampling.start, sampling.dynamic)
    return replace(recipe, training=training, sampling=few)


def matching(taught: Recipe, guidance: Guidance) -> Recipe:
    """Distribution matching, which needs no augmentation: it learns from its teacher, not from images."""
    config, data, times = taught.training, replace(taught.data, augment=0.0), taught.training.times
    times = MATCHING_TIMES if isinstance(times, LogNormalTimes) else times
    level = min(LEVEL, 0.5 * _end(taught))
    objective = DistributionMatching(guidance, (level,), tell_critic=taught.network.takes_augmentation)
    training = replace(config, objective=objective, times=times, learning_rate=MATCHING_RATE * config.learning_rate,
                       sharded=False)  # fmt: skip
    return replace(taught, data=data, training=training)


def consistency(taught: Recipe, guidance: Guidance) -> Recipe:
    """Consistency tuning, at times of which 2 % are the end, where sampling begins.

    Raises UserError for guidance of one's own.
    """
    if not isinstance(guidance, NoGuidance | ClassGuidance | AutoGuidance):
        raise UserError("consistency tuning can't learn guidance of one's own: give `guidance` 1, or `method` matching")
    config, times = taught.training, taught.training.times
    if isinstance(times, LogNormalTimes):
        times = replace(times, std=max(times.std, min(2.4, max(1.6, (math.log(_end(taught)) - times.mean) / 2))))
    training = replace(config, objective=ConsistencyTuning(guidance), loss=PseudoHuber(), times=times,
                       learning_rate=CONSISTENCY_RATE * config.learning_rate)  # fmt: skip
    return replace(taught, training=training)


def _end(recipe: Recipe) -> float:
    """The noise level at which sampling begins, 80 where that is more."""
    return min(80.0, float(recipe.schedule.ratio(torch.ones((), dtype=torch.float64))))


METHODS: dict[str, Callable[[Recipe, Guidance], Recipe]] = {"matching": matching, "consistency": consistency}


def guidance_of(info: RunInfo, scale: float | None) -> Guidance:
    """Guidance of this strength: by class where there are labels, else by the run's early average; None: as the run samples."""
    if scale is None:
        return info.recipe.sampling.guidance
    if scale == 1:
        return NoGuidance()
    return ClassGuidance(scale) if info.classes else AutoGuidance(scale)
