"""The training loop, read from top to bottom. It takes built objects and yields a record a step.

    for record in train(...): print(record.step, record.loss)

Every random number is a function of (seed, purpose, step), so a run that stopped and went on equals one that did not.
"""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unnoise.data.dataset import ImageDataset
from unnoise.diffusion.denoiser import Denoiser
from unnoise.networks.base import Unit
from unnoise.networks.layers import Dropout
from unnoise.training.batches import Batch, Batches, prefetch
from unnoise.training.budget import Budget
from unnoise.training.config import TrainingConfig
from unnoise.training.distributed import Replicated, full_tensor
from unnoise.training.ema import PowerEMA
from unnoise.training.objective import Teacher
from unnoise.training.records import Measured, ReadLater, TrainingRecord
from unnoise.utils import rng
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import SINGLE, Runtime, is_asynchronous

MAX_SKIPPED = 5  # steps in a row whose gradient is not finite


@dataclass
class TrainState:
    """What training changes, and all that a checkpoint holds: the model, the average of its weights for use, the optimizers.

    `extra_averages` are averages of other widths, by width. `critic` learns beside the model, where the objective asks for one.
    `total` is the number of steps in all, None while it is open; `decay_from` the step from which the learning rate falls, where
    it is not the configuration that decides; `rise_from` the step from which it rises: not 0 where a training that had ended goes
    on. `ending`: `end_soon` has fixed the end, whatever time is left. `whole` is false while a step changes the weights.
    """

    model: Denoiser
    average: Denoiser
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    total: int | None = None
    decay_from: int | None = None
    rise_from: int = 0
    ending: bool = False
    whole: bool = True
    extra_averages: dict[float, Denoiser] = field(default_factory=dict)
    critic: Denoiser | None = None

    @property
    def models(self) -> dict[str, nn.Module]:
        """All models by name."""
        averages = {"average": self.average, **{f"average-{w:g}": m for w, m in self.extra_averages.items()}}
        return {**self.trained, **averages}

    @property
    def trained(self) -> dict[str, Denoiser]:
        """Those that the optimizers change."""
        return {"model": self.model} | ({} if self.critic is None else {"critic": self.critic})

    def learning_rate(self, config: TrainingConfig, step: int) -> float:
        """That of step `step`, from 0."""
        total, decay_from = (None if n is None else n - self.rise_from for n in (self.total, self.decay_from))
        return config.learning_rate_at(step - self.rise_from, total, decay_from)

    def has_fallen(self, config: TrainingConfig) -> bool:
        """Whether the learning rate has begun to fall."""
        done = self.step - self.rise_from
        risen = self.total is not None and done > config.warmup_steps(self.total - self.rise_from)
        return risen and self.learning_rate(config, self.step - 1) < config.learning_rate

    def open_end(self, config: TrainingConfig) -> bool:
        """Forget where the end is, to train on to another; gives whether the learning rate had begun to fall, and rises again."""
        fallen = self.has_fallen(config)
        self.rise_from = self.step if fallen else self.rise_from
        self.total = self.decay_from = None
        return fallen

    def end_at(self, total: int | None, config: TrainingConfig, first: int) -> None:
        """End after `total` steps; where the rate should have fallen from before step `first`, it does from there."""
        self.total = total
        if total is not None and first > self.rise_from and config.lr_schedule == "trapezoid":
            planned = total - config.decay * (total - self.rise_from)
            self.decay_from = first if first > planned else None

    def end_soon(self, fraction: float) -> None:
        """Let the learning rate fall to 0 from here on, over `fraction` of the steps done, or as many as are left if fewer."""
        total = self.step + max(1, round(fraction * self.step))
        self.decay_from, self.total, self.ending = self.step, min(total, self.total or total), True


