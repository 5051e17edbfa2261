"""Layers against PyTorch's own, and what runs on a CPU against what runs on a GPU."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from unnoise.networks import layers
from unnoise.networks.layers import Attention, Dropout, Style, attend


class OnGPU(Tensor):
    """A tensor that says it lies on a GPU: layers take their GPU's path with it, here computed on the CPU."""

    is_cuda: Any = True


def on_gpu(x: Tensor) -> Tensor:
    return x.as_subclass(OnGPU)


@pytest.mark.parametrize(("heads", "tokens", "size"), [(1, 1, 8), (2, 16, 32), (3, 49, 5), (1, 64, 64)])
def test_attend_is_scaled_dot_product_attention(heads: int, tokens: int, size: int) -> None:
    """Value and gradients, to 1e-5."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, tokens, size, requires_grad=True) for _ in range(3))
    weight = torch.randn(2, heads, tokens, size)
    ours, theirs = attend(q, k, v), functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    gradients = [torch.autograd.grad((out * weight).sum(), (q, k, v)) for out in (ours, theirs)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_attention_is_the_same_on_a_gpus_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradient, to 1e-5, with weights that are not zero; a GPU takes the fused kernel."""
    torch.manual_seed(0)
    layer, x = Attention(64, Style()), torch.randn(2, 64, 5, 3)
    for p in layer.parameters():
        torch.nn.init.normal_(p, std=0.2)
    written_out: list[bool] = []

    def recorded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        written_out.append(q.is_cuda)
        return attend(q, k, v)

    monkeypatch.setattr(layers, "attend", recorded)
    found = []
    for place in (torch.clone, on_gpu):
        y = place(x).requires_grad_()
        out = layer(y)
        found.append((out, torch.autograd.grad(out.square().sum(), y)[0]))
    assert written_out == [False]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other.as_subclass(Tensor), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", range(16, 272, 16))
def test_attention_takes_every_width_that_a_unet_may_have(width: int) -> None:
    """Its heads divide the width, and it begins as the identity."""
    x = torch.randn(1, width, 2, 2)
    assert torch.equal(Attention(width, Style())(x), x)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("place", [torch.clone, on_gpu], ids=["cpu", "gpu"])
def test_dropout_has_its_rate_and_keeps_the_mean(place: Any, p: float) -> None:
    """On either path: zeros at the rate p, the mean of the input within four standard errors, no two values alike."""
    torch.manual_seed(0)
    n = 2**20
    x = place(torch.ones(16, 16, 64, 64).contiguous(memory_format=torch.channels_last))
    out = Dropout(p).train()(x).as_subclass(Tensor)
    error = (p * (1 - p) / n) ** 0.5
    dropped = (out == 0).double()
    assert float(dropped.mean()) == pytest.approx(p, abs=4 * error + 0.5 / 256)  # a CPU's rate is a multiple of 1/256
    assert float(out.double().mean()) == pytest.approx(1, abs=4 * error / (1 - p))
    assert float(out.max()) == pytest.approx(1 / (1 - p), rel=0.02)
    for shift in (1, 8, 64):  # neighbours in memory are dropped independently: eight of them share a random number
        flat = dropped.permute(0, 2, 3, 1).flatten()
        both = float((flat[shift:] * flat[:-shift]).mean())
        assert both == pytest.approx(float(dropped.mean()) ** 2, abs=8 * error)


def test_dropout_on_a_gpu_is_torchs() -> None:
    """The same random numbers give functional.dropout's result, to the last bit."""
    x, p = torch.randn(4, 8, 5, 5), 0.3
    torch.manual_seed(3)
    ours = Dropout(p).train()(on_gpu(x)).as_subclass(Tensor)
    torch.manual_seed(3)
    assert torch.equal(ours, functional.dropout(x, p))


@pytest.mark.parametrize("place", [torch.clone, on_gpu], ids=["cpu", "gpu"])
def test_dropout_is_for_training_alone(place: Any) -> None:
    """In use, and at a rate of 0, it changes nothing."""
    x = place(torch.randn(2, 3, 4, 4))
    assert Dropout(0.5).eval()(x) is x and Dropout(0.0).train()(x) is x
