r"""Power-function EMA: averages of the weights along training, which sampling uses (Karras et al. 2024, arXiv 2312.02696).

The average after step t of width sigma_rel gives the weights of step tau <= t the proportion

    p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1)                 (equation 121, gamma from sigma_rel: algorithm 2)

and so always spans the same part of the training, whatever its length. From stored averages others are made afterwards.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unnoise.utils.errors import UserError


class PowerEMA:
    """One average: after step n it moves by 1 - (1 - 1/n)^(gamma + 1) towards the weights (equation 127).

    sigma_rel = 0 keeps the weights as they are. Buffers (batch statistics) are copied. `fresh` begins the average at the
    source's weights; without it the average goes on from where it is.
    """

    def __init__(self, source: nn.Module, average: nn.Module, sigma_rel: float, fresh: bool = True) -> None:
        self.average, self.sigma_rel = average.requires_grad_(False), sigma_rel
        self.gamma = power_gamma(sigma_rel) if sigma_rel else 0.0
        self._mine, self._theirs = ([p.data for p in m.parameters()] for m in (average, source))
        self._buffers = list(zip(average.buffers(), source.buffers(), strict=True))
        if fresh:
            average.load_state_dict(source.state_dict())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step`, counted from 1."""
        weight = 1 - (1 - 1 / step) ** (self.gamma + 1) if self.sigma_rel else 1.0
        torch._foreach_lerp_(self._mine, self._theirs, weight)
        for mine, theirs in self._buffers:
            mine.copy_(theirs)


def power_gamma(sigma_rel: float) -> float:
    """gamma with sqrt((g + 1) / ((g + 2)^2 (g + 3))) = sigma_rel: the largest real root of their algorithm 2."""
    s = sigma_rel**-2
    return float(np.roots([1, 7, 16 - s, 12 - s]).real.max())


def overlap(t: np.ndarray, gamma: np.ndarray, s: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """The integral of p_(t, gamma) p_(s, delta) over all steps, elementwise: what equation 155 comes to."""
    shorter = np.minimum(t, s)
    # Powers of ratios: powers of steps overflow.
    product = (shorter / t) ** gamma * (shorter / s) ** delta * shorter / (t * s)
    found: np.ndarray = (gamma + 1) * (delta + 1) / (gamma + delta + 1) * product
    return found


def combination(stored: Sequence[tuple[int, float]], step: int, sigma_rel: float) -> np.ndarray:
    """The weight of each stored average (its step and width) in the one after `step` of width `sigma_rel`: algorithm 3.

    (N,) float64 that sum to 1 and make the least squared difference to the profile wanted.
    """
    t = np.array([float(at) for at, _ in stored])
    gamma = np.array([power_gamma(width) for _, width in stored])
    own = overlap(t[:, None], gamma[:, None], t[None], gamma[None])
    asked = overlap(t, gamma, np.full_like(t, step), np.full_like(t, power_gamma(sigma_rel)))
    mixed: np.ndarray = np.linalg.lstsq(own, asked, rcond=1e-14)[0]
    mixed /= mixed.sum()
    return mixed


def snapshot_name(step: int, sigma_rel: float) -> str:
    return f"{step:06d}-{sigma_rel:g}.safetensors"


def reconstruct(folder: Path, sigma_rel: float, step: int | None = None) -> dict[str, Tensor]:
    """The average of width `sigma_rel` after `step` (None: the last stored), from the snapshots in `folder`.

    Raises UserError where there are fewer than two, or where the width lies outside what they can make.
    """
    found = {path: (int(m[1]), float(m[2])) for path in sorted(folder.glob("*.safetensors"))
             if (m := re.fullmatch(r"(\d+)-([\d.]+)\.safetensors", path.name))}  # fmt: skip
    if len(found) < 2:
        raise UserError(f"'{folder}' holds {len(found)} stored averages, and another needs at least two: "
                        "train with training.snapshots 16 and training.extra_ema 0.05")  # fmt: skip
    narrowest = min(width for _, width in found.values())
    if not narrowest <= sigma_rel < 0.28:
        raise UserError(f"the stored averages make widths from {narrowest:g} up to 0.28, not {sigma_rel:g}")
    ends = min(at for at, _ in found.values()), max(at for at, _ in found.values())
    last = ends[1] if step is None else step
    usable = {path: at for path, at in found.items() if at[0] <= last}
    if not ends[0] <= last <= ends[1] or len(usable) < 2:
        raise UserError(f"averages are stored of steps {ends[0]} to {ends[1]}, and step {last} needs two of them up to there")
    weights = combination(list(usable.values()), last, sigma_rel)
    mixed: dict[str, Tensor] = {}
    for path, weight in zip(usable, weights, strict=True):
        for name, value in _load(path).items():
            if value.is_floating_point():
                mixed[name] = mixed.get(name, torch.zeros_like(value, dtype=torch.float64)) + weight * value.double()
            else:
                mixed[name] = value  # a count: the last one's
    return {name: value.float() if value.is_floating_point() else value for name, value in mixed.items()}


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as e:  # safetensors raises its own kinds
        raise UserError(f"'{path}' is damaged ({e}): remove it, and the others will do") from e
