"""The U-Net in every style: it learns, and a gradient reaches every parameter."""

import pytest
import torch

from unnoise.networks.layers import ACTIVATIONS, NORMS, Attention, Style
from unnoise.networks.unet import UNetConfig


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_every_style_learns(norm: str, activation: str, residual: bool) -> None:
    """Its output moves towards a target, and a gradient reaches every parameter in use."""
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
    used = [p for n, p in network.named_parameters() if n != "augment.weight"]  # no augmentation labels were given
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in used)