def train(state: TrainState, images: ImageDataset, config: TrainingConfig, runtime: Runtime = SINGLE,
          flip: bool = False, augment: float = 0.0, deadline: float | None = None,
          teacher: Denoiser | None = None) -> Iterator[TrainingRecord]:  # fmt: skip
    """Train until the budget is spent, changing `state` in place; a record is yielded after each step.

    `flip` and `augment` are as in `Batches`. `deadline` is when `config.minutes` are over (`time.perf_counter`), by default that
    long from now. `teacher` is for objectives that need one. Without a budget training goes on until `state.end_soon`. Stop by
    leaving the loop: `state` is then complete as of the last record. Raises UserError when the gradient stays infinite, or when
    not even one image fits in memory.
    """
    _check(config, runtime, teacher)
    model, trained = state.model, [m.train() for m in state.trained.values()]
    fresh = state.step == 0
    averages = [PowerEMA(model, state.average, config.ema, fresh)]
    averages += [PowerEMA(model, average, width, fresh) for width, average in state.extra_averages.items()]
    batches = Batches(images, config, model.schedule, runtime, flip, augment)
    count = runtime.sum(torch.tensor(float(len(images)), device=runtime.device)) if images.per_process else len(images)
    first, start = state.step, time.perf_counter()
    budget = _plan(state, config, config.steps_asked(int(count)), deadline or start + 60 * (config.minutes or 0.0))
    wrapped, *critic = [Replicated(m) if runtime.world_size > 1 and not config.sharded else m for m in trained]
    helper = None if teacher is None else Teacher(teacher, *critic)
    parameters, buffers = [p for m in trained for p in m.parameters()], [b for m in trained for b in m.buffers()]
    has_dropout = any(isinstance(m, Dropout) and m.threshold for m in model.modules())
    micro_batches, unread, skips = config.micro_batches, ReadLater(), Skips()
    with prefetch(batches) as fetch:
        while state.total is None or state.step < state.total:
            learning_rate = state.learning_rate(config, state.step)
            for group in (g for optimizer in state.optimizers for g in optimizer.param_groups):
                group["lr"] = learning_rate * group["scale"]
            before = [b.clone() for b in buffers]  # a forward pass changes batch statistics
            batch = fetch(state.step)

            with seeded_dropout(config.seed, state.step, runtime.rank, batch.x.device) if has_dropout else nullcontext():
                progress = state.step / state.total if state.total else 0.0
                loss, micro_batches = compute_gradients(wrapped, batch, config, runtime, micro_batches, progress, helper)
            norm = sum((clip_gradients(list(m.parameters()), config.clip) for m in trained), torch.zeros(()))

            step, state.whole = state.step + 1, False
            apply_gradients(state.optimizers, norm, buffers, before)
            for average in averages:
                average.update(step)
            state.step, state.whole = step, True  # only now is all of it done
            for p in parameters:
                p.grad = None
            if budget is not None and not state.ending and budget.due(step, state.total):
                state.end_at(runtime.on_first(partial(budget.total_steps, step, state.total)), config, first)
            speed = (step - first) * config.batch / (time.perf_counter() - start)
            record = TrainingRecord(step, state.total, Measured(loss, norm), learning_rate, speed, micro_batches)
            skips.count(unread.add(record))  # of a GPU the step before: so it is never more than one step behind
            yield record
    skips.count(unread.rest())


def _check(config: TrainingConfig, runtime: Runtime, teacher: Denoiser | None) -> None:
    """Raises UserError for what can't be trained."""
    if not config.learning_rate or not config.batch:
        raise UserError("training.learning_rate 0 and training.batch 0 are chosen when a run begins: give numbers here")
    if config.objective.needs_teacher and teacher is None:
        raise UserError(f"{type(config.objective).__name__} learns from a teacher here: distil a run, un.distill(RUN)")
    if config.objective.critic_rate and config.sharded:
        raise UserError("a student learns beside a critic, which can't be sharded: leave out training.sharded")
    if config.batch < runtime.world_size:
        raise UserError(f"a batch of {config.batch} can't be shared by {runtime.world_size} processes: raise training.batch")


def _plan(state: TrainState, config: TrainingConfig, max_steps: int | None, deadline: float) -> Budget | None:
    """Fix the end where it is not fixed yet: now where it is a number of steps, by the budget returned where it is a time."""
    if state.total is not None:
        return None
    if config.minutes is not None:
        return Budget(deadline, state.step, max_steps)
    state.end_at(max_steps, config, state.step)
    return None


class Skips:
    """Counts steps in a row without a finite gradient."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def count(self, records: list[TrainingRecord]) -> None:
        """Raises UserError at MAX_SKIPPED in a row."""
        for record in records:
            self._in_a_row = self._in_a_row + 1 if record.skipped else 0
            if self._in_a_row == MAX_SKIPPED:
                raise UserError(f"the gradient was not finite in {MAX_SKIPPED} steps up to {record.step} (loss "
                                f"{record.loss:.3g}): lower training.learning_rate, or train with training.precision "
                                "fp32")  # fmt: skip


@contextmanager
def seeded_dropout(seed: int, step: int, rank: int, device: torch.device) -> Iterator[None]:
    """Inside it, torch's own random numbers, which only dropout uses, are a function of (seed, step, process)."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(rng.stream(seed, "dropout", step, rank).integers(2**63)))
        yield


