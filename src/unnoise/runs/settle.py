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
from unnoise.evaluation.held_out import LEVELS
from unnoise.networks.base import NetworkConfig
from unnoise.networks.unet import AutoUNet, UNetConfig
from unnoise.recipe import Recipe
from unnoise.training import scaling
from unnoise.training.autotune import (
    choose_network,
    choose_precision,
    compiling_is_tried,
    compiling_pays,
    find_batch_size,
    training_speed,
)
from unnoise.training.config import TrainingConfig
from unnoise.training.loop import TrainState
from unnoise.utils.runtime import Runtime

MOMENTS_IMAGES = 2000  # at most, of which statistics are measured
MIN_STD = 0.05  # of images that are all one colour
OPEN_SECONDS = 3600.0  # for which a network is chosen where the end of the training is open
PLAIN_RATE = 1e-3  # the learning rate of networks of which nothing is known
PREVIEW = 0.007  # of a budget of time, that a grid and a held-out loss may each take
MIN_SAMPLES = 4
Say = Callable[[str], None]


def settle(recipe: Recipe, images: ImageDataset, runtime: Runtime, say: Say, started: float) -> tuple[Recipe, bool, bool]:
    """The recipe with plain numbers, whether networks run in bfloat16, and whether the network is compiled.

    `images` are those to train on; the clock of `minutes` runs since `started`. All that is chosen is said.
    """
    recipe = fit_to_images(recipe, images, say)
    minutes = recipe.training.minutes
    end = None if minutes is None else started + 60 * minutes
    bf16 = choose_precision(recipe.training, runtime, say, 1.0 if minutes is None else min(1.0, 0.6 * minutes))
    alone, count = Runtime(runtime.device, bf16), runtime.world_size  # one process tries, the others wait

    def build(network: NetworkConfig) -> TrainState:
        return replace(recipe, network=network).build_state(images.shape, len(images.classes), runtime.device)

    speed = None
    if isinstance(recipe.network, AutoUNet):
        network, speed = _choose_network(recipe, images, build, alone, say, end)
        recipe = replace(recipe, network=network)
    config = recipe.training
    if config.batch == 0:
        size = find_batch_size(build(recipe.network), images, config, alone, say)
        config = replace(config, batch=size * count)
        say(f"batch {config.batch}{f', {size} per process' if count > 1 else ''}: a larger one is hardly faster")
    if config.learning_rate == 0:
        known = isinstance(recipe.network, UNetConfig)
        config = replace(config, learning_rate=scaling.learning_rate(recipe.network.widths[0]) if known else PLAIN_RATE)
    if minutes is not None:
        speed = speed or training_speed(build(recipe.network), images, config, alone)
        config = _fit_previews(config, recipe.sampling.steps, speed, 60 * minutes, say)
    compiled = compiling_is_tried(config, runtime.device) and compiling_pays(
        build(recipe.network), images, replace(config, batch=max(1, config.batch // count)), alone, say)
    return replace(recipe, training=config), bf16, compiled


def fit_to_images(recipe: Recipe, images: ImageDataset, say: Say) -> Recipe:
    """The recipe with what it leaves to the images."""
    if isinstance(recipe.target, EDM) and not recipe.target.sigma_data:
        std = max(MIN_STD, round(mean_and_std(images, MOMENTS_IMAGES)[1], 3))
        recipe = replace(recipe, target=replace(recipe.target, sigma_data=std))
    if recipe.sampling.start == "data" and len(images) < 2:
        say("sampling starts from noise alone: one image has no covariance")
        recipe = replace(recipe, sampling=replace(recipe.sampling, start="noise"))
    return recipe


def _choose_network(recipe: Recipe, images: ImageDataset, build: Callable[[NetworkConfig], TrainState], runtime: Runtime,
                    say: Say, end: float | None) -> tuple[UNetConfig, float]:  # fmt: skip
    """The network that is expected to learn most in the time there is, and its images/s."""
    auto, config = recipe.network, recipe.training
    assert isinstance(auto, AutoUNet)
    seconds = OPEN_SECONDS if end is None else end - time.perf_counter()
    found = choose_network(auto, config, images, build, None if end is None and config.steps else seconds, runtime)
    best = min(found, key=lambda c: c.loss)
    others = ", ".join(f"{c.network.widths[0]}: {c.speed:.0f} images/s" for c in found)
    steps = f"about {best.steps:.0f} steps in the time left" if config.steps is None or end is not None else f"{config.steps} steps"
    if end is None and config.steps is None:
        steps = f"about {best.steps:.0f} steps an hour"
    why = "as given" if auto.widths else f"expected to learn most (first width, measured here: {others})"
    say(f"network: widths {', '.join(map(str, best.network.widths))}, patch size {best.network.patch}, {why}; {steps}")
    if (least := scaling.MIN_STEPS) > best.steps:
        seconds_needed = least * (config.batch or scaling.BATCH) / best.speed
        say(f"that is too little to learn anything: {least} steps of this network, which take {seconds_needed / 60:.1f} minutes "
            "here, are the least that works")  # fmt: skip
    if not scaling.was_measured(images.shape[1:]):
        say(f"images of {images.shape[1]}x{images.shape[2]} are outside of what the choice was measured on (8x8 to 64x64): "
            "network.widths and training.learning_rate may do better by hand")  # fmt: skip
    return best.network, best.speed


def _fit_previews(config: TrainingConfig, steps: int, speed: float, seconds: float, say: Say) -> TrainingConfig:
    """Grids and held-out losses of a size that leaves the time to training; a forward pass is a third of a training step."""
    passes = 3 * speed * PREVIEW * seconds
    count = min(config.sample_count, max(MIN_SAMPLES, int(passes / steps)))
    held_out = min(config.held_out_count, max(MIN_SAMPLES, int(passes / LEVELS)))
    if (count, held_out) != (config.sample_count, config.held_out_count):
        say(f"previews: {count} samples, the held-out loss on {held_out} images, which is what the time allows")
    return replace(config, sample_count=count, held_out_count=held_out)


def measure_moments(images: ImageDataset, flip: bool = False, max_images: int = MOMENTS_IMAGES, max_bytes: int = 2**29) -> Moments | None:
    """Mean and covariance of images on [-1, 1] (and their mirror images); None for fewer than two.

    Of large data sets a fixed part is measured, evenly spaced: at most `max_images` and `max_bytes` as float32.
    """
    if len(images) < 2:
        return None
    count = min(len(images), max_images, max(2, max_bytes // (4 * math.prod(images.shape))))
    x = images.tensor(np.linspace(0, len(images) - 1, count).round().astype(int))
    return Moments.measure(torch.cat([x, x.flip(3)]) if flip else x)
