"""Sampling from end to end: what an image depends on, clamped estimates, and where trajectories start."""

import math
import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.diffusion.oracles import GaussianPixels, OneStream
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.diffusion.samplers import DDIM, DDPM, SAMPLERS, Sampler
from unnoise.diffusion.sampling import ClampedDenoiser, SamplingConfig, sample, starting_point, trajectory
from unnoise.diffusion.schedules import Flow, Karras, Linear, Schedule
from unnoise.diffusion.timesteps import KarrasSteps, LogSnrSteps, SamplingTimes, TrailingSteps, UniformSteps
from unnoise.presets import PRESETS
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_depends_on_its_index_alone(name: str) -> None:
    """Image 17 of a batch is image 17 sampled alone, to 1e-6; another seed gives another."""
    denoiser = GaussianPixels(Linear(50))
    config = SamplingConfig(SAMPLERS[name](), TrailingSteps(), 10)
    together = sample(denoiser, (20, 1, 4, 4), config=config, seed=3)
    alone = sample(denoiser, (1, 1, 4, 4), config=config, seed=3, indices=[17])
    torch.testing.assert_close(together[17:18], alone, rtol=0, atol=1e-6)
    assert not torch.equal(together[17:18], sample(denoiser, (1, 1, 4, 4), config=config, seed=4, indices=[17]))


def test_records_follow_the_times() -> None:
    """Each record has the x that the next step starts from, the times of the config, and 0 as the last."""
    denoiser, config = GaussianPixels(Flow()), SamplingConfig(DDIM(), TrailingSteps(), 7, clamp_estimate=False)
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    records = list(trajectory(denoiser, x, config, BatchRng(0, [])))
    times = config.times(denoiser.schedule, 7)
    assert [(r.step, r.steps, r.t) for r in records] == [(k + 1, 7, float(times[k + 1])) for k in range(7)]
    t = torch.ones((), dtype=torch.float64)
    for record in records:
        torch.testing.assert_close(record.x_hat, denoiser(x, t))
        x, t = record.x, torch.tensor(record.t, dtype=torch.float64)


@pytest.mark.parametrize("name", SAMPLERS)
def test_memory_does_not_grow_with_the_steps(name: str) -> None:
    """Of the images on the way none is kept but the last ones, those in a multistep method's history among them."""
    denoiser, config = GaussianPixels(Linear(50)), SamplingConfig(SAMPLERS[name](), TrailingSteps(), 30)
    alive: list[weakref.ref[Tensor]] = []
    x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for record in trajectory(denoiser, x, config, BatchRng(0, [0])):
        alive += [weakref.ref(record.x), weakref.ref(record.x_hat)]
        del record
        assert sum(r() is not None for r in alive) <= 6


@pytest.mark.parametrize("clamp", [True, False])
def test_sampler_and_steps_replace_those_of_the_config(clamp: bool) -> None:
    """Given by themselves, they are as if the config had them; all else of it stays."""
    denoiser = GaussianPixels(Flow(), std=1.0)
    config = SamplingConfig(DDPM(), UniformSteps(), 5, clamp_estimate=clamp)
    expected = sample(denoiser, (2, 1, 4, 4), config=SamplingConfig(DDIM(), UniformSteps(), 9, clamp_estimate=clamp))
    assert torch.equal(sample(denoiser, (2, 1, 4, 4), DDIM(), 9, config=config), expected)
    assert float(expected.abs().max()) <= 1


class Constant(Denoiser):
    """Always the same estimate."""

    def __init__(self, x_hat: Tensor) -> None:
        super().__init__()
        self.schedule, self.x_hat = Flow(), x_hat

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        return self.x_hat


def test_dynamic_thresholding() -> None:
    """An estimate within [-1, 1] stays; one that exceeds it is divided, not flattened."""
    x = torch.linspace(-0.9, 0.9, 16).reshape(1, 1, 4, 4)
    for scale, quantile in ((1.0, 0.9), (3.0, 1.0)):
        got = ClampedDenoiser(Constant(scale * x), quantile)(x, torch.ones(()))
        torch.testing.assert_close(got, x if scale == 1 else x / 0.9)
    assert float(ClampedDenoiser(Constant(3 * x), 0.5)(x, torch.ones(())).abs().max()) == 1
    torch.testing.assert_close(ClampedDenoiser(Constant(3 * x))(x, torch.ones(())), (3 * x).clamp(-1, 1))


# The mean brightness of 64x64 colour images has a standard deviation of .202; along the unit vector that is .202 sqrt(12288).
BRIGHTNESS = Moments(torch.zeros(1, 1, 1), torch.full((1, 1, 1, 1), 0.202 * math.sqrt(12288)), torch.tensor(0.0))


