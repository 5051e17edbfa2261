import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unnoise.data.dataset import split
from unnoise.data.sources import DataConfig
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.schedules import Flow
from unnoise.model import Model
from unnoise.networks.unet import UNetConfig
from unnoise.presets import PRESETS
from unnoise.recipe import Recipe, override
from unnoise.registry import to_json
from unnoise.run_folder import RunFolder, list_runs
from unnoise.runs.start import begin, resume
from unnoise.training import checkpoint
from unnoise.training.batches import Batches
from unnoise.training.config import OPTIMIZERS, TrainingConfig
from unnoise.training.loop import TrainingRecord, TrainState, train
from unnoise.utils.atomic import read_records
from unnoise.utils.errors import UserError

SMALL = {"network.widths": [16, 32], "network.blocks": 1, "network.embedding": 32, "training.precision": "fp32",
         "training.minutes": None, "sampling.steps": 4}  # fmt: skip


def small(**changes: object) -> Recipe:
    return override(PRESETS["digits"], SMALL | {k.replace("__", "."): v for k, v in changes.items()})


def quiet(_: str) -> None:
    pass


def test_training_learns_digits() -> None:
    recipe = small(training__steps=150, network__widths=[32, 64])
    digits = split(recipe.data.load(), 0.1).train
    training = recipe.build_state(digits.shape, 10, "cpu")
    records = list(train(training, digits, recipe.training))
    first, last = (np.mean([r.loss for r in part]) for part in (records[:10], records[-10:]))
    assert last < 0.55 * first
    assert [r.step for r in records] == list(range(1, 151))
    assert records[-1].learning_rate < 0.02 * recipe.training.learning_rate


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
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
    assert np.array_equal(next(model.draw(6)), next(run.model.draw(6)))
    whole = np.concatenate(list(model.draw(6, batch=4)))
    assert np.abs(whole.astype(int) - next(model.draw(6)).astype(int)).max() <= 1


def test_minutes_fix_the_number_of_steps(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small(training__minutes=0.04), quiet)
    records = list(run.train())
    assert records[-1].total == records[-1].step == run.info.total_steps
    assert any(r.total is None for r in records[:3])
    assert f'"total_steps": {len(records)}' in (tmp_path / "run" / "recipe.json").read_text()


