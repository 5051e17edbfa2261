"""A step as a GPU gets it: nothing in it waits for the device, and it changes what the step of a CPU does, to the bit.

The device is the CPU under another name, on which every reading of a number fails.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import small
from tests.training.stumbling import Stumbling
from tests.training.test_loop import stumble
from unnoise.data.dataset import ImageDataset, split
from unnoise.runs.progress import TrainingProgress
from unnoise.runs.start import begin
from unnoise.training import batches, loop, records
from unnoise.training.loop import TrainState, train
from unnoise.training.objectives import OBJECTIVES
from unnoise.training.optimizers import NAMES, build_optimizers
from unnoise.training.records import Measured, TrainingRecord
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import Runtime

META = torch.device("meta")
READING = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select")


class NoReading(TorchDispatchMode):
    """Inside it, asking a tensor for its value fails, and so does a copy to another device that is waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := func.overloadpacket.__name__) in READING:
            raise AssertionError(f"{name} waits for the device")
        found = func(*args, **(kwargs or {}))
        moved = name == "_to_copy" and args[0].device != found.device
        assert not moved or (kwargs or {}).get("non_blocking"), "a copy that is waited for"
        return found


class Event:
    """Of a device on which nothing is ready before it is waited for; counts the waiting, and for which event that was."""

    made: ClassVar[int] = 0
    waited: ClassVar[list[tuple[int, int]]] = []  # which one, and how many there were

    def record(self) -> None:
        Event.made += 1
        self.number = Event.made

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        Event.waited.append((self.number, Event.made))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The CPU is said to be a device that computes by itself."""
    for module in (batches, loop, records):
        monkeypatch.setattr(module, "is_asynchronous", lambda _: True)
    monkeypatch.setattr(torch, "Event", Event)
    Event.made, Event.waited = 0, []
    yield


def digits(**changes: Any) -> tuple[TrainState, ImageDataset, Any]:
    recipe = small(training__steps=4, training__label_dropout=0.3, network__style__dropout=0.1, training__clip=0.3, **changes)
    images = split(recipe.data.load(), 0.1).train
    torch.manual_seed(0)
    return recipe.build_state(images.shape, 10, "cpu"), images, recipe.training


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("optimizer", NAMES)
def test_nothing_in_a_step_waits(optimizer: str, objective: str, device: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the loop, nor one that reads each record when the next one is there; then the result is that of a CPU."""
    state, images, config = digits(training__optimizer=optimizer, data__augment=0.2, training__objective=objective)
    plain, _, _ = digits(training__optimizer=optimizer, data__augment=0.2, training__objective=objective)
    teacher = copy.deepcopy(state.model) if config.objective.needs_teacher else None
    losses: list[float] = []
    last: TrainingRecord | None = None
    with NoReading():
        for record in train(state, images, config, flip=True, augment=0.2, teacher=teacher):
            assert state.step == record.step  # it is complete as of the last record
            losses += [last.loss] if last else []
            last = record
    assert last is not None
    losses.append(last.loss)
    assert Event.waited == [(k, min(k + 1, 4)) for k in range(1, 5)]  # one step behind, and never more
    monkeypatch.undo()
    assert losses == [r.loss for r in train(plain, images, config, flip=True, augment=0.2, teacher=teacher)]
    for mine, theirs in zip(state.models.values(), plain.models.values(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True))


@pytest.mark.parametrize("times", ["log-normal", "uniform"])
def test_nothing_in_a_batch_waits(times: str) -> None:
    """Made by a thread of its own, on the device `meta`, which has no values to read."""
    state, images, config = digits(training__times=times, training__objective="matching")
    made = batches.Batches(images, config, state.model.schedule, Runtime("meta"), flip=True, augment=0.2)
    with NoReading():
        batch = made(3)
    assert all(field is not None and field.device == META for field in batch[:-1])
    shapes = [tuple(field.shape) for field in batch[:-1] if field is not None]
    assert shapes == [(32, 1, 8, 8), (32,), (32, 1, 8, 8), (32,), (32, 7), (32, 2, 1, 8, 8)]


