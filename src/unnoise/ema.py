"""An average of the weights along training: what sampling uses."""

import numpy as np
import torch
from torch import nn


class PowerEMA:
    """The power-function average (Karras et al. 2024, arXiv 2312.02696, equations 121 and 127).

    After step n the average moves by 1 - (1 - 1/n)^(gamma + 1) towards the weights, so that it always spans the same
    share of the training, whatever its length. gamma comes from the relative width `sigma_rel` (their algorithm 2);
    sigma_rel = 0 keeps the weights as they are. Buffers (batch statistics) are copied. `fresh` begins the average at the
    source's weights; without it the average goes on from where it is.
    """

    def __init__(self, source: nn.Module, average: nn.Module, sigma_rel: float, fresh: bool = True) -> None:
        self.average, self.sigma_rel = average.requires_grad_(False), sigma_rel
        self.gamma = power_gamma(sigma_rel) if sigma_rel else 0.0
        self._pairs = list(average.parameters()), list(source.parameters())
        self._buffers = list(average.buffers()), list(source.buffers())
        if fresh:
            average.load_state_dict(source.state_dict())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step`, counted from 1."""
        weight = 1 - (1 - 1 / step) ** (self.gamma + 1) if self.sigma_rel else 1.0
        torch._foreach_lerp_([p.data for p in self._pairs[0]], [p.data for p in self._pairs[1]], weight)
        for mine, theirs in zip(*self._buffers, strict=True):
            mine.copy_(theirs)


def power_gamma(sigma_rel: float) -> float:
    """gamma with sqrt((g + 1) / ((g + 2)^2 (g + 3))) = sigma_rel: the largest real root of their algorithm 2."""
    s = sigma_rel**-2
    return float(np.roots([1, 7, 16 - s, 12 - s]).real.max())
