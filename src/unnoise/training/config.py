"""What a recipe says of training: the numbers and choices that the training loop reads."""

import math
from dataclasses import dataclass, field

import torch
from torch import nn

from unnoise.diffusion.loss import L2, Loss
from unnoise.diffusion.timesteps import LogNormalTimes, TrainingTimes
from unnoise.training import optimizers
from unnoise.utils.errors import UserError, nearest

PRECISIONS = ("auto", "bf16", "fp32")
COMPILE = ("auto", "on", "off")


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Give `epochs`, `steps` or `minutes`; with several, whichever ends first.

    `batch` is the number of images per step, over all processes; 0 measures which size trains fastest. `drop_last` leaves out
    each epoch's last, partial batch; without it a batch spans two epochs. A batch is computed in `micro_batches`, one after the
    other, its gradient the same; `activation_checkpointing` recomputes activations in the backward pass. Both save memory for
    time. `sharded` leaves each of several processes a shard of the weights (FSDP). `compile` is auto, on or off.

    `optimizer` is adam, adamw or muon. The learning rate rises over `warmup` steps; then its `lr_schedule` is `constant`,
    `trapezoid` (it falls linearly to exactly 0 over the last fraction `decay`) or `cosine` (half a wave from the peak to 0).
    `clip` is the largest gradient norm (0: none).

    `ema` is the relative width of the average of the weights that is used (0: the weights themselves), `extra_ema` are widths of
    others kept beside it. `snapshots` times in a run the averages are stored, from which others are made afterwards.

    `loss` and the distribution of `times` are parts of their own. `stratified_times` spaces the times of a batch evenly, else
    each is drawn by itself. `label_dropout` is the fraction of labels hidden, so that the model also learns the images without
    a label (Ho & Salimans 2022).

    A grid of `sample_count` samples is made every `sample_every` seconds (or more rarely, so that it takes at most a tenth of
    the time), a checkpoint every `save_every` seconds; the newest `keep_last` are kept, and each `keep_every`-th step's.
    """

    epochs: int | None = None
    steps: int | None = None
    minutes: float | None = None
    batch: int = 32
    micro_batches: int = 1
    activation_checkpointing: bool = False
    sharded: bool = False
    compile: str = "auto"
    drop_last: bool = False
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    warmup: int = 100
    lr_schedule: str = "trapezoid"
    decay: float = 0.4
    beta2: float = 0.99
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.1
    extra_ema: tuple[float, ...] = ()
    snapshots: int = 0
    precision: str = "auto"
    seed: int = 0
    sample_count: int = 36
    sample_every: float = 30.0
    save_every: float = 300.0
    keep_last: int = 2
    keep_every: int = 0
    loss: Loss = field(default_factory=L2)
    times: TrainingTimes = field(default_factory=LogNormalTimes)
    stratified_times: bool = True
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "minutes"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UserError(f"training.{name} must be greater than 0, not {value}")
        for name in ("sample_count", "keep_last", "micro_batches"):
            if getattr(self, name) < 1:
                raise UserError(f"training.{name} must be at least 1, not {getattr(self, name)}")
        if self.batch < 0 or self.snapshots < 0:
            raise UserError(f"batch and snapshots must be at least 0, not {min(self.batch, self.snapshots)}")
        if self.learning_rate <= 0 or not 0 <= self.decay <= 1 or self.warmup < 0:
            raise UserError("training needs learning_rate > 0, 0 <= decay <= 1 and warmup >= 0")
        for width in (self.ema, *self.extra_ema):
            if width and not 0 < width < 0.28:
                raise UserError(f"ema is a relative width between 0 and 0.28 (0: none), not {width}")
        if self.sample_every <= 0 or self.save_every <= 0:
            raise UserError("sample_every and save_every are seconds and must be greater than 0")
        if not 0 <= self.label_dropout <= 1:
            raise UserError(f"label_dropout must be between 0 and 1, not {self.label_dropout}")
        tables = {
            "optimizer": optimizers.NAMES,
            "precision": PRECISIONS,
            "compile": COMPILE,
            "lr_schedule": optimizers.LR_SCHEDULES,
        }
        for name, table in tables.items():
            if (value := getattr(self, name)) not in table:
                raise UserError(f"unknown {name} '{value}': {nearest(value, table)}")

    def build_optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """The optimizers that share the parameters of a model."""
        return optimizers.build_optimizers(self.optimizer, model, self.learning_rate, self.beta2, self.weight_decay)

    def steps_asked(self, images: int) -> int | None:
        """The number of steps that `epochs` and `steps` allow on this many images; None if only `minutes` is given."""
        asked = [] if self.epochs is None else [math.ceil(self.epochs * self.steps_per_epoch(images))]
        return min(asked + ([] if self.steps is None else [self.steps]), default=None)

    def steps_per_epoch(self, images: int) -> float:
        """Not a whole number where batches span epochs."""
        return images // self.batch if self.drops_last(images) else images / self.batch

    def drops_last(self, images: int) -> bool:
        """A data set smaller than one batch drops nothing, else nothing would be left."""
        return self.drop_last and images >= self.batch

    def learning_rate_at(self, step: int, total: int | None) -> float:
        """The learning rate of step `step` (from 0) of `total` (None: not known yet, so not near the end)."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        # The last step's rate is just above 0; the rate after it, never applied, is exactly 0.
        fall = optimizers.LR_SCHEDULES[self.lr_schedule]((total - step) / total, self.decay) if total else 1.0
        return self.learning_rate * min(rise, fall)
