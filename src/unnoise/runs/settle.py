"""What a recipe leaves open, settled before the first step: by the images, and by measuring the machine."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from unnoise.data.dataset import ImageDataset
from unnoise.data.stats import mean_and_std
from unnoise.diffusion.denoiser import EDM
from unnoise.diffusion.gaussian import Moments
from unnoise.diffusion.guidance import NoGuidance
from unnoise.evaluation.held_out import LEVELS
from unnoise.networks.unet import FINEST, AutoUNet, UNetConfig
from unnoise.recipe import Recipe
from unnoise.training import scaling
from unnoise.training.autotune import (
    Choice,
    choose_precision,
    compare_networks,
    compiling_is_tried,
    compiling_pays,
    find_batch_size,
    training_speed,
)
from unnoise.training.config import TrainingConfig
from unnoise.training.loop import TrainState
from unnoise.training.objective import Denoising
from unnoise.utils.runtime import Runtime
from unnoise.utils.threads import Threads

MOMENTS_IMAGES = 2000  # at most, of which statistics are measured
MIN_IMAGES = 65  # whose mean and covariance (of rank 64) are kept beside the weights
MIN_STD = 0.05  # of images that are all one colour
OPEN_SECONDS = 1200.0  # for which a network is chosen where the end of the training is open
TRIED_BATCH = 128  # on a GPU, while networks are compared
PLAIN_RATE = 1e-3  # the learning rate of networks of which nothing is known
PREVIEW = 0.007  # of a budget of time, that a grid and a held-out loss may each take
LONGEST_PREVIEW = 0.1  # of the budget, that MIN_SAMPLES may take; where they take more there is one
MIN_SAMPLES = 4
Say = Callable[[str], None]


def settle(recipe: Recipe, images: ImageDataset, runtime: Runtime, say: Say, started: float) -> tuple[Recipe, bool, bool]:
    """The recipe with plain numbers, whether networks run in bfloat16, and whether the network is compiled.

    `images` are those to train on; the clock of `minutes` runs since `started`. All that is chosen is said.
    """
    recipe = fit_to_images(recipe, images, say)
    minutes = recipe.training.minutes
    threads = Threads(runtime.threads, recipe.training.is_timed, say)
    threads.choose()
    bf16 = choose_precision(recipe.training, runtime, say, 1.0 if minutes is None else min(1.0, 0.3 * minutes))
    alone, count = Runtime(runtime.device, bf16), runtime.world_size  # one process tries, the others wait

    def build(recipe: Recipe) -> TrainState:
        threads.choose()  # for what is measured with it: another program may just have begun
        return recipe.build_state(images.shape, len(images.classes), runtime.device)

    speed = None
    if isinstance(recipe.network, AutoUNet):
        end = None if minutes is None else started + 60 * minutes
        recipe, speed = choose_network(recipe, images, build, alone, count, end, say)
    config = recipe.training
    if config.batch == 0 and torch.device(runtime.device).type == "cpu":
        config = replace(config, batch=max(count, scaling.batch_size(max(images.shape[1:]))))
    if config.batch == 0:
        size = find_batch_size(build(recipe), images, config, alone, say)
        config = replace(config, batch=size * count)
        say(f"batch {config.batch}{f', {size} per process' if count > 1 else ''}: a larger one is hardly faster")
    if config.learning_rate == 0:
        config = replace(config, learning_rate=PLAIN_RATE)
        say(f"learning rate {PLAIN_RATE:g}: what is best for this network was never measured")
    recipe = replace(recipe, training=config)
    if config.is_timed:
        speed = speed or count * training_speed(build(recipe), images, _share(config, count), alone)
    steps = config.steps_asked(_count(images, count))
    seen = math.inf if steps is None else steps * config.batch  # images in training, each as often as it is
    if speed is not None:
        seconds = min(60 * minutes if minutes else math.inf, seen / speed)
        seconds = seconds if math.isfinite(seconds) else OPEN_SECONDS
        seen = seconds * speed
        recipe = replace(recipe, training=fit_previews(config, recipe.sampling.calls, speed, seconds, say))
    recipe = choose_augmentation(recipe, seen / _count(images, count), say)
    config = recipe.training
    compiled = compiling_is_tried(config, runtime.device) and compiling_pays(
        build(recipe), images, _share(config, count), alone, say
    )
    return recipe, bf16, compiled


def fit_to_images(recipe: Recipe, images: ImageDataset, say: Say) -> Recipe:
    """The recipe with what it leaves to the images."""
    if isinstance(recipe.target, EDM) and not recipe.target.sigma_data:
        std = max(MIN_STD, round(mean_and_std(images, MOMENTS_IMAGES)[1], 3))
        recipe = replace(recipe, target=replace(recipe.target, sigma_data=std))
    if recipe.sampling.start == "data" and len(images) < MIN_IMAGES:
        say(f"sampling starts from noise alone: mean and covariance of fewer than {MIN_IMAGES} images nearly are these images")
        recipe = replace(recipe, sampling=replace(recipe.sampling, start="noise"))
    if recipe.sampling.guidance.needs_labels and not (images.classes and recipe.training.label_dropout):
        why = (
            "training.label_dropout is 0, so that the network never sees images without a label"
            if images.classes
            else "the images have no labels"
        )
        say(f"sampling without guidance: {why}")
        recipe = replace(recipe, sampling=replace(recipe.sampling, guidance=NoGuidance()))
    return recipe


def choose_network(recipe: Recipe, images: ImageDataset, build: Callable[[Recipe], TrainState], runtime: Runtime,
                   processes: int, end: float | None, say: Say) -> tuple[Recipe, float]:  # fmt: skip
    """The recipe with the network, batch size and learning rate that are expected to learn most, and its images/s.

    `runtime` is that of one process, of which there are `processes`; `end` is when the time is over, None where that is open.
    On a GPU the batch size is left open: it is measured for the network that was chosen.
    """
    auto, (h, w) = recipe.network, images.shape[1:]
    assert isinstance(auto, AutoUNet)
    on_cpu = torch.device(runtime.device).type == "cpu"
    batch = recipe.training.batch or (max(scaling.batch_size(max(h, w)), processes) if on_cpu else TRIED_BATCH * processes)
    config = replace(recipe.training, batch=batch)

    def settled(network: UNetConfig) -> Recipe:
        rate = config.learning_rate or scaling.learning_rate(network.widths[0], config.optimizer)
        return replace(recipe, network=network, training=replace(config, learning_rate=rate))

    def measure(network: UNetConfig) -> float:
        tried = settled(network)
        return processes * training_speed(build(tried), images, _share(tried.training, processes), runtime)

    steps = config.steps_asked(_count(images, processes))
    seconds = end - time.perf_counter() if end is not None else None if steps else OPEN_SECONDS
    found = compare_networks(auto, (h, w), measure, batch, seconds, steps)
    best = min(found, key=lambda choice: choice.loss)
    left_open = not on_cpu and not recipe.training.batch
    _say_choice(best, found, bool(auto.widths), None if left_open else batch, best.steps if end or steps else None, say)
    if not scaling.was_measured((h, w)):
        say(f"images of {h}x{w} lie outside of what the choice was measured on (8x8 to 64x64): try other network.widths too")
    if len(best.network.widths) == 1 and not auto.widths and max(h, w) > best.network.patch * FINEST // 2:
        say(f"sides of {h}x{w} can't be halved, so the network has one level: multiples of 8 train better")
    chosen = settled(best.network)
    return replace(chosen, training=replace(chosen.training, batch=0)) if left_open else chosen, best.speed


def choose_augmentation(recipe: Recipe, epochs: float, say: Say) -> Recipe:
    """The recipe with augmentation where each image is seen so often that it would be learned by heart."""
    if recipe.data.augment is not None:
        return recipe
    chosen = scaling.augmentation(epochs) if recipe.network.takes_augmentation else 0.0
    if chosen:
        say(f"augmentation: each kind with probability {chosen:g}, since training sees each image about {epochs:.0f} times")
    return replace(recipe, data=replace(recipe.data, augment=chosen))


def _share(config: TrainingConfig, processes: int) -> TrainingConfig:
    """What is measured: denoising, which needs no teacher, with the batch of one of several processes."""
    return replace(config, batch=max(1, config.batch // processes), objective=Denoising())


def _count(images: ImageDataset, processes: int) -> int:
    """About how many images all processes have."""
    return len(images) * (processes if images.per_process else 1)


def _say_choice(best: Choice, found: list[Choice], given: bool, batch: int | None, steps: float | None, say: Say) -> None:
    """What was chosen, why, and what to expect; `batch` is None where it is found next, `steps` where the end is open."""
    tried = ", ".join(f"{c.network.widths[0]} {c.speed:.0f}" for c in found)
    why = "as given" if given else f"the best expected here (images/s by first width: {tried})"
    widths = ", ".join(map(str, best.network.widths))
    network = f"network: widths {widths}, patch size {best.network.patch}, {why}"
    if batch is None:
        say(network)
        return
    expected = f"{best.speed / batch * 3600:.0f} steps an hour" if steps is None else f"about {steps:.0f} steps"
    say(f"{network}; batch {batch}, {expected}")
    if steps is not None and steps < scaling.MIN_STEPS:
        minutes = scaling.MIN_STEPS * batch / found[0].speed / 60
        say(f"that is too little to learn from: {scaling.MIN_STEPS} steps, {minutes:.1f} minutes here, are the least that shows "
            "anything")  # fmt: skip


def with_whole_previews(config: TrainingConfig) -> TrainingConfig:
    """With previews as large as they are where there is time, which an earlier budget may not have left."""
    return replace(config, sample_count=max(config.sample_count, TrainingConfig.sample_count),
                   held_out_count=max(config.held_out_count, TrainingConfig.held_out_count))  # fmt: skip


def fit_previews(config: TrainingConfig, calls: int, speed: float, seconds: float, say: Say) -> TrainingConfig:
    """Grids and held-out losses of a size that leaves the time to training; a forward pass is a third of a training step."""
    passes = 3 * speed * PREVIEW * seconds
    least = MIN_SAMPLES if MIN_SAMPLES * calls * PREVIEW < LONGEST_PREVIEW * passes else 1
    count = min(config.sample_count, max(least, int(passes / calls)))
    held_out = min(config.held_out_count, max(MIN_SAMPLES, int(passes / LEVELS)))
    if (count, held_out) != (config.sample_count, config.held_out_count):
        say(f"previews: {count} samples, the held-out loss on {held_out} images, which is what the time allows")
    return replace(config, sample_count=count, held_out_count=held_out)


def measure_moments(
    images: ImageDataset, flip: bool = False, max_images: int = MOMENTS_IMAGES, max_bytes: int = 2**29
) -> Moments | None:
    """Mean and covariance of images on [-1, 1] (and their mirror images); None for so few that they could be read off them.

    Of large data sets a fixed part is measured, evenly spaced: at most `max_images` and `max_bytes` as float32.
    """
    if len(images) < MIN_IMAGES:
        return None
    count = min(len(images), max_images, max(2, max_bytes // (4 * math.prod(images.shape))))
    x = images.tensor(np.linspace(0, len(images) - 1, count).round().astype(int))
    return Moments.measure(torch.cat([x, x.flip(3)]) if flip else x)
