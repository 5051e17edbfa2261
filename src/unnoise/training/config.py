"""What a recipe says of training: the numbers and choices that the training loop reads."""

import math
from dataclasses import dataclass, field

import torch
from torch import nn

from unnoise.diffusion.loss import L2, Loss
from unnoise.diffusion.schedules import Schedule
from unnoise.diffusion.timesteps import LogNormalTimes, TrainingTimes
from unnoise.training import optimizers
from unnoise.training.objective import Denoising, Objective
from unnoise.utils.errors import UserError, nearest

PRECISIONS = ("auto", "bf16", "fp32")
COMPILE = ("auto", "on", "off")
STOP_WHEN = ("never", "plateau")
TRACKERS = ("wandb", "trackio", "mlflow")
MAX_WARMUP = 0.03  # of all steps


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Give `epochs`, `steps` or `minutes`, with several whichever ends first; with none training goes on until it
    is stopped.

    `batch` is the number of images per step, over all processes. `drop_last` leaves out
    each epoch's last, partial batch; without it a batch spans two epochs. A batch is computed in `micro_batches`, one after the
    other, its gradient the same; `activation_checkpointing` recomputes activations in the backward pass. Both save memory for
    time. `sharded` leaves each of several processes a shard of the weights (FSDP). `compile` is auto, on or off.

    `optimizer` is adam, adamw or muon. A `batch` or `learning_rate` of 0 is chosen for network and machine when a run begins. The
    learning rate rises over `warmup` steps, at most 3 % of all; then its `lr_schedule` is `constant`, `trapezoid` (it falls
    linearly to exactly 0 over the last fraction `decay`) or `cosine` (half a wave from the peak to 0).
    `clip` is the largest gradient norm (0: none).

    `ema` is the relative width of the average of the weights that is used (0: the weights themselves), `extra_ema` are widths of
    others kept beside it. `snapshots` times in a run the averages are stored, from which others are made afterwards.

    `objective`, `loss` and the distribution of `times` are parts of their own. `stratified_times` spaces the times of a batch
    evenly, else each is drawn by itself. `label_dropout` is the fraction of labels hidden, so that the model also learns the
    images without a label (Ho & Salimans 2022).

    A grid of `sample_count` samples is made every `sample_every` seconds, and the loss on `held_out_count` held-out images is
    measured (more rarely where both would take more than 4 % of the time), a checkpoint every `save_every` seconds; the newest
    `keep_last` are kept, and each `keep_every`-th step's. `stop_when` plateau ends the training with a short fall of the rate
    where the held-out loss has stopped falling; never leaves the end to the budget, or to Ctrl-C. `stop_when_copying` ends it so
    where samples become copies of training images. `tracker`, wandb, trackio or mlflow, is where numbers and grids also go.
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
    held_out_count: int = 256
    save_every: float = 300.0
    keep_last: int = 2
    keep_every: int = 0
    objective: Objective = field(default_factory=Denoising)
    loss: Loss = field(default_factory=L2)
    times: TrainingTimes = field(default_factory=LogNormalTimes)
    stratified_times: bool = True
    label_dropout: float = 0.1
    stop_when: str = "never"
    stop_when_copying: bool = False
    tracker: str | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "minutes"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UserError(f"training.{name} must be greater than 0, not {value}")
        for name in ("sample_count", "held_out_count", "keep_last", "micro_batches"):
            if getattr(self, name) < 1:
                raise UserError(f"training.{name} must be at least 1, not {getattr(self, name)}")
        if self.batch < 0 or self.snapshots < 0:
            raise UserError(f"batch and snapshots must be at least 0, not {min(self.batch, self.snapshots)}")
        if self.learning_rate < 0 or not 0 <= self.decay <= 1 or self.warmup < 0:
            raise UserError("training needs learning_rate >= 0 (0: chosen), 0 <= decay <= 1 and warmup >= 0")
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
            "stop_when": STOP_WHEN,
        }
        if self.tracker is not None:
            tables["tracker"] = TRACKERS
        for name, table in tables.items():
            if (value := getattr(self, name)) not in table:
                raise UserError(f"unknown {name} '{value}': {nearest(value, table)}")

    def check(self, schedule: Schedule) -> None:
        """Raises UserError for times that this schedule lacks, and for times and a loss that break their contract."""
        u, error = torch.linspace(0.01, 0.99, 8), torch.zeros(1, 1, 2, 2)
        t, rho = self.times(u, schedule), self.loss(error)
        if t.shape != u.shape or not ((t >= 0) & (t <= 1)).all():
            raise UserError(f"the training times {type(self.times).__name__} must be a number in [0, 1] for each u: "
                            f"{tuple(u.shape)} make {tuple(t.shape)}, from {float(t.min()):g} to {float(t.max()):g}")  # fmt: skip
        if rho.shape != error.shape:
            raise UserError(f"the loss {type(self.loss).__name__} must be elementwise: of {tuple(error.shape)} it makes "
                            f"{tuple(rho.shape)}")  # fmt: skip

    def build_optimizers(self, model: nn.Module, scale: float = 1.0) -> list[torch.optim.Optimizer]:
        """The optimizers that share the parameters of a model, at `scale` times the learning rate."""
        return optimizers.build_optimizers(self.optimizer, model, self.learning_rate, self.beta2, self.weight_decay, scale)

    @property
    def is_timed(self) -> bool:
        """Whether a clock or Ctrl-C ends it, not a number of steps."""
        return self.minutes is not None or self.steps is self.epochs is None

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

    def warmup_steps(self, total: int | None) -> int:
        """Over which the learning rate rises."""
        return min(self.warmup, math.ceil(MAX_WARMUP * total)) if total else self.warmup

    def learning_rate_at(self, step: int, total: int | None, decay_from: int | None = None) -> float:
        """The learning rate of step `step` (from 0) of `total` (None: not known yet, so not near the end).

        From step `decay_from` on it falls linearly to 0, whatever the schedule; None leaves that to the schedule.
        """
        warmup = self.warmup_steps(total)
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        if total is None:
            return self.learning_rate * rise
        # The last step's rate is just above 0; the rate after it, never applied, is exactly 0.
        left = (total - step) / total
        if decay_from is None:
            return self.learning_rate * min(rise, optimizers.LR_SCHEDULES[self.lr_schedule](left, self.decay))
        return self.learning_rate * min(rise, optimizers.LR_SCHEDULES["trapezoid"](left, 1 - decay_from / total))
