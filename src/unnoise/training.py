"""The training loop, read from top to bottom. It takes built objects and yields a record a step.

    for record in train(...): print(record.step, record.loss)

Every draw is a function of (seed, purpose, step), so a run that stopped and went on equals one that did not.
"""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from unnoise import draws
from unnoise.batches import Batch, Batches, reading
from unnoise.data.pictures import Pictures
from unnoise.denoiser import Denoiser
from unnoise.ema import PowerEMA
from unnoise.errors import UserError
from unnoise.loss import diffusion_loss
from unnoise.network import Unit
from unnoise.network.blocks import Dropout
from unnoise.plan import TrainingPlan
from unnoise.precision import autocast
from unnoise.processes import ALONE, Processes, whole

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
    """What training changes, and all that a checkpoint must hold. `more` are averages beside the one for use, by width."""

    model: Denoiser
    average: Denoiser
    optimizer: torch.optim.Optimizer
    step: int = 0
    total: int | None = None
    more: dict[float, Denoiser] = field(default_factory=dict)

    @property
    def models(self) -> dict[str, nn.Module]:
        """All of them by name."""
        return {"model": self.model, "average": self.average, **{f"average-{w:g}": m for w, m in self.more.items()}}


class Replicated(Denoiser):
    """A denoiser of which each process has a copy: gradients are averaged over all of them while they are computed."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        # A network may have parts that this training does not use (labels, augmentation).
        self.copy, self.schedule = DistributedDataParallel(denoiser, find_unused_parameters=True), denoiser.schedule

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, augmented: Tensor | None = None) -> Tensor:
        told = {} if augmented is None else {"augmented": augmented}
        x_hat: Tensor = self.copy(x_t, t, label, **told)
        return x_hat

    def output_scale(self, t: Tensor) -> Tensor:
        scale: Tensor = self.copy.module.output_scale(t)
        return scale


def train(training: Training, pictures: Pictures, plan: TrainingPlan, device: torch.device | str = "cpu",
          bf16: bool = False, flip: bool = False, moved: float = 0.0,
          processes: Processes = ALONE) -> Iterator[TrainingRecord]:  # fmt: skip
    """Train until the budget is spent, changing `training` in place; a record is yielded after each step.

    `flip` and `moved` are as in `Batches`. Stop by leaving the loop: `training` is then complete as of the last
    record. Raises UserError when the gradient stays infinite, or when not even one picture fits in memory.
    """
    if plan.batch < processes.count:
        raise UserError(f"a batch of {plan.batch} can't be shared by {processes.count} processes: raise --batch")
    model, optimizer = training.model.train(), training.optimizer
    fresh = training.step == 0
    averages = [PowerEMA(model, training.average, plan.ema, fresh)]
    averages += [PowerEMA(model, average, width, fresh) for width, average in training.more.items()]
    batches = Batches(pictures, plan, model.schedule, device, flip, moved, processes)
    pictures_in_all = int(processes.sum(torch.tensor(float(len(pictures)), device=device))) if pictures.divided else len(pictures)
    budget = Budget(plan, training.step, plan.steps_asked(pictures_in_all))
    if plan.minutes is None and training.total is None:
        training.total = budget.most
    wrapped = Replicated(model) if processes.count > 1 and not plan.sharded else model
    parameters, statistics = list(model.parameters()), list(model.buffers())
    drops = any(isinstance(m, Dropout) and m.least for m in model.modules())
    parts, bad = plan.parts, 0
    with reading(batches) as fetch:
        while training.total is None or training.step < training.total:
            rate = plan.rate_at(training.step, training.total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            before = [b.clone() for b in statistics]  # which a forward pass changes
            batch = fetch(training.step)

            with dropout_seeded(plan.seed, training.step, processes.rank, batch.x.device) if drops else nullcontext():
                loss, parts = gradients(wrapped, batch, plan, bf16, parts, processes)
            norm = clip(parameters, plan.clip)

            step = training.step + 1
            bad = 0 if math.isfinite(norm) else bad + 1
            if bad:
                for buffer, kept in zip(statistics, before, strict=True):
                    buffer.copy_(kept)
            else:
                optimizer.step()
                for average in averages:
                    average.update(step)
            training.step = step  # only now is all of it true
            for p in parameters:
                p.grad = None
            if bad == MOST_BAD:
                raise UserError(f"the gradient was not finite in {MOST_BAD} steps up to {step} (loss {float(loss):.3g}): "
                                "lower --training.learning-rate, or train with --training.precision fp32")  # fmt: skip
            if training.total is None:
                training.total = processes.decide(partial(budget.steps_in_all, step))
            speed = budget.speed(step)
            yield TrainingRecord(step, training.total, float(loss), norm, rate, speed, parts, skipped=bad > 0)


@contextmanager
def dropout_seeded(seed: int, step: int, rank: int, device: torch.device) -> Iterator[None]:
    """Inside it, torch's own draws, which only dropout makes, are a function of (seed, step, process); outside as before."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(draws.stream(seed, "dropout", step, rank).integers(2**63)))
        yield