def test_rate_rises_stays_and_falls_to_zero() -> None:
    plan = TrainingConfig(steps=100, warmup=10, decay=0.4, learning_rate=1.0)
    rates = [plan.rate_at(k, 100) for k in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[59] == 1 and rates[80] == pytest.approx(0.5)
    assert rates[100] == 0
    cosine, constant = (dataclasses.replace(plan, lr_schedule=fall, warmup=0) for fall in ("cosine", "constant"))
    assert [cosine.rate_at(k, 100) for k in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    assert {constant.rate_at(k, 100) for k in range(101)} == {1}


def test_an_epoch_sees_every_image_once() -> None:
    images = DataConfig().load().subset(np.arange(1797) < 50)
    plan = TrainingConfig(batch=10, seed=3)
    batches = Batches(images, plan, Flow())
    seen = np.concatenate([batches.read(k).flatten(1).numpy() for k in range(5)])
    expected = images.pixels.reshape(50, -1).astype(np.float32) / 127.5 - 1
    assert np.array_equal(seen[np.lexsort(seen.T)], expected[np.lexsort(expected.T)])
    far = Batches(images, plan, Flow()).read(17)  # without reading what is before it
    [batches.read(k) for k in range(17)]
    assert torch.equal(batches.read(17), far)


def test_the_last_partial_batch_is_dropped() -> None:
    """As a PyTorch loader with drop_last: 50 images in batches of 15 are three steps an epoch, the order new in each."""
    images = DataConfig().load().subset(np.arange(1797) < 50)
    plan = TrainingConfig(batch=15, epochs=2, drop_last=True)
    assert plan.steps_asked(50) == 6 and dataclasses.replace(plan, drop_last=False).steps_asked(50) == 7
    assert dataclasses.replace(plan, steps=4).steps_asked(50) == 4
    assert TrainingConfig(batch=32, epochs=1).steps_asked(10) == 1  # never none
    batches = Batches(images, plan, Flow())
    epochs = [{x.numpy().tobytes() for k in range(3) for x in batches.read(3 * e + k)} for e in range(2)]
    assert len(epochs[0]) == len(epochs[1]) == 45 and epochs[0] != epochs[1]
    few = TrainingConfig(batch=60, epochs=3, drop_last=True)  # nothing would be left: batches span epochs instead
    assert few.steps_asked(50) == 3 and len(Batches(images, few, Flow()).read(0)) == 60


def test_one_image_is_enough(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", images=np.zeros((1, 8, 8), dtype=np.uint8))
    run = begin(tmp_path / "run", small(training__steps=1, data__source={"name": "array", "path": str(tmp_path / "one.npz")},
                                            data__held_out=0.0), quiet)  # fmt: skip
    assert len(list(run.train())) == 1 and run.model.moments is None


def test_a_last_line_cut_short_is_forgiven(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert RunFolder(tmp_path).read_losses() == ([1], [0.5])


class Stumbling(Denoiser):
    """A linear denoiser that gives NaN at chosen calls, or runs out of memory on more than so many images."""

    def __init__(self, bad: set[int] = frozenset(), most: int = 10**9) -> None:  # type: ignore[assignment]
        super().__init__()
        self.schedule, self.bad, self.most, self.calls = Flow(), bad, most, 0
        self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(1)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None = None, **cond: torch.Tensor) -> torch.Tensor:
        if len(x_t) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. not enough memory")
        self.calls += 1
        x_hat: torch.Tensor = self.norm(self.conv(x_t)) * (math.nan if self.calls in self.bad else 1)
        if self.calls in self.bad:
            self.norm(x_t * math.nan)  # and its statistics
        return x_hat


def stumble(denoiser: Stumbling, **plan: Any) -> tuple[TrainState, list[TrainingRecord]]:
    torch.manual_seed(0)
    torch.nn.init.normal_(denoiser.conv.weight, std=0.3)
    options = TrainingConfig(**{"steps": 12, "batch": 8, "warmup": 0, "label_dropout": 0.0} | plan)
    training = TrainState(denoiser, copy.deepcopy(denoiser), options.build_optimizer(denoiser))
    return training, list(train(training, DataConfig(labels=False).load(), options))


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    training, records = stumble(Stumbling({3, 4, 9}), learning_rate=0.05)
    assert [r.step for r in records if r.skipped] == [3, 4, 9] and len(records) == 12
    for model in (training.model, training.average):
        assert all(torch.isfinite(v).all() for v in model.state_dict().values())
    assert records[-1].loss < records[0].loss


def test_several_in_a_row_stop_with_finite_weights() -> None:
    denoiser = Stumbling(set(range(4, 99)))
    with pytest.raises(UserError, match=r"not finite in 5 steps up to 8 .*precision fp32"):
        stumble(denoiser)
    assert all(torch.isfinite(v).all() for v in denoiser.state_dict().values())


def test_out_of_memory_cuts_the_batch_and_keeps_the_gradient() -> None:
    def weights(most: int) -> tuple[torch.Tensor, int]:
        denoiser = Stumbling(most=most)
        denoiser.norm = torch.nn.Identity()  # type: ignore[assignment]
        _, records = stumble(denoiser)
        return denoiser.conv.weight.detach(), records[-1].micro_batches

    whole, one = weights(8)
    cut, four = weights(2)
    assert (one, four) == (1, 4)
    torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-6)
    with pytest.raises(UserError, match="not even one image"):
        weights(0)


def test_held_out_loss_is_fixed_and_disturbs_nothing() -> None:
    """The same twice, rising with no draw of training; its mean is about the training loss on the same images."""
    recipe = small(training__steps=30)
    parts = split(recipe.data.load(), 0.1)
    runs = []
    for measured in (False, True):
        training = recipe.build_state(parts.train.shape, 10, "cpu")
        for record in train(training, parts.train, recipe.training):
            if measured and record.step % 10 == 0:
                first = held_out_loss(training.average, parts.held_out, recipe.training)
                assert first == held_out_loss(training.average, parts.held_out, recipe.training)
        runs.append(record.loss)
    assert runs[0] == runs[1]
    assert len(first) == LEVELS and 0.5 < np.mean(first) / record.loss < 2


def test_runs_are_listed(tmp_path: Path) -> None:
    run = begin(tmp_path / "a", small(training__steps=3), quiet)
    list(run.train())
    run.measure()
    begin(tmp_path / "b", small(training__steps=3), quiet)
    found = {r.folder.name: r for r in list_runs(tmp_path)}
    assert (found["a"].state, found["a"].step, found["a"].total) == ("done", 3, 3) and found["a"].best is not None
    assert (found["b"].state, found["b"].loss) == ("no steps", None)


def test_steps_end_a_run_before_its_minutes(tmp_path: Path) -> None:
    run = begin(tmp_path, small(training__minutes=5, training__steps=3), quiet)
    assert [r.step for r in run.train()] == [1, 2, 3]


def test_labels_are_dropped_for_a_network_without(tmp_path: Path) -> None:
    said: list[str] = []
    recipe = override(PRESETS["digits"], {"network": "simple-unet", "network.widths": [4, 8], "training.steps": 1,
                                          "training.precision": "fp32"})  # fmt: skip
    run = begin(tmp_path, recipe, said.append)
    assert "takes no labels" in said[0] and run.info.classes == () and not run.info.recipe.data.labels


def test_hidden_labels_are_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small(training__steps=40, training__batch=50, training__label_dropout=0.3)
    digits = recipe.data.load()
    training = recipe.build_state(digits.shape, 10, "cpu")
    seen: list[torch.Tensor] = []
    forward = training.model.forward

    def spy(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        seen.append(label)
        return forward(x, t, label)

    monkeypatch.setattr(training.model, "forward", spy)
    list(train(training, digits, recipe.training))
    assert float((torch.cat(seen) == -1).float().mean()) == pytest.approx(0.3, abs=0.04)


def test_the_notebooks_recipe_shows_each_choice() -> None:
    shown = to_json(PRESETS["notebook"])
    training, sampling = shown["training"], shown["sampling"]
    assert shown["schedule"] == {"name": "linear", "timesteps": 300, "beta_start": 1e-4, "beta_end": 0.02,
                                 "zero_terminal_snr": False}  # fmt: skip
    assert shown["network"] == {"name": "simple-unet", "widths": [64, 128, 256, 512, 1024], "time_size": 32}
    assert shown["target"]["name"] == "noise" and training["loss"]["name"] == "l1"
    assert (training["optimizer"], training["learning_rate"], training["beta2"]) == ("adam", 1e-3, 0.999)
    assert (training["batch"], training["drop_last"], training["epochs"], training["ema"]) == (150, True, 4000, 0)
    assert (training["warmup"], training["decay"], training["clip"], training["weight_decay"]) == (0, 0, 0, 0)
    assert sampling["sampler"] == {"name": "ddpm", "clamp": True, "variance": "posterior"} and sampling["steps"] == 300
    assert PRESETS["notebook"].training.steps_asked(10_000) == 264_000
    assert PRESETS["notebook"].training.rate_at(0, 264_000) == PRESETS["notebook"].training.rate_at(263_999, 264_000) == 1e-3


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    model = UNetConfig(widths=(16,)).build(1, (8, 8), 0)
    path = tmp_path / "model.safetensors"
    checkpoint.save_tensors(path, checkpoint.state_of(model))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        checkpoint.load_model(path, model)


def test_old_checkpoints_go_after_the_new_one(tmp_path: Path) -> None:
    recipe = small(training__steps=4)
    run = begin(tmp_path, dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, save_every=1e-9)), quiet)
    list(run.train())
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path / "checkpoints")] == ["000003", "000004"]
    assert not list(tmp_path.rglob("*.tmp*"))
