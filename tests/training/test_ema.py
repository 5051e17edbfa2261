"""Averages of the weights: their width, and others made afterwards."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unnoise.training.ema import PowerEMA, combination, power_gamma, reconstruct, snapshot_name


def test_power_average_has_its_width() -> None:
    """The mean and spread of the weights that the average gives to each step: Karras et al. 2024, equation 127."""
    source, average = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    ema = PowerEMA(source, average, 0.1)
    n = 2000
    weights = np.zeros(n)
    for step in range(1, n + 1):
        share = 1 - (1 - 1 / step) ** (ema.gamma + 1)
        weights = weights * (1 - share)
        weights[step - 1] = share
        torch.nn.init.constant_(source.weight, step)
        ema.update(step)
    at = np.arange(1, n + 1)
    assert weights.sum() == pytest.approx(1)
    mean = (weights * at).sum()
    assert np.sqrt((weights * (at - mean) ** 2).sum()) / n == pytest.approx(0.1, rel=0.01)
    assert float(average.weight.detach()) == pytest.approx(mean, rel=1e-3)
    assert power_gamma(0.1) == pytest.approx(6.94, abs=0.01)


def test_others_are_made_afterwards(tmp_path: Path) -> None:
    """From 16 snapshots of two averages: any width between, at the end and earlier, against averages kept all along."""
    torch.manual_seed(0)
    n, wanted = 800, (0.05, 0.07, 0.15, 0.2)
    source = torch.nn.Linear(8, 8)
    kept = {w: PowerEMA(source, torch.nn.Linear(8, 8), w) for w in {0.05, 0.1, *wanted}}
    truth = {}
    for step in range(1, n + 1):
        with torch.no_grad():  # weights that drift and shake, as training's do
            source.weight.add_(torch.randn(8, 8), alpha=0.02).add_(0.002)
        for ema in kept.values():
            ema.update(step)
        if step % (n // 16) == 0:
            for width in (0.05, 0.1):
                save_file(kept[width].average.state_dict(), tmp_path / snapshot_name(step, width))
        if step in (n // 2, n):
            truth[step] = {w: kept[w].average.state_dict()["weight"].clone() for w in wanted}
    for step, averages in truth.items():
        for width, expected in averages.items():
            found = reconstruct(tmp_path, width, step)["weight"]
            error = (found - expected).norm() / (truth[n // 2][0.05] - truth[n // 2][0.2]).norm()
            assert error < 0.05, (step, width, float(error))
    stored = [(50 * k, w) for k in range(1, 17) for w in (0.05, 0.1)]
    alone = combination(stored, 800, 0.1)  # one that is stored is itself
    assert alone[-1] == pytest.approx(1, abs=1e-6) and np.abs(alone[:-1]).max() < 1e-6
