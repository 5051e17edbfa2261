"""How to train: the numbers and choices of a recipe that the training loop reads."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from unnoise.errors import UserError, nearest
from unnoise.loss import L2, Penalty
from unnoise.muon import Muon, split_weights
from unnoise.times import LogNormalTimes, TrainingTimes

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "muon": Muon,
}
PRECISIONS = ("auto", "bf16", "fp32")
COMPILING = ("auto", "on", "off")
FALLS: dict[str, Callable[[float, float], float]] = {
    "constant": lambda left, decay: 1.0,
    "trapezoid": lambda left, decay: min(1.0, left / decay) if decay else 1.0,
    "cosine": lambda left, decay: (1 - math.cos(math.pi * left)) / 2,
}


@dataclass(frozen=True)
class TrainingPlan:
    """How to train. Give `epochs`, `steps` or `minutes`; with several, whichever ends first.

    `drop_last` leaves out each epoch's last, partial batch; without it a batch spans two epochs. `spread_times` spreads
    the noise levels of a batch evenly, else each is drawn by itself. `label_dropout` is the share of labels hidden, so
    that the model also learns pictures of no known class (Ho & Salimans 2022).

    `batch` 0 looks for the size that trains fastest, before training. A batch is computed in `parts`, one after the other, its
    gradient the same; `recompute` keeps less of the way forward and computes it again on the way back. Both save memory for
    time. `sharded` leaves each of several processes a piece of the weights (FSDP). `compile` is auto, on or off.

    The learning rate rises over `warmup` steps; then its `fall` is `constant` (none), `trapezoid` (it stays, and falls linearly
    to exactly 0 over the last `decay` share) or `cosine` (half a wave from the peak to 0). `ema` is the relative width of the
    average of the weights that is used (0: none), `more_ema` are widths of others kept beside it. `snapshots` times in a run
    the averages are stored, from which others are made afterwards. `clip` is the largest gradient norm (0: none). A grid of
    `sample_count` pictures is drawn every `sample_every` seconds (or more rarely, so that it takes at most a tenth of the
    time), a checkpoint saved every `save_every` seconds; the newest `keep_last` are kept, and each `keep_every`-th step's.
    """

    epochs: int | None = None
    steps: int | None = None
    minutes: float | None = None
    batch: int = 32
    parts: int = 1
    recompute: bool = False
    sharded: bool = False
    compile: str = "auto"
    drop_last: bool = False
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    warmup: int = 100
    fall: str = "trapezoid"
    decay: float = 0.4
    beta2: float = 0.99
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.1
    more_ema: tuple[float, ...] = ()
    snapshots: int = 0
    precision: str = "auto"
    seed: int = 0
    sample_count: int = 36
    sample_every: float = 30.0
    save_every: float = 300.0
    keep_last: int = 2
    keep_every: int = 0
    penalty: Penalty = field(default_factory=L2)
    times: TrainingTimes = field(default_factory=LogNormalTimes)
    spread_times: bool = True
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "minutes"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UserError(f"--{name} must be greater than 0, not {value}")
        for name in ("sample_count", "keep_last", "parts"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.batch < 0 or self.snapshots < 0:
            raise UserError(f"batch and snapshots must be at least 0, not {min(self.batch, self.snapshots)}")
        if self.learning_rate <= 0 or not 0 <= self.decay <= 1 or self.warmup < 0:
            raise UserError("training needs learning_rate > 0, 0 <= decay <= 1 and warmup >= 0")
        for width in (self.ema, *self.more_ema):
            if width and not 0 < width < 0.28:
                raise UserError(f"ema is a relative width between 0 and 0.28 (0: none), not {width}")
        if self.sample_every <= 0 or self.save_every <= 0:
            raise UserError("sample_every and save_every are seconds and must be greater than 0")
        if not 0 <= self.label_dropout <= 1:
            raise UserError(f"label_dropout must be between 0 and 1, not {self.label_dropout}")
        tables = {"optimizer": OPTIMIZERS, "precision": PRECISIONS, "compile": COMPILING, "fall": FALLS}
        for name, table in tables.items():
            if (value := getattr(self, name)) not in table:
                raise UserError(f"unknown {name} '{value}': {nearest(value, table)}")

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        kind = OPTIMIZERS[self.optimizer]
        options: dict[str, Any] = {"lr": self.learning_rate, "betas": (0.9, self.beta2), "weight_decay": self.weight_decay}
        return kind(split_weights(model) if kind is Muon else model.parameters(), **options, fused=True)

    def steps_asked(self, pictures: int) -> int | None:
        """How many steps `epochs` and `steps` allow on this many pictures; None if only time is given."""
        asked = [] if self.epochs is None else [math.ceil(self.epochs * self.steps_per_epoch(pictures))]
        return min(asked + ([] if self.steps is None else [self.steps]), default=None)

    def steps_per_epoch(self, pictures: int) -> float:
        """Not a whole number where batches span epochs."""
        return pictures // self.batch if self.drops_last(pictures) else pictures / self.batch

    def drops_last(self, pictures: int) -> bool:
        """A set smaller than one batch drops nothing, else nothing would be left."""
        return self.drop_last and pictures >= self.batch

    def rate_at(self, step: int, total: int | None) -> float:
        """The learning rate of step `step` (from 0) of `total` (None: not known yet, so not near the end)."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        # The last step's rate is just above 0; the rate after it, never applied, is exactly 0.
        fall = FALLS[self.fall]((total - step) / total, self.decay) if total else 1.0
        return self.learning_rate * min(rise, fall)
