r"""Optimizers and learning-rate schedules by name, and Muon for convolutions.

Muon moves hidden weights by the orthogonal matrix nearest to their momentum (Jordan et al. 2024, Liu et al. 2502.16982):

    M <- mu M + (1 - mu) G,    U = (1 - mu) G + mu M,    W <- (1 - eta lambda) W - eta 0.2 sqrt(max(out, in)) orth(U)

orth(U) has U's singular vectors and all singular values near 1. The factor makes the step as large as AdamW's, so that
one learning rate serves both. torch.optim.Muon is the same for matrices and refuses convolutions.
"""

import inspect
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unnoise.networks.layers import EmbeddingLinear

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's: steepest at 0, and within 0.7 .. 1.2 after five iterations
ITERATIONS = 5
MOMENTUM = 0.95
NAMES = ("adam", "adamw", "muon")
LR_SCHEDULES: dict[str, Callable[[float, float], float]] = {  # of the fraction of steps left
    "constant": lambda left, decay: 1.0,
    "trapezoid": lambda left, decay: min(1.0, left / decay) if decay else 1.0,
    "cosine": lambda left, decay: (1 - math.cos(math.pi * left)) / 2,
}


def build_optimizers(
    name: str, model: nn.Module, learning_rate: float, beta2: float, weight_decay: float, scale: float = 1.0
) -> list[torch.optim.Optimizer]:
    """The optimizers of this name that share the parameters of a model: one or, for muon, Muon and AdamW.

    `scale` is by how much their learning rate is to be multiplied when it is set.
    """
    adam = _without_dynamo(torch.optim.Adam if name == "adam" else torch.optim.AdamW)
    hidden, others = split_parameters(model) if name == "muon" else ([], list(model.parameters()))
    # Fused: half the time of a step that loops over tensors.
    built: list[torch.optim.Optimizer] = [
        adam(others, lr=learning_rate, betas=(0.9, beta2), weight_decay=weight_decay, fused=True)
    ]
    if hidden:
        built.append(Muon(hidden, learning_rate, weight_decay))
    for group in (g for optimizer in built for g in optimizer.param_groups):
        group["scale"] = scale
    return built


def _without_dynamo(optimizer: type[torch.optim.Adam]) -> type[torch.optim.Adam]:
    """The same without wrappers for `torch.compile`, which import it in the first step: as slow as importing torch itself."""

    class Eager(optimizer):  # type: ignore[misc, valid-type]
        add_param_group = inspect.unwrap(optimizer.add_param_group)
        step = torch.no_grad()(inspect.unwrap(optimizer.step))

    return Eager


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Hidden weights, of two dimensions or more, and all other parameters.

    The first and the last convolution, which read and write images, and what embeds time and labels are not hidden.
    """
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    outer = {id(m.weight) for m in convolutions[:1] + convolutions[-1:]}
    outer |= {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | EmbeddingLinear)}
    hidden = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in outer]
    others = [p for p in model.parameters() if p.ndim < 2 or id(p) in outer]
    return hidden, others


class Muon(torch.optim.Optimizer):
    """Muon for weights (out, ...), whose further dimensions are taken as one. Weights of one shape are updated together.

    A step changes nothing where the attribute `found_inf`, a tensor (), is 1: as in torch's fused optimizers.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)

    def __init__(self, parameters: list[nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            of_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    of_shape.setdefault(p.shape, []).append(p)
            for weights in of_shape.values():
                self._update(weights, group["lr"], group["weight_decay"])

    def _update(self, weights: list[Tensor], lr: float, weight_decay: float) -> None:
        """A step for weights of one shape."""
        for p in weights:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        gradients, momenta = [p.grad for p in weights if p.grad is not None], [self.state[p]["momentum"] for p in weights]
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        if found_inf is not None:  # a gradient equal to the momentum leaves it as it is
            gradients = list(torch.where(found_inf > 0, torch.stack(momenta), torch.stack(gradients)).unbind())
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        updates = orthogonalize(torch.stack([u.flatten(1) for u in torch._foreach_lerp(gradients, momenta, MOMENTUM)]))
        scale = -0.2 * max(updates.shape[1:]) ** 0.5 * lr
        decay: float | Tensor = lr * weight_decay
        if found_inf is not None:
            updates, decay = updates * (1 - found_inf), decay * (1 - found_inf)
        torch._foreach_mul_(weights, 1 - decay)
        torch._foreach_add_(weights, [u.reshape(p.shape).to(p) for p, u in zip(weights, updates, strict=True)], alpha=scale)


def orthogonalize(g: Tensor) -> Tensor:
    """The orthogonal matrices nearest to g (N, out, in), approximately, by Newton-Schulz iterations."""
    x = g.to(torch.bfloat16 if g.is_cuda else torch.float32)
    tall = x.shape[-2] > x.shape[-1]
    x = (x.mT if tall else x) / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    # Products need more digits than bfloat16 has, and pay for many columns; weights in shards have no such products.
    many_columns = x.shape[-1] >= 4 * x.shape[-2] and not x.is_cuda and type(x) is Tensor
    x = _newton_schulz_by_products(x) if many_columns else _newton_schulz(x)
    nearest: Tensor = (x.mT if tall else x).to(g)
    return nearest


def _newton_schulz(x: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """x <- (a + b s + c s^2) x with s = x x^T, again and again."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(iterations):
        s = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(s, s, s, beta=b, alpha=c), x, beta=a)
    return x


def _newton_schulz_by_products(x: Tensor) -> Tensor:
    """The same: polynomials p of s commute, so that s <- p s p, and x is multiplied once, by all of them.

    Differs by up to 1e-3 where singular values of x span many orders of magnitude; bfloat16 by 0.1.
    """
    a, b, c = NEWTON_SCHULZ
    s = x @ x.mT
    identity = torch.eye(len(s[0]))
    product = identity
    for _ in range(ITERATIONS):
        p = a * identity + torch.baddbmm(s, s, s, beta=b, alpha=c)
        product, s = p @ product, p @ s @ p
    return product @ x
