"""The training loop, read from top to bottom. It takes built objects and yields a record a step.

    for record in train(...): print(record.step, record.loss)

Every draw is a function of (seed, purpose, step), so a run that stopped and went on equals one that did not.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unnoise import draws
from unnoise.data.augment import NUMBERS, augment
from unnoise.data.pictures import Pictures
from unnoise.denoiser import Denoiser
from unnoise.ema import PowerEMA
from unnoise.errors import UserError, nearest
from unnoise.loss import L2, Penalty, diffusion_loss
from unnoise.noise import LogNormalTimes, TrainingTimes, spread_uniform

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
PRECISIONS = ("auto", "bf16", "fp32")
CALIBRATION = 0.1  # share of a time budget after which the number of steps is fixed


@dataclass(frozen=True)
class TrainingPlan:
    """How to train. Give `epochs`, `steps` or `minutes`; with several, whichever ends first.

    `drop_last` leaves out each epoch's last, partial batch; without it a batch spans two epochs. `spread_times` spreads
    the noise levels of a batch evenly, else each is drawn by itself. `label_dropout` is the share of labels hidden, so
    that the model also learns pictures of no known class (Ho & Salimans 2022).

    The learning rate rises over `warmup` steps, stays, and falls linearly to exactly 0 over the last `decay` share. `ema`
    is the relative width of the average of the weights (0: none); `clip` the largest gradient norm (0: none). A grid of
    `sample_count` pictures is drawn every `sample_every` seconds (or more rarely, so that it takes at most a tenth of the
    time), a checkpoint saved every `save_every` seconds; the newest `keep_last` are kept, and each `keep_every`-th step's.
    """

    epochs: int | None = None
    steps: int | None = None
    minutes: float | None = None
    batch: int = 32
    drop_last: bool = False
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.4
    beta2: float = 0.99
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.1
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
        for name in ("batch", "sample_count", "keep_last"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.learning_rate <= 0 or not 0 <= self.decay <= 1 or self.warmup < 0:
            raise UserError("training needs learning_rate > 0, 0 <= decay <= 1 and warmup >= 0")
        if self.ema and not 0 < self.ema < 0.28:
            raise UserError(f"ema is a relative width between 0 and 0.28 (0: none), not {self.ema}")
        if self.sample_every <= 0 or self.save_every <= 0:
            raise UserError("sample_every and save_every are seconds and must be greater than 0")
        if not 0 <= self.label_dropout <= 1:
            raise UserError(f"label_dropout must be between 0 and 1, not {self.label_dropout}")
        if self.optimizer not in OPTIMIZERS:
            raise UserError(f"unknown optimizer '{self.optimizer}': {nearest(self.optimizer, OPTIMIZERS)}")
        if self.precision not in PRECISIONS:
            raise UserError(f"unknown precision '{self.precision}': {nearest(self.precision, PRECISIONS)}")

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        kind = OPTIMIZERS[self.optimizer]
        options: dict[str, Any] = {"lr": self.learning_rate, "betas": (0.9, self.beta2), "weight_decay": self.weight_decay}
        return kind(model.parameters(), **options, fused=True)

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
        # The last step has rate peak / (decay steps); the rate after it, never applied, is exactly 0.
        fall = min(1.0, (total - step) / (self.decay * total)) if total and self.decay else 1.0
        return self.learning_rate * min(rise, fall)


@dataclass(frozen=True)
class TrainingRecord:
    """One step: its number (from 1), of how many (None: still measuring), loss, gradient norm, rate, pictures/s."""

    step: int
    total: int | None
    loss: float
    gradient_norm: float
    learning_rate: float
    pictures_per_second: float


@dataclass
class Training:
    """What training changes, and all that a checkpoint must hold."""

    model: Denoiser
    average: Denoiser
    optimizer: torch.optim.Optimizer
    step: int = 0
    total: int | None = None


def train(training: Training, pictures: Pictures, plan: TrainingPlan, device: torch.device | str = "cpu",
          bf16: bool = False, flip: bool = False, moved: float = 0.0) -> Iterator[TrainingRecord]:  # fmt: skip
    """Train until the budget is spent, changing `training` in place; a record is yielded after each step.

    `flip` mirrors half of the pictures, `moved` is the probability of each kind of augmentation that the network is told.
    Stop by leaving the loop: `training` is then complete as of the last record.
    """
    model, optimizer = training.model.train(), training.optimizer
    average = PowerEMA(model, training.average, plan.ema, fresh=training.step == 0)
    loader = Batches(pictures, plan, device, flip)
    budget = Budget(plan, training.step, plan.steps_asked(len(pictures)))
    if plan.minutes is None and training.total is None:
        training.total = budget.most
    while training.total is None or training.step < training.total:
        step = training.step
        x, label = loader(step)
        augmented = None
        if moved:
            how = draws.stream(plan.seed, "augment", step)
            u = draws.uniform(how, len(x) * NUMBERS).reshape(-1, NUMBERS).to(device)
            x, augmented = augment(x, u, draws.normal(how, u.shape).to(device), moved)
        stream = draws.stream(plan.seed, "noise", step)
        u = spread_uniform(stream.random(), len(x)) if plan.spread_times else draws.uniform(stream, len(x))
        t = plan.times(u, model.schedule).to(device)
        noise = draws.normal(stream, x.shape).to(device)
        if label is not None and plan.label_dropout:
            hidden = draws.uniform(stream, len(x)) < plan.label_dropout
            label = label.masked_fill(hidden.to(device), -1)

        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            loss = diffusion_loss(model, x, t, noise, label, plan.penalty, augmented=augmented).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), plan.clip or math.inf, foreach=True)
        rate = plan.rate_at(step, training.total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if not math.isfinite(float(norm)):
            raise UserError(f"the gradient is not finite at step {step + 1}: lower --training.learning-rate "
                            "or train with --training.precision fp32")  # fmt: skip
        optimizer.step()
        average.update(step + 1)

        training.step = step + 1
        if training.total is None:
            training.total = budget.steps_in_all(training.step)
        yield TrainingRecord(training.step, training.total, loss.item(), float(norm), rate, budget.speed(training.step))


class Batches:
    """Batch k of an endless shuffled sequence, known without reading the ones before it.

    Each epoch visits every picture once (but for a last batch dropped), in an order that is a function of (seed, epoch).
    """

    def __init__(self, pictures: Pictures, plan: TrainingPlan, device: torch.device | str, flip: bool = False) -> None:
        self.pictures, self.device, self.flip = pictures, device, flip
        self.labels = None if pictures.labels is None else torch.from_numpy(pictures.labels)
        self.batch, self.seed = plan.batch, plan.seed
        n = len(pictures)
        self.epoch_size = n // plan.batch * plan.batch if plan.drops_last(n) else n
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def order(self, epoch: int) -> np.ndarray:
        """The pictures of an epoch, in the order in which it visits them."""
        if self._order[0] != epoch:
            self._order = epoch, draws.stream(self.seed, "order", epoch).permutation(len(self.pictures))
        return self._order[1]

    def which(self, step: int) -> np.ndarray:
        """The pictures of step `step` from 0, (B,)."""
        epochs, places = np.divmod(np.arange(step * self.batch, (step + 1) * self.batch), self.epoch_size)
        return np.concatenate([self.order(int(e))[places[epochs == e]] for e in np.unique(epochs)])

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]:
        """x (B, C, H, W) in [-1, 1] and labels (B,) or None, of step `step` from 0."""
        which = self.which(step)
        x = torch.from_numpy(self.pictures.read(which)).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        if self.flip:
            mirrored = torch.from_numpy(draws.stream(self.seed, "flip", step).random(self.batch) < 0.5).to(self.device)
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        return x, None if self.labels is None else self.labels[torch.from_numpy(which)].to(self.device)


class Budget:
    """Turns a time budget into a number of steps, at most `most`, by measuring the first of them."""

    def __init__(self, plan: TrainingPlan, first: int, most: int | None) -> None:
        self.plan, self.first, self.most = plan, first, most
        self.begun = time.perf_counter()
        self.warm: tuple[int, float] | None = None

    def speed(self, step: int) -> float:
        """Pictures a second since the start."""
        return (step - self.first) * self.plan.batch / max(time.perf_counter() - self.begun, 1e-9)

    def steps_in_all(self, step: int) -> int | None:
        """Once enough of the time has been seen, how many steps fit in all of it. The first two do not count as typical."""
        assert self.plan.minutes is not None
        now, seconds = time.perf_counter(), self.plan.minutes * 60
        if self.most is not None and step >= self.most:
            return step
        if self.warm is None:
            if step - self.first >= 2:
                self.warm = step, now
            return step if now - self.begun >= seconds else None
        if now - self.begun < CALIBRATION * seconds:
            return None
        left = seconds - (now - self.begun)
        fit = step + max(0, int(left * (step - self.warm[0]) / (now - self.warm[1])))
        return fit if self.most is None else min(fit, self.most)


def bf16_pays(device: torch.device | str, seconds: float = 1.0) -> tuple[bool, float]:
    """Whether bfloat16 is faster than float32 on this device, and how many times: measured on a 3x3 convolution.

    A CPU without bfloat16 instructions emulates it, so a flag would not do. The two take turns and each one's fastest
    call counts, so neither a cold start nor another program at work decides.
    """
    x = torch.randn(16, 64, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    conv = nn.Conv2d(64, 64, 3, padding=1).to(device).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def time_once(enabled: bool) -> float:
        begun = time.perf_counter()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled):
            conv(x).float().sum().item()
        return time.perf_counter() - begun

    fastest = {True: math.inf, False: math.inf}
    begun, rounds = time.perf_counter(), 0
    while rounds < 8 or time.perf_counter() - begun < seconds:
        for enabled in fastest:
            fastest[enabled] = min(fastest[enabled], time_once(enabled))
        rounds += 1
    gain = fastest[False] / fastest[True]
    return gain > 1.1, gain