def gradients(model: Denoiser, batch: Batch, plan: TrainingPlan, bf16: bool, parts: int = 1,
              processes: Processes = ALONE) -> tuple[Tensor, int]:  # fmt: skip
    """The gradient of the mean loss over a batch, added up over `parts` of it or, where memory runs out, over twice as many.

    Gives the loss, () detached, and the number of parts. Batch statistics, where a network has them, are those of a part.
    Of several processes each gives its own part of the batch; gradient and loss are of all of it.
    """
    size, in_all = len(batch.x), plan.batch if processes.count > 1 else len(batch.x)
    while True:
        loss = batch.x.new_zeros(())
        try:
            for k, piece in enumerate(batch.cut(parts)):
                with adding_up(model, k + 1 < parts):
                    with autocast(batch.x.device, bf16):
                        total = diffusion_loss(model, piece.x, piece.t, piece.noise, piece.label, plan.penalty,
                                               augmented=piece.augmented).sum()  # fmt: skip
                    (total * (processes.count / in_all)).backward()  # processes average their gradients
                loss += total.detach() / in_all
            return processes.sum(loss), parts
        except RuntimeError as e:  # torch.OutOfMemoryError is one; the CPU's allocator raises a plain one
            if not _is_out_of_memory(e):
                raise
            if processes.count > 1:
                raise UserError(f"memory ran out in process {processes.rank} of {processes.count}: "
                                f"go on with --training.parts {2 * parts}, or fewer pictures a --batch") from e  # fmt: skip
            if parts == size:
                raise UserError(f"not even one picture of {tuple(batch.x.shape[1:])} fits in memory: lower --size or "
                                "--network.widths")  from e  # fmt: skip
            parts = min(size, 2 * parts)
            model.zero_grad()


def adding_up(model: nn.Module, more: bool) -> AbstractContextManager[None]:
    """With `more` of the batch to come, gradients stay in this process: they are averaged over all once, at the end."""
    if (set_sync := getattr(model, "set_requires_gradient_sync", None)) is not None:  # FSDP
        set_sync(not more)
    return model.copy.no_sync() if more and isinstance(model, Replicated) else nullcontext()


def clip(parameters: list[nn.Parameter], most: float) -> float:
    """The norm of all gradients together, which are made as long as `most` where it is more (0: left as they are)."""
    found = [p.grad for p in parameters if p.grad is not None]
    norm = float(whole(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(found)))))
    if most and most < norm < math.inf:
        torch._foreach_mul_(found, most / norm)
    return norm


def recompute(model: nn.Module) -> None:
    """Keep of each unit of a network only its input on the way forward; its inside is computed again on the way back."""
    for unit in model.modules():
        if isinstance(unit, Unit):
            unit.forward = partial(checkpoint, unit.forward, use_reentrant=False)


def _is_out_of_memory(error: RuntimeError) -> bool:
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in words or "not enough memory" in words


@torch.no_grad()
def held_out_loss(denoiser: Denoiser, pictures: Pictures, plan: TrainingPlan, device: torch.device | str = "cpu",
                  bf16: bool = False, most: int = 256, processes: Processes = ALONE) -> list[float]:  # fmt: skip
    """The loss at `LEVELS` noise levels, evenly spread over those that training sees; their mean is comparable to its loss.

    Of the first `most` pictures, always under the same noise, so that only the denoiser changes it.
    """
    count = min(most, len(pictures))
    mine = slice(0, count) if pictures.divided or count < processes.count else processes.share(count)
    x = pictures.tensor(mine).to(device)
    label = None if pictures.labels is None else torch.from_numpy(pictures.labels[mine]).to(device)
    sums = []
    for level in range(LEVELS):
        t = plan.times(torch.full((len(x),), (level + 0.5) / LEVELS), denoiser.schedule).to(device)
        noise = draws.normal(draws.stream(plan.seed, "held out", level), (count, *x.shape[1:]))[mine].to(device)
        with autocast(device, bf16):
            sums.append(diffusion_loss(denoiser, x, t, noise, label, plan.penalty).sum())
    found = processes.sum(torch.stack([*sums, torch.tensor(float(len(x)), device=device)]))
    return [float(v) for v in found[:-1] / found[-1]]


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
