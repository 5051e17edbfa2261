"""Students in the training loop: whatever a step is computed in, its gradients are the same."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import small
from unnoise.data.dataset import split
from unnoise.recipe import override
from unnoise.training.batches import Batches
from unnoise.training.loop import TrainState, compute_gradients, train
from unnoise.training.matching import DistributionMatching
from unnoise.training.objective import Teacher
from unnoise.training.objectives import OBJECTIVES
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import Runtime


def gradients(objective: str, micro_batches: int = 1, bf16: bool = False, **changes: Any) -> dict[str, Tensor]:
    """Those of the model and of its critic in one step of 12 digits."""
    recipe = small(training__objective=objective, training__batch=12, **changes)
    images = split(recipe.data.load(), 0.1).train
    state = recipe.build_state(images.shape, 10, "cpu")
    for model in state.trained.values():
        generator = torch.Generator().manual_seed(1)
        for p in model.parameters():  # convolutions that begin at 0 would have no gradient behind them
            p.data += 0.05 * torch.randn(p.shape, generator=generator)
    teacher = Teacher(state.average, state.critic) if recipe.training.objective.needs_teacher else None
    batch = Batches(images, recipe.training, state.model.schedule)(0)
    compute_gradients(state.model, batch, recipe.training, Runtime("cpu", bf16), micro_batches, teacher=teacher)
    return {f"{n}.{name}": p.grad for n, m in state.trained.items() for name, p in m.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("objective", ["consistency", "matching"])
def test_micro_batches_have_the_same_gradient(objective: str) -> None:
    whole, pieces = gradients(objective), gradients(objective, micro_batches=5)
    assert whole.keys() == pieces.keys() and ("critic.network.conv_in.weight" in whole) == (objective == "matching")
    for name, gradient in whole.items():
        torch.testing.assert_close(pieces[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_weight_has_a_gradient_in_bfloat16(objective: str) -> None:
    """Also where the same weights were called without gradients before, in the same step."""
    exact, rounded = gradients(objective), gradients(objective, bf16=True)
    assert exact.keys() == rounded.keys()
    for name, gradient in exact.items():
        error = (rounded[name] - gradient).norm() / gradient.norm().clamp(min=1e-3)
        assert float(error) < 0.2, (name, float(error))


def test_activations_are_computed_again_for_the_critic_too() -> None:
    plain, again = gradients("matching"), gradients("matching", training__activation_checkpointing=True)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-7)


def test_what_can_not_be_trained() -> None:
    recipe = small(training__objective="matching", training__sharded=True, training__steps=1)
    images = split(recipe.data.load(), 0.1).train
    state: TrainState = recipe.build_state(images.shape, 10, "cpu")
    with pytest.raises(UserError, match="beside a critic, which can't be sharded"):
        next(train(state, images, recipe.training, teacher=state.average))
    with pytest.raises(UserError, match="DistributionMatching learns from a teacher here"):
        next(train(state, images, recipe.training))
    simple = {"network": "simple-unet", "network.widths": [16, 32], "data.labels": False}
    with pytest.raises(UserError, match="takes no augmentation labels, by which a critic knows the call"):
        override(small(training__objective="matching"), simple)
    override(small(training__objective=DistributionMatching(tell_critic=False)), simple)