def test_a_step_that_reads_would_be_found() -> None:
    """The CPU's own, which asks for the norm."""
    state, images, config = digits()
    with pytest.raises(AssertionError, match="waits for the device"), NoReading():
        next(train(state, images, config))


@pytest.mark.parametrize("optimizer", NAMES)
def test_a_step_to_skip_is_decided_on_the_device(optimizer: str, device: None, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, config = Stumbling({3, 4, 9}), {"learning_rate": 0.05, "optimizer": optimizer, "weight_decay": 0.1}
    found, told = stumble(copy.deepcopy(denoiser), **config)
    assert [r.step for r in told if r.skipped] == [3, 4, 9] and len(told) == 12
    monkeypatch.undo()
    expected, _ = stumble(denoiser, **config)
    for mine, theirs in zip(found.models.values(), expected.models.values(), strict=True):
        for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert torch.isfinite(a).all() and torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_found_inf_leaves_weights_and_moments_as_they_are(name: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Conv2d(a, b, 3) for a, b in ((1, 4), (4, 4), (4, 4), (4, 1))))
    optimizers = build_optimizers(name, network, 1e-2, 0.99, 0.1)

    def step(value: Callable[[torch.Tensor], torch.Tensor], found_inf: float) -> list[torch.Tensor]:
        for p in network.parameters():
            p.grad = value(p)
        for o in optimizers:
            o.found_inf = torch.tensor(found_inf)  # type: ignore[attr-defined]
            o.step()
        moments = [v for o in optimizers for state in o.state.values() for v in state.values()]
        return [v.detach().clone() for v in [*network.parameters(), *moments]]

    before = step(torch.randn_like, 0.0)
    after = step(lambda p: torch.full_like(p, float("nan")), 1.0)
    assert len(before) > 8 and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before, step(torch.randn_like, 0.0), strict=True))


def test_several_in_a_row_end_it_a_step_later(device: None) -> None:
    denoiser = Stumbling(set(range(4, 99)))
    with pytest.raises(UserError, match=r"not finite in 5 steps up to 8 "):
        stumble(denoiser)
    assert denoiser.calls == 9 and all(torch.isfinite(v).all() for v in denoiser.state_dict().values())
    with pytest.raises(UserError, match=r"not finite in 5 steps up to 12 "):  # the last of all
        stumble(Stumbling(set(range(8, 99))))


@pytest.mark.parametrize("leave_at", [3, 6])
def test_the_log_of_a_run_is_whole(leave_at: int, device: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs and the bar read a step late; left anywhere, or at its end, every step is in the log, with its own numbers."""
    run = begin(tmp_path / "run", small(training__steps=6), lambda _: None)
    losses = {}
    with TrainingProgress(run, shown=False) as shown:
        for record in run.train():
            shown.update(record)
            losses[record.step] = record
            if record.step == leave_at:
                break
    waited = [number for number, made in Event.waited if made == number]  # for the newest: at most where it ends
    assert waited in ([], [leave_at]) and shown.records == leave_at and shown.facts.startswith("loss ")
    curve = run.folder.read_losses()
    assert curve is not None
    steps, found = curve
    assert list(steps) == list(range(1, leave_at + 1)) and list(found) == [losses[k].loss for k in steps]


def test_numbers_on_a_cpu_are_there() -> None:
    measured = Measured(torch.tensor(0.5), torch.tensor(2.0))
    assert measured.is_ready and measured.values == (0.5, 2.0)
    record = TrainingRecord(1, 9, Measured(0.5, float("inf")), 0.1, 7.0)
    assert record.skipped and copy.copy(record).numbers == {
        "step": 1, "total": 9, "loss": 0.5, "gradient_norm": float("inf"), "learning_rate": 0.1, "images_per_second": 7.0,
        "micro_batches": 1, "skipped": True}  # fmt: skip