def std_ratio(schedule: Schedule, sampler: Sampler, start: str) -> float:
    """The fraction of the brightness's standard deviation that the exact denoiser's samples have."""
    sampling = SamplingConfig(sampler, UniformSteps(), 300, clamp_estimate=False, start=start)
    denoiser, rng = GaussianDenoiser(schedule, BRIGHTNESS), OneStream()
    x = starting_point(denoiser, rng, torch.empty(4000, 1, 1, 1), start, BRIGHTNESS)
    for record in trajectory(denoiser, x, sampling, rng):
        x = record.x
    return float(x.std() / BRIGHTNESS.basis.norm())


@pytest.mark.parametrize(("sampler", "low", "high"), [(DDIM(), 0.18, 0.22), (DDPM(), 0.25, 0.31)], ids=["ddim", "ddpm"])
def test_the_terminal_snr_fault(sampler: Sampler, low: float, high: float) -> None:
    """Training ends at alpha = .2192, sampling starts from N(0, I): 70 to 80 % of the deviation is lost; closed form 1/5."""
    schedule = Linear(300)
    found = std_ratio(schedule, sampler, "noise")
    assert low < found < high
    if sampler == DDIM():
        one = torch.ones((), dtype=torch.float64)
        total = torch.hypot(schedule.alpha(one) * BRIGHTNESS.basis.norm(), schedule.sigma(one))
        assert found == pytest.approx(1 / float(total), rel=0.05)


@pytest.mark.parametrize("sampler", [DDIM(), DDPM()], ids=["ddim", "ddpm"])
@pytest.mark.parametrize(
    ("schedule", "start"),
    [(Linear(300, zero_terminal_snr=True), "noise"), (Linear(300), "data")],
    ids=["zero terminal SNR", "start from data"],
)
def test_the_terminal_snr_fault_mended(sampler: Sampler, schedule: Schedule, start: str) -> None:
    """All of the deviation, where the schedule ends in pure noise and where sampling starts from noised data."""
    assert std_ratio(schedule, sampler, start) == pytest.approx(1, abs=0.06)


def test_a_start_from_data_needs_moments() -> None:
    """`sample` knows no training images."""
    denoiser = GaussianDenoiser(Linear(10), BRIGHTNESS)
    with pytest.raises(UserError, match=r"choose sampling\.start noise"):
        sample(denoiser, (1, 1, 1, 1), config=SamplingConfig(steps=5, start="data"))


@pytest.mark.parametrize(
    ("name", "least", "most"), [("digits", 0.04, 0.14), ("fashion-mnist", 0.04, 0.21), ("images", 0.2, 0.14)]
)
def test_presets_keep_the_spread_of_gaussian_images(name: str, least: float, most: float) -> None:
    """With the exact denoiser, in every direction of images of standard deviations from `least` to 2, and their mean to a tenth.

    DDIM in as many steps loses a seventh of it and more. Those that are guided begin with too much, which guidance takes away;
    `images` goes to 0 from a level at which less than `least` is lost.
    """
    recipe = PRESETS[name]
    std = torch.logspace(math.log10(least), 0.3, 16, dtype=torch.float32)
    moments = Moments(torch.full((1, 4, 4), -0.4), torch.diag(std).reshape(16, 1, 4, 4), torch.tensor(0.0))
    denoiser = GaussianDenoiser(recipe.schedule, moments)
    found = []
    for sampler in (recipe.sampling.sampler, DDIM()):
        sampling, rng = replace(recipe.sampling, sampler=sampler, clamp_estimate=False), OneStream()
        x = starting_point(denoiser, rng, torch.empty(20_000, 1, 4, 4), sampling.start, moments)
        for record in trajectory(denoiser, x, sampling, rng):
            x = record.x
        found.append(float((x.flatten(1).std(0) / std - 1).abs().max()))
        assert float(((x.flatten(1).mean(0) + 0.4) / std).abs().max()) < 0.1
    assert found[0] < most and found[1] > 0.13


@pytest.mark.parametrize("times", [KarrasSteps(), LogSnrSteps()])
def test_the_last_noise_level_falls_with_the_number_of_steps(times: SamplingTimes) -> None:
    """No step of a few is spent between the smallest level and 0."""
    schedule = Karras(80.0)
    last = [float(schedule.sigma(times(schedule, n)[-2])) for n in (1, 2, 5, 20, 200)]
    assert last == sorted(last, reverse=True) and last[0] == 80 and last[1] > 0.3 and 0.002 < last[-1] < 0.0025
