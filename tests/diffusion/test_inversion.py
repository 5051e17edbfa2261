"""Inversion against the exact flow and through a trained network; interpolation between noises; image to image."""

import math

import pytest
import torch

from tests.diffusion.oracles import GaussianPixels, psnr
from unnoise.diffusion.inversion import interpolate, invert, slerp, start_time
from unnoise.diffusion.samplers import DDIM
from unnoise.diffusion.sampling import SamplingConfig, trajectory
from unnoise.diffusion.schedules import Cosine, Flow, Karras, Linear, Schedule
from unnoise.diffusion.timesteps import KarrasSteps
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

HUNDRED = SamplingConfig(DDIM(), KarrasSteps(), 100, clamp_estimate=False)


@pytest.mark.parametrize("schedule", [Karras(15.0), Cosine(), Flow()], ids=lambda s: type(s).__name__)
def test_there_and_back(schedule: Schedule) -> None:
    """The trajectory back ends where it began; the noise is the one that the exact flow leads to, nearly."""
    denoiser = GaussianPixels(schedule)
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64) * 2 - 1
    noise = invert(denoiser, x, HUNDRED)
    times = HUNDRED.times(schedule, 100)
    exact = denoiser.flow(schedule.alpha(times[-2]) * x, times[-2], times[0])
    assert float((noise - exact).abs().max() / exact.std()) < 0.1
    for record in trajectory(denoiser, noise, HUNDRED, BatchRng(0, [])):
        x_again = record.x
    assert psnr(x_again, x) > 50


@pytest.mark.slow
def test_a_held_out_digit_comes_back(digits_run: Trainer) -> None:
    """At 100 steps, at 35 dB or more, through a trained network."""
    model = digits_run.model
    held_out = digits_run.split.held_out
    x = held_out.tensor(slice(0, 16))
    assert held_out.labels is not None
    for label in (None, torch.from_numpy(held_out.labels[:16])):
        again = model.sample_from_noise(model.invert(x, HUNDRED, label), HUNDRED, label)
        assert psnr(again, x) > 35


def test_great_circles() -> None:
    """The ends are reached; half way the angle to both is the same, and the norm is the mean of theirs."""
    torch.manual_seed(0)
    a, b = torch.randn(3, 8, 8), 2 * torch.randn(3, 8, 8)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    half = slerp(a, b, 0.5)
    assert float(half.norm()) == pytest.approx(float(a.norm() + b.norm()) / 2, rel=1e-5)
    angles = [math.acos(float((half * v).sum() / half.norm() / v.norm())) for v in (a, b)]
    assert angles[0] == pytest.approx(angles[1], rel=1e-4)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    points = interpolate([a, b, a], 9)
    assert len(points) == 9
    for k, end in ((0, a), (4, b), (8, a)):
        torch.testing.assert_close(points[k], end)
    with pytest.raises(UserError, match="two ends or more"):
        interpolate([a], 3)


def test_strength(digits_run: Trainer) -> None:
    """The further, the less alike; at little strength the image itself, nearly; a size not trained on is refused."""
    model, x = digits_run.model, digits_run.split.held_out.tensor(slice(0, 1))
    alike = [psnr(model.image_to_image(x, strength, range(16)), x) for strength in (0.05, 0.3, 0.6, 1.0)]
    assert alike == sorted(alike, reverse=True) and alike[0] > 25
    assert start_time(HUNDRED, model.denoiser.schedule, 1.0) == 1.0
    for wrong in (0.0, -1.0, 1.5):
        with pytest.raises(UserError, match="strength must be above 0"):
            model.image_to_image(x, wrong, [0])
    with pytest.raises(UserError, match="has 9x8"):
        model.image_to_image(torch.zeros(1, 1, 9, 8), 0.5, [0])


@pytest.mark.parametrize("schedule", [Linear(300), Cosine(), Karras()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("strength", [0.001, 0.1, 0.5, 0.9, 1.0])
def test_strength_is_a_fraction_of_the_times(schedule: Schedule, strength: float) -> None:
    """Below the start lies that fraction of the sampler's finest times, and at least one of them."""
    start = start_time(HUNDRED, schedule, strength)
    finest = HUNDRED.times(schedule, min(1000, schedule.steps or 1000))
    assert int((finest[:-1] <= start).sum()) == max(1, round(strength * (len(finest) - 1)))