def compute_gradients(model: Denoiser, batch: Batch, config: TrainingConfig, runtime: Runtime = SINGLE,
                      micro_batches: int = 1, progress: float = 0.0,
                      teacher: Teacher | None = None) -> tuple[Tensor, int]:  # fmt: skip
    """The gradient of the mean loss over a batch, accumulated over micro-batches; twice as many where memory runs out.

    The loss is that of `config.objective`, to which `progress` and `teacher` go.
    Gives the loss, () detached, and the number of micro-batches. Batch statistics, where a network has them, are those of a
    micro-batch. Of several processes each gives its own part of the batch; gradient and loss are of all of it.
    """
    trained = [module for module in (model, teacher.critic if teacher else None) if module is not None]
    size, total_size = len(batch.x), config.batch if runtime.world_size > 1 else len(batch.x)
    while True:
        loss = batch.x.new_zeros(())
        try:
            for k, piece in enumerate(batch.split(micro_batches)):
                with ExitStack() as stack:
                    for module in trained:
                        stack.enter_context(no_sync(module, k + 1 < micro_batches))
                    with runtime.autocast():
                        each = config.objective(model, piece, config.loss, progress, teacher)
                    if each.shape != (len(piece.x),):
                        raise UserError(f"the objective {type(config.objective).__name__} must give a number an image, "
                                        f"({len(piece.x)},), not {tuple(each.shape)}")  # fmt: skip
                    total = each.sum()
                    (total * (runtime.world_size / total_size)).backward()  # processes average their gradients
                loss += total.detach() / total_size
            return runtime.sum(loss), micro_batches
        except RuntimeError as e:  # torch.OutOfMemoryError is one; the CPU's allocator raises a plain one
            if not _is_out_of_memory(e):
                raise
            if runtime.world_size > 1:
                raise UserError(f"memory ran out in process {runtime.rank} of {runtime.world_size}: go on with "
                                f"training.micro_batches {2 * micro_batches}, or a smaller training.batch") from e  # fmt: skip
            if micro_batches == size:
                raise UserError(f"not even one image of {tuple(batch.x.shape[1:])} fits in memory: lower data.size or "
                                "network.widths")  from e  # fmt: skip
            micro_batches = min(size, 2 * micro_batches)
            for module in trained:
                module.zero_grad()


def no_sync(model: nn.Module, accumulating: bool) -> AbstractContextManager[None]:
    """While `accumulating`, gradients stay in this process: they are averaged over all processes once, at the end."""
    if (set_sync := getattr(model, "set_requires_gradient_sync", None)) is not None:  # FSDP
        set_sync(not accumulating)
    return model.replica.no_sync() if accumulating and isinstance(model, Replicated) else nullcontext()


def clip_gradients(parameters: list[nn.Parameter], max_norm: float) -> Tensor:
    """The norm () of all gradients together, which are scaled to `max_norm` where it is larger (0: never)."""
    norm = full_tensor(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    # Most steps need no scaling, which takes 3 % of one on 200 small tensors; a GPU scales by 1 rather than be waited for.
    if max_norm and (is_asynchronous(norm.device) or max_norm < float(norm) < math.inf):
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def apply_gradients(optimizers: list[torch.optim.Optimizer], norm: Tensor, buffers: list[Tensor], before: list[Tensor]) -> None:
    """A step of the optimizers. Where the norm () of the gradients is not finite they and the buffers are as `before` it.

    That is decided on the device, by what torch's gradient scaler sets and fused optimizers honour. The averages then take in
    the same weights once more.
    """
    found_inf = None
    if is_asynchronous(norm.device) or not math.isfinite(float(norm)):
        found_inf = norm.isfinite().logical_not().float()
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(torch.where(found_inf > 0, value, buffer))
    for optimizer in optimizers:
        optimizer.found_inf = found_inf  # type: ignore[attr-defined]
        optimizer.step()


def checkpoint_activations(model: nn.Module) -> None:
    """Store only the input of each unit of a network in the forward pass; its inside is recomputed in the backward pass."""
    for unit in model.modules():
        if isinstance(unit, Unit):
            unit.forward = partial(checkpoint, unit.forward, use_reentrant=False)


def _is_out_of_memory(error: RuntimeError) -> bool:
    message = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in message or "not enough memory" in message
