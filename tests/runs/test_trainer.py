"""A run that is trained: it resumes exactly, samples what it saved, and stops where it was told to."""

import dataclasses
import errno
import re
import signal
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from tests.conftest import quiet, small
from unnoise.model import Model
from unnoise.presets import PRESETS
from unnoise.recipe import override
from unnoise.runs.best import stopped_falling
from unnoise.runs.resume import resume
from unnoise.runs.snapshots import snapshot_due
from unnoise.runs.start import begin
from unnoise.runs.trainer import Trainer
from unnoise.training import checkpoint, loop
from unnoise.training.ema import PowerEMA
from unnoise.training.optimizers import NAMES
from unnoise.utils.atomic import read_records
from unnoise.utils.errors import UserError


@pytest.mark.parametrize("optimizer", NAMES)
@pytest.mark.parametrize("stop", [1, 5, 8])
def test_resumed_equals_unbroken_bit_for_bit(tmp_path: Path, optimizer: str, stop: int) -> None:
    """Stopped at the first step, within an epoch of 4 steps and at its end; with dropout, augmentation and hidden labels."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", images=pixels, labels=np.arange(64) % 4)
    recipe = small(training__steps=12, training__batch=16, training__optimizer=optimizer, network__style={"dropout": 0.2},
                   data__augment=0.2, data__flip=True, training__extra_ema=[0.05], training__snapshots=4, data__held_out=0.0,
                   data__source={"name": "array", "path": str(tmp_path / "some.npz")})  # fmt: skip
    list(begin(tmp_path / "whole", recipe, quiet).train())
    for record in (records := begin(tmp_path / "broken", recipe, quiet).train()):
        if record.step == stop:
            break
    records.close()
    again = resume(tmp_path / "broken", quiet)
    assert again.state.step == stop
    list(again.train())
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    names = [p.relative_to(whole) for p in whole.rglob("*.safetensors") if f"{stop:06d}" not in str(p)]
    assert len(names) >= 4 + 3 + 2
    for name in names:
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    expected, found = ([r | {"images_per_second": 0} for r in read_records(p / "metrics.jsonl")] for p in (whole, broken))
    assert expected == found


def test_save_load_sample_gives_the_same_bits(tmp_path: Path) -> None:
    """A run folder of recipe.json and model.safetensors alone draws what the run in memory draws."""
    run = begin(tmp_path / "run", small(training__steps=3), quiet)
    list(run.train())
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("recipe.json", "model.safetensors"):
        (bare / name).write_bytes((tmp_path / "run" / name).read_bytes())
    model = Model.load(bare)
    assert model.info.recipe == run.info.recipe
    assert np.array_equal(model.sample(6), run.model.sample(6))
    whole = model.sample(6, batch=4)
    assert np.abs(whole.astype(int) - model.sample(6).astype(int)).max() <= 1


def test_minutes_fix_the_number_of_steps(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small(training__minutes=0.1), quiet)
    run.started = time.perf_counter() + 2  # as on a machine where beginning takes no time
    records = list(run.train())
    assert records[-1].total == records[-1].step == run.info.total_steps
    assert records[0].total is None and records[1].total is not None
    assert f'"total_steps": {len(records)}' in (tmp_path / "run" / "recipe.json").read_text()


def test_an_open_training_goes_on_until_it_is_asked_to_end(tmp_path: Path) -> None:
    """Then the rate falls to 0, averages and an early one for guidance are there, and it resumes to the same end."""
    run = begin(tmp_path, small(training__snapshots=4, training__extra_ema=[0.05], training__warmup=10), quiet)
    records = []
    for record in run.train():
        records.append(record)
        if record.step == 100:
            assert run.is_open and record.total is None
            assert run.end_soon() == 10 and not run.is_open
        if record.step == 105:
            break
    assert {r.learning_rate for r in records[40:100]} == {1e-3} and records[104].learning_rate == pytest.approx(0.6e-3)
    assert (tmp_path / "guide.safetensors").exists() and len(
        list((tmp_path / "snapshots").iterdir())
    ) == 6  # 64, 76, 90; two widths
    again = list(resume(tmp_path, quiet).train())
    assert [r.step for r in again] == [*range(106, 111)] and again[-1].learning_rate == pytest.approx(0.1e-3)


def test_a_training_ends_where_the_held_out_loss_stops_falling(tmp_path: Path) -> None:
    run = begin(tmp_path, small(training__stop_when="plateau", training__sample_every=1e-9), quiet)
    losses = iter([1 / (1 + k) for k in range(8)] + [0.2] * 99)
    run.measure = lambda: run._held_out.append(next(losses))  # type: ignore[method-assign]
    run.sample_grid = lambda: None  # type: ignore[method-assign]
    assert 8 < len(list(islice(run.train(), 1000))) < 300 and run.state.decay_from is not None


@pytest.mark.parametrize("budget", [{"training__minutes": 60.0}, {"training__steps": 20_000}])
def test_a_plateau_ends_a_training_with_a_budget_too(tmp_path: Path, budget: dict[str, float]) -> None:
    """At the end that was announced, whatever time or steps are left; and the machine is not called slow."""
    said: list[str] = []
    run = begin(tmp_path, small(training__stop_when="plateau", training__sample_every=1e-9, **budget), said.append)
    run.measure = lambda: run._held_out.append(0.2)  # type: ignore[method-assign]
    run.sample_grid = lambda: None  # type: ignore[method-assign]
    records = list(islice(run.train(), 400))
    (more,) = (int(found[1]) for line in said if (found := re.search(r"falls to 0 over (\d+) more steps", line)))
    assert records[-1].step == records[-1].total == run.state.total and not any("slower" in line for line in said)
    assert more == max(1, round(0.1 * (records[-1].step - more)))


def test_a_training_near_its_end_is_not_ended_again(tmp_path: Path) -> None:
    """Nor does its rate rise, or its number of steps grow."""
    run = begin(tmp_path, small(training__stop_when="plateau", training__steps=100, training__sample_every=1e-9), quiet)
    run.measure = lambda: run._held_out.append(0.2 if run.state.step > 65 else 1 / (1 + run.state.step))  # type: ignore[method-assign]
    run.sample_grid = lambda: None  # type: ignore[method-assign]
    records = list(run.train())
    assert records[-1].step == 100 and records[-1].learning_rate == pytest.approx(1e-3 / 40)


def test_no_plateau_without_held_out_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image is held out, whose loss could stop falling"):
        begin(tmp_path / "r", small(training__stop_when="plateau", data__held_out=0.0), quiet)
    assert not (tmp_path / "r").exists()


BESIDE = ["metrics.jsonl", "held-out.jsonl", "samples", "guide", "recipe.json", "strip.png", "tensorboard"]


@pytest.mark.parametrize("fails", BESIDE)
def test_what_cant_be_written_beside_the_checkpoints_is_said_once_and_done_without(
    tmp_path: Path, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    run = begin(tmp_path, small(training__steps=20, training__sample_every=1e-9), said.append)

    def failing(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if fails in " ".join(map(str, arguments[:2])) or (fails == "tensorboard" and isinstance(arguments[0], SummaryWriter)):
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments, **options)

        return call

    for owner, name in ((Path, "open"), (Path, "replace"), (SummaryWriter, "add_scalar")):
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    for _ in run.train():
        pass
    run.finish()
    monkeypatch.undo()
    told = [line for line in said if "can't be written (No space left on device): training goes on without" in line]
    assert 1 <= len(told) == len(set(told)) <= 2
    assert resume(tmp_path, quiet).state.step == 20


class Unforeseen(RuntimeError):
    """Raised where nobody expects it."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Unforeseen, MemoryError])
