"""The training loop: it learns, keeps what a failed step would break, and does not depend on how a batch is split."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import small
from tests.training.stumbling import Stumbling
from unnoise.data.dataset import split
from unnoise.data.sources import DataConfig
from unnoise.training.config import TrainingConfig
from unnoise.training.loop import TrainState, clip_gradients, train
from unnoise.training.records import TrainingRecord
from unnoise.utils.errors import UserError


def test_training_learns_digits() -> None:
    recipe = small(training__steps=150, network__widths=[32, 64])
    digits = split(recipe.data.load(), 0.1).train
    state = recipe.build_state(digits.shape, 10, "cpu")
    records = list(train(state, digits, recipe.training))
    first, last = (np.mean([r.loss for r in part]) for part in (records[:10], records[-10:]))
    assert last < 0.55 * first
    assert [r.step for r in records] == list(range(1, 151))
    assert records[-1].learning_rate < 0.02 * recipe.training.learning_rate


def stumble(denoiser: Stumbling, **config: Any) -> tuple[TrainState, list[TrainingRecord]]:
    torch.manual_seed(0)
    torch.nn.init.normal_(denoiser.conv.weight, std=0.3)
    options = TrainingConfig(**{"steps": 12, "batch": 8, "warmup": 0, "label_dropout": 0.0} | config)
    state = TrainState(denoiser, copy.deepcopy(denoiser), options.build_optimizers(denoiser))
    return state, list(train(state, DataConfig(labels=False).load(), options))


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    state, records = stumble(Stumbling({3, 4, 9}), learning_rate=0.05)
    assert [r.step for r in records if r.skipped] == [3, 4, 9] and len(records) == 12
    for model in (state.model, state.average):
        assert all(torch.isfinite(v).all() for v in model.state_dict().values())
    assert records[-1].loss < records[0].loss


def test_several_in_a_row_stop_with_finite_weights() -> None:
    denoiser = Stumbling(set(range(4, 99)))
    with pytest.raises(UserError, match=r"not finite in 5 steps up to 8 .*precision fp32"):
        stumble(denoiser)
    assert all(torch.isfinite(v).all() for v in denoiser.state_dict().values())


def test_out_of_memory_splits_the_batch_and_keeps_the_gradient() -> None:
    def weights(max_images: int) -> tuple[torch.Tensor, int]:
        denoiser = Stumbling(max_images=max_images)
        denoiser.norm = torch.nn.Identity()  # type: ignore[assignment]
        _, records = stumble(denoiser)
        return denoiser.conv.weight.detach(), records[-1].micro_batches

    whole, one = weights(8)
    cut, four = weights(2)
    assert (one, four) == (1, 4)
    torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-6)
    with pytest.raises(UserError, match="not even one image"):
        weights(0)


def test_hidden_labels_are_a_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small(training__steps=40, training__batch=50, training__label_dropout=0.3)
    digits = recipe.data.load()
    state = recipe.build_state(digits.shape, 10, "cpu")
    seen: list[Tensor] = []
    forward = state.model.forward

    def spy(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        seen.append(label)
        return forward(x, t, label)

    monkeypatch.setattr(state.model, "forward", spy)
    list(train(state, digits, recipe.training))
    assert float((torch.cat(seen) == -1).float().mean()) == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 100.0])
def test_gradients_are_clipped_to_the_norm(max_norm: float) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(3, 4)), torch.nn.Parameter(torch.zeros(5)), torch.nn.Parameter(torch.zeros(2))]
    torch.manual_seed(0)
    gradients = [torch.randn(3, 4), torch.randn(5)]
    for p, g in zip(parameters, gradients, strict=False):
        p.grad = g.clone()
    norm = float(torch.cat([g.flatten() for g in gradients]).norm())
    assert float(clip_gradients(parameters, max_norm)) == pytest.approx(norm, rel=1e-6)
    scale = max_norm / norm if 0 < max_norm < norm else 1.0
    for p, g in zip(parameters, gradients, strict=False):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, g * scale, rtol=1e-5, atol=1e-7)
