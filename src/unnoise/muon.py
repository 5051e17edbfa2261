r"""Muon: hidden weights move by the orthogonal matrix nearest to their momentum (Jordan et al. 2024, Liu et al. 2502.16982).

    M <- mu M + (1 - mu) G,    U = (1 - mu) G + mu M,    W <- (1 - eta lambda) W - eta 0.2 sqrt(max(out, in)) orth(U)

orth(U) has U's singular vectors and all singular values near 1. The factor makes the step as large as AdamW's is, so that
one learning rate serves both.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's: steepest at 0, and within 0.7 .. 1.2 after five rounds
ROUNDS = 5
MOMENTUM = 0.95


def split_weights(model: nn.Module) -> list[dict[str, Any]]:
    """Two parameter groups: hidden weights, of two dimensions or more, and all others.

    The convolutions that come first and last meet pictures, and embeddings are no maps: they are not hidden.
    """
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    outer = {id(m.weight) for m in convolutions[:1] + convolutions[-1:]}
    outer |= {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    hidden = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in outer]
    others = [p for p in model.parameters() if p.ndim < 2 or id(p) in outer]
    return [{"params": hidden, "hidden": True}, {"params": others}]


class Muon(torch.optim.AdamW):
    """Muon for the groups marked `hidden`, AdamW for the others."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"] if group.get("hidden") else ():
                if p.grad is not None:
                    self._move(p, p.grad, group)
                    p.grad = None  # nothing is left for AdamW to do
        super().step(closure)

    def _move(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"], state["momentum"] = torch.zeros(()), torch.zeros_like(p)
        state["step"] += 1
        state["momentum"].lerp_(g, 1 - MOMENTUM)
        move = orthogonal(g.lerp(state["momentum"], MOMENTUM))
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(move, alpha=-0.2 * max(p.shape[0], p[0].numel()) ** 0.5 * group["lr"])


def orthogonal(g: Tensor) -> Tensor:
    """The orthogonal matrix nearest to g (out, ...), roughly, its further dimensions taken as one; by Newton and Schulz."""
    x = g.flatten(1).to(torch.bfloat16 if g.is_cuda else torch.float32)
    tall = x.shape[0] > x.shape[1]
    x = (x.T if tall else x) / (x.norm() + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(ROUNDS):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    nearest: Tensor = (x.T if tall else x).reshape(g.shape).to(g)
    return nearest
