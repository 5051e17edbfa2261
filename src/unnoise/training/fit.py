"""`fit`: train a denoiser of one's own in one's own loop, without a recipe or a run folder."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from unnoise.data.dataset import ImageDataset
from unnoise.data.fit import Fit
from unnoise.data.sources import as_source
from unnoise.diffusion.denoiser import Denoiser, NetworkDenoiser, check_start, count_classes
from unnoise.training.config import TrainingConfig
from unnoise.training.loop import TrainState, checkpoint_activations, train
from unnoise.training.records import TrainingRecord
from unnoise.utils.errors import UserError
from unnoise.utils.precision import bf16_pays
from unnoise.utils.runtime import Runtime, choose_device


def fit(
    denoiser: Denoiser,
    data: Any,
    *,
    size: int | tuple[int, int] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    config: TrainingConfig | None = None,
    flip: bool = False,
    device: str | None = None,
) -> Iterator[TrainingRecord]:
    """Train `denoiser` in place, yielding a record after each step.

    `data` is a folder or other path, a uint8 array (N, H, W) or (N, H, W, C), a source, or a torch Dataset, read at `size`, a
    side or (height, width); a data set's own test images are left out. Give `steps` or `minutes`; `config` has the optimizer, the
    learning rate and the like, but what it says of grids, checkpoints, averages beside `ema`, compiling and several processes is
    for runs (`unnoise.train`). Whenever the loop ends or is left, the denoiser
    holds the average of its weights (`config.ema`; 0 keeps the weights themselves), in evaluation mode, as sampling should use
    it. Raises UserError for data that can't be read, and where no budget is given.
    """
    config = config or TrainingConfig()
    if steps is not None or minutes is not None:
        config = replace(config, steps=steps, minutes=minutes)
    if config.epochs is config.steps is config.minutes is None:
        raise UserError("training needs a budget: give steps or minutes")
    if config.batch == 0:
        raise UserError("training.batch 0 measures a size, which is for runs: give a number")
    images = read_data(data, size)
    config.check(denoiser.schedule)
    if isinstance(denoiser, NetworkDenoiser):
        check_start(denoiser.schedule, denoiser.target)
    classes = count_classes(denoiser)
    if classes and images.labels is not None and len(images.classes) > classes:
        raise UserError(f"the images have {len(images.classes)} classes, and the network {classes}: build it for as many")
    device = device or choose_device()
    bf16 = bf16_pays(device)[0] if config.precision == "auto" else config.precision == "bf16"
    denoiser.to(device)
    average = copy.deepcopy(denoiser).eval()
    if config.activation_checkpointing:
        checkpoint_activations(denoiser)
    state = TrainState(denoiser, average, config.build_optimizers(denoiser))
    try:
        yield from train(state, images, config, Runtime(device, bf16), flip)
    finally:
        denoiser.load_state_dict(average.state_dict())
        denoiser.eval()


def read_data(data: Any, size: int | tuple[int, int] | None = None) -> ImageDataset:
    """The images of whatever data a user gives in Python, at `size`, by default the source's own; without its test images."""
    source = as_source(data)
    wanted = size or source.size
    images = source.read(Fit((wanted, wanted) if isinstance(wanted, int) else wanted))
    return images if images.test is None else images.subset(~images.test)
