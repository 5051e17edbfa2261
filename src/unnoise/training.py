"""The training loop, read from top to bottom. It takes built objects and yields a record a step.

    for record in train(...): print(record.step, record.loss)

Every draw is a function of (seed, purpose, step), so a run that stopped and went on equals one that did not.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unnoise import draws
from unnoise.batches import Batch, Batches
from unnoise.data.pictures import Pictures
from unnoise.denoiser import Denoiser
from unnoise.ema import PowerEMA
from unnoise.errors import UserError
from unnoise.loss import diffusion_loss
from unnoise.plan import TrainingPlan
from unnoise.precision import autocast

CALIBRATION = 0.1  # share of a time budget after which the number of steps is fixed
MOST_BAD = 5  # steps in a row whose gradient is not finite
LEVELS = 8  # of noise at which held-out pictures are measured


@dataclass(frozen=True)
class TrainingRecord:
    """One step: its number (from 1), of how many (None: still measuring), loss, gradient norm, rate, pictures/s.

    `parts` is into how many the batch was cut to fit in memory; a `skipped` step had no finite gradient and changed nothing.
    """

    step: int
    total: int | None
    loss: float
    gradient_norm: float
    learning_rate: float
    pictures_per_second: float
    parts: int = 1
    skipped: bool = False


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

    `flip` and `moved` are as in `Batches`. Stop by leaving the loop: `training` is then complete as of the last record.
    Raises UserError when the gradient stays infinite, or when not even one picture fits in memory.
    """
    model, optimizer = training.model.train(), training.optimizer
    average = PowerEMA(model, training.average, plan.ema, fresh=training.step == 0)
    batches = Batches(pictures, plan, model.schedule, device, flip, moved)
    budget = Budget(plan, training.step, plan.steps_asked(len(pictures)))
    if plan.minutes is None and training.total is None:
        training.total = budget.most
    parts, bad = 1, 0
    while training.total is None or training.step < training.total:
        rate = plan.rate_at(training.step, training.total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        before = [b.clone() for b in model.buffers()]  # batch statistics, which a forward pass changes

        loss, parts = gradients(model, batches(training.step), plan, bf16, parts)
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), plan.clip or math.inf, foreach=True))

        training.step += 1
        bad = 0 if math.isfinite(norm) else bad + 1
        if bad:
            for buffer, kept in zip(model.buffers(), before, strict=True):
                buffer.copy_(kept)
        else:
            optimizer.step()
            average.update(training.step)
        if bad == MOST_BAD:
            raise UserError(f"the gradient was not finite in {MOST_BAD} steps up to {training.step} (loss {float(loss):.3g}): "
                            "lower --training.learning-rate, or train with --training.precision fp32")  # fmt: skip
        if training.total is None:
            training.total = budget.steps_in_all(training.step)
        speed = budget.speed(training.step)
        yield TrainingRecord(training.step, training.total, float(loss), norm, rate, speed, parts, skipped=bad > 0)


def gradients(model: Denoiser, batch: Batch, plan: TrainingPlan, bf16: bool, parts: int) -> tuple[Tensor, int]:
    """The gradient of the mean loss over a batch, added up over `parts` of it or, where memory runs out, over twice as many.

    Gives the loss, () detached, and the number of parts. Batch statistics, where a network has them, are those of a part.
    """
    size = len(batch.x)
    while True:
        model.zero_grad()
        loss = batch.x.new_zeros(())
        try:
            for piece in batch.cut(parts):
                with autocast(batch.x.device, bf16):
                    share = diffusion_loss(model, piece.x, piece.t, piece.noise, piece.label, plan.penalty,
                                           augmented=piece.augmented).sum() / size  # fmt: skip
                share.backward()
                loss += share.detach()
            return loss, parts
        except RuntimeError as e:  # torch.OutOfMemoryError is one; the CPU's allocator raises a plain one
            if not _is_out_of_memory(e):
                raise
            if parts == size:
                raise UserError(f"not even one picture of {tuple(batch.x.shape[1:])} fits in memory: lower --size or "
                                "--network.widths")  from e  # fmt: skip
            parts = min(size, 2 * parts)


def _is_out_of_memory(error: RuntimeError) -> bool:
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in words or "not enough memory" in words


@torch.no_grad()
def held_out_loss(denoiser: Denoiser, pictures: Pictures, plan: TrainingPlan, device: torch.device | str = "cpu",
                  bf16: bool = False, most: int = 256) -> list[float]:  # fmt: skip
    """The loss at `LEVELS` noise levels, evenly spread over those that training sees; their mean is comparable to its loss.

    Of the first `most` pictures, always under the same noise, so that only the denoiser changes it.
    """
    x = pictures.tensor(slice(0, most)).to(device)
    label = None if pictures.labels is None else torch.from_numpy(pictures.labels[:most]).to(device)
    losses = []
    for level in range(LEVELS):
        u = torch.full((len(x),), (level + 0.5) / LEVELS)
        t = plan.times(u, denoiser.schedule).to(device)
        noise = draws.normal(draws.stream(plan.seed, "held out", level), x.shape).to(device)
        with autocast(device, bf16):
            losses.append(float(diffusion_loss(denoiser, x, t, noise, label, plan.penalty).mean()))
    return losses


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
