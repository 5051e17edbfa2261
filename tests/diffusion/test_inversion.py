"""Inversion, paths between noises, image to image."""

import math

import pytest
import torch

from tests.diffusion.oracles import GaussianDenoiser
from tests.restoration.test_restorer import digits_run, psnr  # noqa: F401  (a trained model)
from unnoise.diffusion.inversion import begin_at, invert, path, slerp
from unnoise.diffusion.samplers import DDIM
from unnoise.diffusion.sampling import SamplingConfig, trajectory
from unnoise.diffusion.schedules import Cosine, Flow, Karras, Schedule
from unnoise.diffusion.timesteps import KarrasSteps
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

HUNDRED = SamplingConfig(DDIM(), KarrasSteps(), 100, clamp_estimate=False)


@pytest.mark.parametrize("schedule", [Karras(15.0), Cosine(), Flow()], ids=lambda s: type(s).__name__)
def test_there_and_back(schedule: Schedule) -> None:
    """The way back ends where it began; the noise is the one that the exact flow leads to, nearly."""
    denoiser = GaussianDenoiser(schedule)
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64) * 2 - 1
    noise = invert(denoiser, x, HUNDRED)
    times = HUNDRED.times(schedule, 100)
    exact = denoiser.flow(schedule.alpha(times[-2]) * x, times[-2], times[0])
    assert float((noise - exact).abs().max() / exact.std()) < 0.1
    for record in trajectory(denoiser, noise, HUNDRED, BatchRng(0, [])):
        x_again = record.x
    assert psnr(x_again, x) > 50


def test_a_held_out_digit_comes_back(digits_run: Trainer) -> None:  # noqa: F811
    """At 100 steps, at 35 dB or more, through a trained network."""
    model = digits_run.model
    held_out = digits_run.split.held_out
    x = held_out.tensor(slice(0, 16))
    for label in (None, torch.from_numpy(held_out.labels[:16])):  # type: ignore[index]
        again = model.follow(model.invert(x, HUNDRED, label), HUNDRED, label)
        assert psnr(again, x) > 35


def test_great_circles() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(3, 8, 8), 2 * torch.randn(3, 8, 8)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    half = slerp(a, b, 0.5)
    assert float(half.norm()) == pytest.approx(float(a.norm() + b.norm()) / 2, rel=1e-5)
    angles = [math.acos(float((half * v).sum() / half.norm() / v.norm())) for v in (a, b)]
    assert angles[0] == pytest.approx(angles[1], rel=1e-4)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    points = path([a, b, a], 9)
    assert len(points) == 9
    for k, end in ((0, a), (4, b), (8, a)):
        torch.testing.assert_close(points[k], end)
    with pytest.raises(UserError, match="two ends or more"):
        path([a], 3)


def test_strength(digits_run: Trainer) -> None:  # noqa: F811
    """The further, the less alike; 1 begins at t = 1; the nearest is the image."""
    model, x = digits_run.model, digits_run.split.held_out.tensor(slice(0, 1))
    alike = [psnr(model.vary(x, strength, range(16)), x) for strength in (0.05, 0.3, 0.6, 1.0)]
    assert alike == sorted(alike, reverse=True) and alike[0] > 25
    assert begin_at(HUNDRED, model.denoiser, 1.0) == 1.0
    for wrong in (0.0, -1.0, 1.5):
        with pytest.raises(UserError, match="--strength must be above 0"):
            model.vary(x, wrong, [0])
    with pytest.raises(UserError, match="has 9x8"):
        model.vary(torch.zeros(1, 1, 9, 8), 0.5, [0])
