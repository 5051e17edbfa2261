"""The held-out loss, and the score of images unlike the training images."""

import numpy as np
import torch

from tests.conftest import small
from unnoise.data.dataset import ImageDataset, split
from unnoise.evaluation.held_out import LEVELS, held_out_loss
from unnoise.evaluation.ood import ood_score
from unnoise.runs.trainer import Trainer
from unnoise.training.loop import train


def test_held_out_loss_is_fixed_and_disturbs_nothing() -> None:
    """The same twice, rising with no draw of training; its mean is about the training loss on the same images."""
    recipe = small(training__steps=30)
    config = recipe.training
    parts = split(recipe.data.load(), 0.1)
    runs = []
    for measured in (False, True):
        state = recipe.build_state(parts.train.shape, 10, "cpu")
        for record in train(state, parts.train, recipe.training):
            if measured and record.step % 10 == 0:
                first = held_out_loss(state.average, parts.held_out, config.loss, config.times)
                assert first == held_out_loss(state.average, parts.held_out, config.loss, config.times)
        runs.append(record.loss)
    assert runs[0] == runs[1]
    assert len(first) == LEVELS and 0.5 < np.mean(first) / record.loss < 2


def test_unlike_images_score_higher(digits_run: Trainer) -> None:
    """About 1 on held-out digits, far more on stripes and noise; none on what is smaller than was trained on."""
    config, held_out = digits_run.config, digits_run.split.held_out
    digits_run.measure()
    curve = digits_run.folder.read_held_out_losses()
    assert curve is not None

    def score(x: torch.Tensor) -> float | None:
        return ood_score(digits_run.state.average, x, (8, 8), config.loss, config.times, curve[1][-1])

    own, noise = score(held_out.tensor()), score(torch.rand(16, 1, 8, 8) * 2 - 1)
    assert own is not None and noise is not None and 0.7 < own < 1.3 and noise > 2
    assert score(torch.zeros(1, 1, 7, 9)) is None


def test_few_images_are_spread_over_all(small_run: Trainer) -> None:
    """Images sorted by class, as folders are: a few of them still hold every class."""
    seen: list[torch.Tensor] = []

    class Watched(torch.nn.Module):
        schedule = small_run.state.average.schedule

        def forward(self, x_t: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
            assert label is not None
            seen.append(label)
            return x_t

        def output_scale(self, t: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(t)

    labels = np.repeat(np.arange(5), 40)
    images = ImageDataset(np.zeros((200, 8, 8, 1), np.uint8), labels, tuple("abcde"))
    config = small_run.config
    held_out_loss(Watched(), images, config.loss, config.times, max_images=10)  # type: ignore[arg-type]
    assert seen[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
