"""Muon: its steps are orthogonal, as large as AdamW's, and torch.optim.Muon's own where that takes the weights."""

import pytest
import torch
from torch import nn

from unnoise.networks.unet import Layer, UNetConfig
from unnoise.training.optimizers import (
    NAMES,
    Muon,
    _newton_schulz,
    _newton_schulz_by_products,
    build_optimizers,
    orthogonalize,
    split_parameters,
)


def test_muon_moves_by_orthogonal_matrices() -> None:
    torch.manual_seed(0)
    for shape in ((1, 16, 48), (1, 48, 16), (5, 24, 27)):
        singular = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
        assert singular.min() > 0.6 and singular.max() < 1.3
    weight = nn.Parameter(torch.zeros(8, 32))
    weight.grad = torch.randn(8, 32)
    Muon([weight], lr=0.5).step()
    rms = float(weight.detach().square().mean().sqrt())  # as AdamW's step: 0.2 times the rate, all in all
    assert rms == pytest.approx(0.5 * 0.2, rel=0.25) and weight.grad is not None


@pytest.mark.parametrize("noise", [1.0, 1e-2, 1e-5])
def test_products_of_polynomials_are_the_iterations_themselves(noise: float) -> None:
    """Also where nearly all of a gradient is one direction, and singular values of the rest are lost in rounding."""
    torch.manual_seed(0)
    g = torch.randn(3, 24, 1) @ torch.randn(3, 1, 200) + noise * torch.randn(3, 24, 200)
    x = g / torch.linalg.matrix_norm(g, keepdim=True)
    exact = _newton_schulz(x.double())
    assert float((_newton_schulz_by_products(x) - exact).norm() / exact.norm()) < 2e-3  # in bfloat16 it would be 0.1


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (32, 32)])
def test_muon_is_torchs_on_matrices(shape: tuple[int, int]) -> None:
    """Five steps beside torch.optim.Muon, whose Newton-Schulz iterations run in bfloat16: hence the tolerance."""
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    own = Muon([ours], lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        own.step()
        reference.step()
    difference, moved = (ours - theirs).detach().norm(), (theirs - start).detach().norm()
    assert float(difference / moved) < 0.02


def test_first_and_last_convolution_are_not_hidden() -> None:
    convolutions = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 1, 3))
    hidden, others = split_parameters(convolutions)
    assert [p.shape for p in hidden] == [convolutions[1].weight.shape] and len(others) == 5


def test_layers_that_embed_time_and_labels_are_not_hidden() -> None:
    network = UNetConfig(widths=(16,), blocks=1, embedding=16, attention_tokens=64).build(1, (8, 8), 3)
    hidden, others = ({id(p) for p in part} for part in split_parameters(network))
    embeds = [p for name, p in network.named_parameters() if name.startswith(("time.", "label.", "augment."))]
    assert len(embeds) == 6 and {id(p) for p in embeds} <= others
    assert {id(m.block.modulate.weight) for m in network.modules() if isinstance(m, Layer)} <= hidden


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_moves_every_parameter_once(name: str) -> None:
    """Each parameter belongs to one optimizer, and a step lowers the loss."""
    torch.manual_seed(0)
    network = UNetConfig(widths=(16,), blocks=1, embedding=16, attention_tokens=0).build(1, (8, 8), 0)
    optimizers = build_optimizers(name, network, 1e-3, 0.99, 0.0)
    owned = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in network.parameters())
    x, c, target = torch.randn(8, 1, 8, 8), torch.zeros(8), torch.randn(8, 1, 8, 8)
    losses = []
    for _ in range(30):
        loss = (network(x, c) - target).square().mean()
        network.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
