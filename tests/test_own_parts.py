"""Parts of a user's own: what breaks their contract is refused by name, and recipes keep what they were made with."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unnoise as un
from tests.conftest import small
from unnoise.networks.base import ModuleConfig
from unnoise.recipe import Recipe, override
from unnoise.registry import from_json, to_json
from unnoise.utils.errors import UserError

DIGITS = "digits"


class Net(nn.Module):
    """One convolution; `out` says what it returns."""

    def __init__(self, channels: int = 1, out: str = "same", slope: float = 0.1) -> None:
        super().__init__()
        self.conv, self.out, self.slope = nn.Conv2d(channels, channels, 3, padding=1), out, slope

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Any:
        y = self.conv(x)
        return {"same": y, "tuple": (y,), "one": y[:1], "smaller": y[..., 1:]}[self.out]


@dataclass(frozen=True)
class MeanObjective(un.Objective):
    def __call__(self, model: Any, batch: Any, loss: Any, progress: float, teacher: Any) -> Tensor:
        return un.diffusion_loss(model, batch.x, batch.t, batch.noise).mean()


@dataclass(frozen=True)
class MeanLoss(un.Loss):
    def __call__(self, error: Tensor) -> Tensor:
        return error.square().mean()


@dataclass(frozen=True)
class Thousands(un.TrainingTimes):
    def __call__(self, u: Tensor, schedule: un.Schedule) -> Tensor:
        return 1000 * u


@dataclass(frozen=True)
class PlainVelocity(un.Target):
    """Coefficients as a plain tuple."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Any:
        return tuple(un.Velocity().coefficients(alpha, sigma))


def fit(denoiser: un.Denoiser, **config: Any) -> Iterator[Any]:
    return un.fit(denoiser, DIGITS, steps=1, config=un.TrainingConfig(batch=4, precision="fp32", **config))


@pytest.mark.parametrize(("out", "said"), [("tuple", "not a tuple"), ("one", "(1, 1, 8, 8)"), ("smaller", "(4, 1, 8, 7)")])
def test_a_network_must_return_what_it_is_given(out: str, said: str) -> None:
    with pytest.raises(UserError, match="the network Net must return a tensor like its x") as e:
        list(fit(un.NetworkDenoiser(Net(out=out), un.Cosine(), un.Velocity())))
    assert said in str(e.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"objective": MeanObjective()}, r"the objective MeanObjective must give a number an image, \(4,\), not \(\)"),
        ({"loss": MeanLoss()}, "the loss MeanLoss must be elementwise"),
        ({"times": Thousands()}, r"the training times Thousands must be a number in \[0, 1\] for each u: .* from 10 to 990"),
    ],
)
def test_parts_of_training_must_keep_their_contract(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        list(fit(un.NetworkDenoiser(Net(), un.Cosine(), un.Velocity()), **config))


@pytest.mark.parametrize("schedule", [un.Flow(), un.Linear(zero_terminal_snr=True)])
def test_epsilon_can_not_be_learned_where_alpha_is_0(schedule: un.Schedule) -> None:
    with pytest.raises(UserError, match="can't start from pure noise"):
        list(fit(un.NetworkDenoiser(Net(), schedule, un.Epsilon())))


def test_a_target_may_give_a_plain_tuple() -> None:
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.3, 0.7])
    net = Net()
    own, ours = (un.NetworkDenoiser(net, un.Cosine(), target) for target in (PlainVelocity(), un.Velocity()))
    assert isinstance(un.Velocity().coefficients(t, t), un.Coefficients)
    assert torch.equal(own(x, t), ours(x, t)) and torch.equal(own.output_scale(t), ours.output_scale(t))


def test_labels_that_the_network_does_not_have_are_refused() -> None:
    """They became other classes."""
    denoiser = un.NetworkDenoiser(un.UNetConfig(widths=(16,)).build(1, (8, 8), classes=5), un.Cosine(), un.Velocity()).eval()
    for label in ([5, 0], [-2, 0]):
        with pytest.raises(UserError, match="labels are 0 to 4, or -1 for none"):
            un.sample(denoiser, (2, 1, 8, 8), label=torch.tensor(label))
    x = un.sample(denoiser, (2, 1, 8, 8), "ddim", 2, label=torch.tensor([4, -1]))
    assert torch.equal(x, un.sample(denoiser, (2, 1, 8, 8), un.DDIM(), 2, label=torch.tensor([4, -1])))
    with pytest.raises(UserError, match="unknown sampler 'dim'"):
        un.sample(denoiser, (2, 1, 8, 8), "dim")
    with pytest.raises(UserError, match="one an image"):
        un.sample(denoiser, (2, 1, 8, 8), label=torch.tensor([1]))
    with pytest.raises(UserError, match="10 classes, and the network 5"):
        list(fit(denoiser))


def test_a_recipe_keeps_the_defaults_of_a_network() -> None:
    """So that a run is what it was when they change."""
    recipe = Recipe(network=ModuleConfig(Net, (("out", "same"),)))
    written = to_json(recipe)
    assert written["network"] == {"name": f"{__name__}:Net", "out": "same", "slope": 0.1}
    written["network"]["slope"] = 0.3
    found = from_json(Recipe, written)
    built = found.network.build(1, (8, 8), 0)
    assert isinstance(built, Net) and built.slope == 0.3


@pytest.mark.parametrize(("name", "value"), [("training.extra_ema", 0.05), ("network.widths", 16)])
def test_one_number_is_a_list_of_one(name: str, value: float) -> None:
    assert override(small(), {name: value}) == override(small(), {name: [value]})
