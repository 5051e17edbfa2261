import math
import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from unnoise.networks.layers import ACTIVATIONS, NORMS, Attention, Style
from unnoise.networks.simple_unet import SimpleUnetConfig
from unnoise.networks.unet import UNetConfig
from unnoise.registry import NETWORKS
from unnoise.utils.errors import UserError


def test_simple_unet_is_the_notebooks() -> None:
    """62,438,883 parameters, and exactly the names that its weights in the wild have."""
    with torch.device("meta"):
        network = SimpleUnetConfig().build(3, (64, 64), 0)
    assert sum(p.numel() for p in network.parameters()) == 62_438_883
    names = {"time_mlp.1", "conv0", "output"}
    parts = ["time_mlp", "conv1", "transform", "conv2", "bnorm1", "bnorm2"]
    names |= {f"{way}.{k}.{part}" for way in ("downs", "ups") for k in range(4) for part in parts}
    expected = {f"{n}.{leaf}" for n in names for leaf in ("weight", "bias")}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    expected |= {f"{n}.{leaf}" for n in names if "bnorm" in n for leaf in statistics}
    state = network.state_dict()
    assert set(state) == expected
    assert state["ups.0.conv1.weight"].shape == (512, 2048, 3, 3)
    assert state["ups.3.transform.weight"].shape == (64, 64, 4, 4)
    assert state["output.weight"].shape == (3, 64, 1, 1)


def test_simple_unet_against_a_plain_implementation() -> None:
    """The same weights, written out from the description as one function."""
    torch.manual_seed(0)
    network = SimpleUnetConfig(widths=(4, 8, 16)).build(3, (8, 8), 0).double().eval()
    w = network.state_dict()

    def norm(x: Tensor, n: str) -> Tensor:
        return functional.batch_norm(x, w[f"{n}.running_mean"], w[f"{n}.running_var"], w[f"{n}.weight"], w[f"{n}.bias"])

    def block(x: Tensor, time: Tensor, n: str, up: bool) -> Tensor:
        h = norm(functional.conv2d(x, w[f"{n}.conv1.weight"], w[f"{n}.conv1.bias"], padding=1).relu(), f"{n}.bnorm1")
        h = h + functional.linear(time, w[f"{n}.time_mlp.weight"], w[f"{n}.time_mlp.bias"]).relu()[..., None, None]
        h = norm(functional.conv2d(h, w[f"{n}.conv2.weight"], w[f"{n}.conv2.bias"], padding=1).relu(), f"{n}.bnorm2")
        resample = functional.conv_transpose2d if up else functional.conv2d
        return resample(h, w[f"{n}.transform.weight"], w[f"{n}.transform.bias"], stride=2, padding=1)

    x, t = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.tensor([3.0, 250.0], dtype=torch.float64)
    angles = t[:, None] * torch.tensor([math.exp(-k * math.log(10000) / 15) for k in range(16)], dtype=torch.float64)
    features = torch.cat([angles.sin(), angles.cos()], 1)
    time = functional.linear(features, w["time_mlp.1.weight"], w["time_mlp.1.bias"]).relu()
    h = functional.conv2d(x, w["conv0.weight"], w["conv0.bias"], padding=1)
    first = block(h, time, "downs.0", False)
    second = block(first, time, "downs.1", False)
    h = block(torch.cat([second, second], 1), time, "ups.0", True)
    h = block(torch.cat([h, first], 1), time, "ups.1", True)
    expected = functional.conv2d(h, w["output.weight"], w["output.bias"])
    torch.testing.assert_close(network(x, t), expected, rtol=1e-6, atol=1e-6)  # frequencies are kept in float32


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_network_contract(name: str, classes: int) -> None:
    """Same shape out, each image by itself, a gradient to every parameter in use; any height and width that fits."""
    torch.manual_seed(0)
    network = NETWORKS[name]().build(1, (16, 32), classes).eval()
    for p in network.parameters():  # a branch that begins at zero would hide what is behind it
        torch.nn.init.normal_(p, std=0.05)
    told = {"augment_labels": torch.randn(3, 6)} if NETWORKS[name].takes_augmentation else {}
    x, c, label = torch.randn(3, 1, 16, 32), torch.tensor([0.1, 1.0, 2.0]), torch.tensor([0, 1, 2]) if classes else None
    out = network(x, c, label)
    assert out.shape == x.shape
    if told:
        torch.testing.assert_close(network(x, c, label, torch.zeros(3, 6)), out)
        assert not torch.allclose(network(x, c, label, **told), out)
    torch.testing.assert_close(out[1:2], network(x[1:2], c[1:2], None if label is None else label[1:2]), rtol=1e-3, atol=1e-3)
    if classes and NETWORKS[name].takes_labels:
        torch.testing.assert_close(network(x, c), network(x, c, torch.full((3,), -1)))
        assert not torch.allclose(network(x, c), out)
    network(x, c, label, **told).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_every_style_learns(norm: str, activation: str, residual: bool) -> None:
    """Its output moves towards a target, and to every parameter there is a way."""
    torch.manual_seed(0)
    style = Style(norm, activation, residual)
    network = UNetConfig(widths=(16, 32), blocks=1, embedding=16, style=style, attention_tokens=0).build(1, (8, 8), 0)
    assert not any(isinstance(m, Attention) for m in network.modules())
    x, c, y = torch.randn(4, 1, 8, 8), torch.zeros(4), torch.randn(4, 1, 8, 8)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (network(x, c) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0], losses
    seen = [p for n, p in network.named_parameters() if n != "augmentation.weight"]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in seen)


@pytest.mark.parametrize("width", range(16, 272, 16))
def test_attention_takes_every_width_that_a_unet_may_have(width: int) -> None:
    x = torch.randn(1, width, 2, 2)
    assert Attention(width, Style())(x).shape == x.shape


@pytest.mark.parametrize("name", NETWORKS)
def test_a_size_that_does_not_fit_names_one_that_does(name: str) -> None:
    with pytest.raises(UserError, match="multiples of") as e:
        NETWORKS[name]().build(1, (17, 31), 0)
    found = re.search(r"--size (\d+),(\d+)", str(e.value))
    assert found
    NETWORKS[name]().build(1, (int(found[1]), int(found[2])), 0)
