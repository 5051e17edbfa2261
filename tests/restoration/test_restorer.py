from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.test_loop import quiet, small
from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.diffusion.samplers import DDPM
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import SCHEDULES, Linear, Schedule
from unnoise.model import Model
from unnoise.restoration.noise import estimate_sigma
from unnoise.restoration.posteriors import denoise, denoise_by_sampling, matching_time
from unnoise.restoration.restore import follow
from unnoise.runs.start import begin
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng


def psnr(x: Tensor, y: Tensor) -> float:
    """Decibels, for images on [-1, 1]."""
    return float(10 * torch.log10(4 / (x.clamp(-1, 1) - y).square().mean()))


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    recipe = small(training__steps=400, network__widths=[32, 64], network__embedding=64)
    run = begin(tmp_path_factory.mktemp("restore") / "run", recipe, quiet)
    list(run.train())
    return run


@pytest.mark.parametrize("sigma", [0.3, 0.6])
def test_held_out_digits_against_the_linear_optimum(digits_run: Trainer, sigma: float) -> None:
    """The learned estimate beats the best linear one (Wiener) that the training images allow; samples are further off."""
    clean = digits_run.split.held_out.tensor()
    noise = BatchRng(0, range(len(clean)), "added")
    noisy = clean + sigma * noise.normal_like(clean)
    assert digits_run.model.moments is not None
    wiener = denoise(GaussianDenoiser(digits_run.info.recipe.schedule, digits_run.model.moments), noisy, sigma)
    learned = digits_run.model.denoise(noisy, sigma)
    drawn = digits_run.model.sample_clean(noisy, sigma, 1, SamplingConfig(steps=20)).samples[0]
    before, linear, mean, sample = (psnr(y, clean) for y in (noisy, wiener, learned, drawn))
    assert linear > before + 2 and mean > linear + 0.5, (before, linear, mean, sample)
    assert before < sample < mean, (before, linear, mean, sample)


@pytest.mark.parametrize("schedule", [make() for make in SCHEDULES.values()], ids=list(SCHEDULES))
@pytest.mark.parametrize("sigma", [0.05, 0.3371, 2.0])
def test_one_step_is_the_posterior_mean_at_any_level(schedule: Schedule, sigma: float) -> None:
    """With images N(0.1, s^2) the answer is known: also between the steps of a discrete schedule."""
    denoiser = GaussianDenoiser(schedule, Moments(torch.full((1, 2, 2), 0.1), torch.zeros(0, 1, 2, 2), torch.tensor(0.5)))
    y = torch.randn(3, 1, 2, 2)
    expected = 0.1 + 0.25 / (0.25 + sigma**2) * (y - 0.1)
    torch.testing.assert_close(denoise(denoiser, y, sigma), expected, rtol=1e-4, atol=1e-5)


def test_sampling_from_there_draws_the_posterior() -> None:
    """Mean and spread of p(x | y), from one y drawn 4,000 times."""
    sigma, y = 0.8, 0.7
    denoiser = GaussianDenoiser(Linear(300), Moments(torch.zeros(1, 1, 1), torch.zeros(0, 1, 1, 1), torch.tensor(0.5)))
    many = torch.full((4000, 1, 1, 1), y)
    sampling = SamplingConfig(DDPM(), steps=300, clamp_estimate=False)
    x = follow(denoise_by_sampling(denoiser, many, sigma, sampling, BatchRng(0, range(4000))), lambda _: None)[0].double()
    gain = 0.25 / (0.25 + sigma**2)
    assert float(x.mean()) == pytest.approx(gain * y, abs=0.02)
    assert float(x.std()) == pytest.approx(sigma * gain**0.5, rel=0.05)


@pytest.mark.parametrize("schedule", [make() for make in SCHEDULES.values()], ids=list(SCHEDULES))
def test_very_little_noise_is_no_trouble(schedule: Schedule) -> None:
    denoiser = GaussianDenoiser(schedule, Moments(torch.zeros(1, 2, 2), torch.zeros(0, 1, 2, 2), torch.tensor(0.5)))
    y = torch.randn(2, 1, 2, 2).clamp(-1, 1)
    for sigma in (1e-6, 1e-3):
        torch.testing.assert_close(denoise(denoiser, y, sigma), y, rtol=0, atol=3 * sigma + 1e-5)
        drawn, _ = follow(denoise_by_sampling(denoiser, y, sigma, SamplingConfig(steps=5), BatchRng(0, range(2))), lambda _: None)
        torch.testing.assert_close(drawn, y, rtol=0, atol=5 * sigma + 1e-5)


def test_the_matching_time_lies_between_steps_and_is_refused_beyond_them() -> None:
    schedule = Linear(300)
    t = matching_time(schedule, 0.5)
    assert float(schedule.ratio(t)) == pytest.approx(0.5, rel=1e-9)
    assert abs(float(t) * 300 - round(float(t) * 300)) > 1e-3
    with pytest.raises(UserError, match=r"up to 4\.451"):
        matching_time(schedule, 5.0)
    with pytest.raises(UserError, match="above 0"):
        matching_time(schedule, 0.0)


def test_estimated_sigma() -> None:
    smooth = torch.linspace(-0.5, 0.5, 256).expand(3, 256, 256)
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (3, 256, 256)))
    assert estimate_sigma(smooth + noise) == pytest.approx(0.1, rel=0.02)
    assert estimate_sigma(smooth) < 1e-3


def test_any_size_is_padded_and_cut_again(digits_run: Trainer, tmp_path: Path) -> None:
    model = Model.load(digits_run.folder)
    y = torch.rand(1, 1, 13, 21) * 2 - 1
    x = model.denoise(y, 0.3)
    assert x.shape == y.shape
    wide = torch.from_numpy(np.pad(y.numpy(), [(0, 0), (0, 0), (0, 1), (0, 1)], mode="symmetric"))
    torch.testing.assert_close(x, model.denoise(wide, 0.3)[..., :13, :21])
