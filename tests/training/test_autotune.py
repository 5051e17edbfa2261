"""What is chosen for speed or memory changes nothing else."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.conftest import quiet, small
from tests.training.stumbling import Stumbling
from unnoise.data.sources import DataConfig
from unnoise.recipe import override
from unnoise.runs.resume import resume
from unnoise.runs.start import begin
from unnoise.training import autotune
from unnoise.training.batches import Batches
from unnoise.training.config import TrainingConfig
from unnoise.training.loop import TrainState, compute_gradients
from unnoise.utils.runtime import SINGLE


@pytest.mark.parametrize("network", ["unet", "simple-unet"])
def test_activation_checkpointing_keeps_the_gradient(network: str) -> None:
    """To the bit."""
    changes = {"network": network, "network.widths": [16, 32], "data.labels": network == "unet"}
    found = []
    for activation_checkpointing in (False, True):
        recipe = override(small(), changes | {"training.activation_checkpointing": activation_checkpointing})
        images = recipe.data.load()
        model = recipe.build_state(images.shape, len(images.classes), "cpu").model.train()
        batch = Batches(images, recipe.training, model.schedule)(0)
        loss, _ = compute_gradients(model, batch, recipe.training)
        found.append((loss, [p.grad for p in model.parameters()]))
    assert torch.equal(found[0][0], found[1][0])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert torch.equal(one, other) if one is not None and other is not None else one is other


def test_the_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By speed: 32 is hardly faster than 16. By memory: 64 does not fit."""
    seconds = iter([1.0, 1.2, 2.3, 99.0])
    monkeypatch.setattr(autotune, "fastest", lambda call, times: next(seconds))
    said: list[str] = []
    digits = small().data.load()
    state = small().build_state(digits.shape, 10, "cpu")
    assert autotune.find_batch_size(state, digits, small().training, SINGLE, said.append) == 16
    assert "batch 16: 13 images/s" in said

    monkeypatch.setattr(autotune, "fastest", lambda call, times: 1.0)
    few = Stumbling(max_images=32)
    state = TrainState(few, few, [torch.optim.Adam(few.parameters())])
    assert autotune.find_batch_size(state, DataConfig(labels=False).load(), TrainingConfig(), SINGLE, quiet) == 32


def test_compiling_is_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept where it is faster, not where it is slower; without a compiler it is said and training goes on as it was."""
    recipe = small()
    digits = recipe.data.load()
    state = recipe.build_state(digits.shape, 10, "cpu")
    said: list[str] = []

    def weigh(plain: float, compiled: float) -> bool:
        seconds = iter([plain, compiled])
        monkeypatch.setattr(autotune, "fastest", lambda call, times: next(seconds))
        return autotune.compiling_pays(state, digits, recipe.training, SINGLE, said.append)

    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: None)
    assert weigh(1.0, 0.5) and not weigh(1.0, 1.2)
    assert "2.00 times as fast: kept" in said[0] and "0.83 times as fast: not used" in said[1]

    def broken(self: torch.nn.Module, **options: object) -> None:
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    assert not weigh(1.0, 0.5) and said[-1] == "not compiled: no C++ compiler found"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_code_is_the_same_mathematics(tmp_path: Path) -> None:
    """A run that is compiled resumes compiled, and its losses are those of plain code, nearly."""
    losses = []
    for compile in ("off", "on"):
        recipe = small(training__steps=4, training__compile=compile, network__widths=[16], network__attention_tokens=0)
        run = begin(tmp_path / compile, recipe, quiet)
        assert run.info.compiled == (compile == "on")
        losses.append([r.loss for r in run.train()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    names = [set(resume(tmp_path / c, quiet).state.model.state_dict()) for c in ("off", "on")]
    assert names[0] == names[1]