def test_whatever_ends_training_the_steps_done_are_kept(
    tmp_path: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path, small(training__steps=20), quiet)
    with pytest.raises(error):
        for record in run.train():
            if record.step == 7:
                monkeypatch.setattr(loop, "clip_gradients", lambda *_: (_ for _ in ()).throw(error))
    monkeypatch.undo()
    assert resume(tmp_path, quiet).state.step == 7


def test_ctrl_c_in_a_loop_of_ones_own_waits_for_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook, where nobody else handles it: it is raised between two steps, the second of which is kept."""
    run, clip = begin(tmp_path, small(training__steps=20), quiet), loop.clip_gradients

    def interrupted(*arguments: Any) -> Tensor:
        if run.state.step == 6:
            signal.raise_signal(signal.SIGINT)
        return clip(*arguments)

    monkeypatch.setattr(loop, "clip_gradients", interrupted)
    steps = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have had ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            for record in run.train():
                steps.append(record.step)
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps == [*range(1, 7)] and resume(tmp_path, quiet).state.step == 7


def test_half_a_step_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin(tmp_path, small(training__steps=20), quiet)
    with pytest.raises(Unforeseen):
        for record in run.train():
            if record.step == 4:
                run.save()
            if record.step == 7:
                monkeypatch.setattr(PowerEMA, "update", lambda *_: (_ for _ in ()).throw(Unforeseen))
    monkeypatch.undo()
    assert resume(tmp_path, quiet).state.step == 4


def test_what_has_stopped_falling() -> None:
    falling = [1 / k for k in range(1, 31)]
    assert not stopped_falling(falling) and not stopped_falling([0.5] * 8)
    assert stopped_falling([*falling, *[falling[-1]] * 15]) and not stopped_falling([*falling, *[falling[-1]] * 14, 0.03])


def test_averages_of_an_open_training_are_stored_four_times_per_doubling() -> None:
    assert [k for k in range(1, 300) if snapshot_due(k, None, 16)] == [64, 77, 91, 108, 128, 153, 182, 216, 256]
    assert [k for k in range(1, 101) if snapshot_due(k, 100, 4)] == [25, 50, 75, 100] and not snapshot_due(64, None, 0)


def test_one_image_is_enough(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", images=np.zeros((1, 8, 8), dtype=np.uint8))
    run = begin(tmp_path / "run", small(training__steps=1, data__source={"name": "array", "path": str(tmp_path / "one.npz")},
                                            data__held_out=0.0), quiet)  # fmt: skip
    assert len(list(run.train())) == 1 and run.model.moments is None


def test_steps_end_a_run_before_its_minutes(tmp_path: Path) -> None:
    run = begin(tmp_path, small(training__minutes=5, training__steps=3), quiet)
    assert [r.step for r in run.train()] == [1, 2, 3]


def test_labels_are_dropped_for_a_network_without(tmp_path: Path) -> None:
    said: list[str] = []
    recipe = override(PRESETS["digits"], {"network": "simple-unet", "network.widths": [4, 8], "training.steps": 1,
                                          "training.precision": "fp32"})  # fmt: skip
    run = begin(tmp_path, recipe, said.append)
    assert "takes no labels" in said[0] and run.info.classes == () and not run.info.recipe.data.labels


def test_old_checkpoints_go_after_the_new_one(tmp_path: Path) -> None:
    recipe = small(training__steps=4)
    run = begin(tmp_path, dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, save_every=1e-9)), quiet)
    list(run.train())
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path / "checkpoints")] == ["000003", "000004"]
    assert not list(tmp_path.rglob("*.tmp*"))


def test_trained_weights_hold_no_denormals(digits_run: Trainer) -> None:
    """Numbers too small for the usual format make convolutions many times slower on some CPUs."""
    tensors = {f"{name} {key}": v for name, model in digits_run.state.models.items() for key, v in model.state_dict().items()}
    for optimizer in digits_run.state.optimizers:
        tensors |= {f"{key} {k}": v for k, state in enumerate(optimizer.state.values()) for key, v in state.items()}
    smallest = torch.finfo(torch.float32).tiny
    found = [name for name, v in tensors.items() if ((v != 0) & (v.abs() < smallest)).any()]
    assert len(tensors) > 100 and not found
