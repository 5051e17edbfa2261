"""The notebook's network against its published size and names, and against a plain implementation."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from unnoise.networks.simple_unet import SimpleUnetConfig


def test_simple_unet_is_the_notebooks() -> None:
    """62,438,883 parameters, and exactly the names that its weights in the wild have."""
    with torch.device("meta"):
        network = SimpleUnetConfig().build(3, (64, 64), 0)
    assert sum(p.numel() for p in network.parameters()) == 62_438_883
    names = {"time_mlp.1", "conv0", "output"}
    layers = ["time_mlp", "conv1", "transform", "conv2", "bnorm1", "bnorm2"]
    names |= {f"{side}.{k}.{layer}" for side in ("downs", "ups") for k in range(4) for layer in layers}
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
