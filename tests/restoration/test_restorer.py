"""`Restorer` on held-out digits against the linear optimum, and on images of any size against what fits."""

import numpy as np
import pytest
import torch

from tests.diffusion.oracles import psnr
from tests.restoration.priors import SinglePixels, make_prior
from unnoise.diffusion.gaussian import GaussianDenoiser
from unnoise.diffusion.samplers import DDPM
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Karras
from unnoise.diffusion.timesteps import KarrasSteps
from unnoise.model import Model
from unnoise.restoration.operators import Crop, Downsample
from unnoise.restoration.posteriors import Measurement, denoise
from unnoise.restoration.restore import restore
from unnoise.restoration.restorer import Restorer
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng


@pytest.mark.parametrize("sigma", [0.3, 0.6])
def test_held_out_digits_against_the_linear_optimum(digits_run: Trainer, sigma: float) -> None:
    """The learned estimate beats the best linear one (Wiener) that the training images allow; samples are further off."""
    clean = digits_run.split.held_out.tensor()
    rng = BatchRng(0, range(len(clean)), "added")
    noisy = clean + sigma * rng.normal_like(clean)
    model = digits_run.model
    assert model.moments is not None
    wiener = denoise(GaussianDenoiser(digits_run.info.recipe.schedule, model.moments), noisy, sigma)
    restorer = model.restorer(SamplingConfig(steps=20))
    learned = restorer.denoise(noisy, sigma)
    sampled = restorer.sample_denoised(noisy, sigma, 1).samples[0]
    before, linear, mean, sample = (psnr(y, clean) for y in (noisy, wiener, learned, sampled))
    assert linear > before + 2 and mean > linear + 0.5, (before, linear, mean, sample)
    assert before < sample < mean, (before, linear, mean, sample)


def test_any_size_is_padded_and_cropped_again(digits_run: Trainer) -> None:
    """An odd size is that of the image with mirrored edges, cropped."""
    restorer = Model.load(digits_run.folder.path).restorer()
    y = torch.rand(1, 1, 13, 21) * 2 - 1
    x = restorer.denoise(y, 0.3)
    assert x.shape == y.shape
    padded = torch.from_numpy(np.pad(y.numpy(), [(0, 0), (0, 0), (0, 1), (0, 1)], mode="symmetric"))
    torch.testing.assert_close(x, restorer.denoise(padded, 0.3)[..., :13, :21])


CONFIG = SamplingConfig(times=KarrasSteps(), steps=6, clamp_estimate=False)


@pytest.mark.parametrize("size", [(8, 8), (13, 10), (40, 37)], ids=["smaller", "odd", "tiled"])
def test_a_measurement_of_any_size(size: tuple[int, int]) -> None:
    """As `restore` gives it for a size that fits, of which only a part was measured; large images by tiles."""
    inner = SinglePixels()
    restorer = Restorer(inner, (1, 16, 16), 8, CONFIG)
    x = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0)) * 0.3
    found = restorer.restore(Measurement(x, Downsample(1), torch.tensor(0.01), (1, *size)), samples=2, seed=3)
    padded = {(8, 8): (16, 16), (13, 10): (16, 16), (40, 37): (40, 40)}[size]
    assert inner.sizes == {(16, 16)}
    larger = Measurement(x, Downsample(1) @ Crop(size), torch.tensor(0.01), (1, *padded))
    expected = restore(SinglePixels(), larger, None, CONFIG, samples=2, seed=3).crop(size)
    assert found.mean.shape == x.shape
    torch.testing.assert_close(found.samples, expected.samples, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-3, atol=1e-3)


def test_restoration_never_clamps_on_its_trajectory() -> None:
    """Whatever the recipe says of samples: neither the estimate nor the sample of each step."""
    y = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found = []
    for clamp in (True, False):
        sampling = SamplingConfig(DDPM(clamp=clamp), KarrasSteps(), 8, clamp_estimate=clamp)
        restorer = Restorer(SinglePixels(), (1, 16, 16), 8, sampling)
        restored = restorer.restore(Measurement(y, Downsample(1), torch.tensor(0.01), (1, 16, 16)), samples=2)
        found.append((restored.samples, restored.mean, restorer.sample_denoised(y, 0.3, 2).samples))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_sigma_is_refined_by_the_denoisers_residual() -> None:
    """Of images that the denoiser is exact for, from a guess that is too high, to 5 %; never beyond the schedule's end."""
    moments, _, _ = make_prior(size=16, rank=4)
    denoiser = GaussianDenoiser(Karras(20.0), moments)
    clean = moments.sample(BatchRng(0, range(4)), torch.empty(4, 1, 16, 16))
    y = clean + 0.3 * BatchRng(1, range(4)).normal_like(clean)
    assert Restorer(denoiser, (1, 16, 16), 8, CONFIG).refine_sigma(y, 0.45) == pytest.approx(0.3, rel=0.05)
    low = Restorer(GaussianDenoiser(Karras(0.2), moments), (1, 16, 16), 8, CONFIG)
    assert low.refine_sigma(y, 0.45) == pytest.approx(0.2, rel=1e-6)


def test_what_a_network_cannot_take() -> None:
    """Images smaller than its divisor, and values that are not finite."""
    restorer = Restorer(SinglePixels(), (1, 16, 16), 8, CONFIG)
    with pytest.raises(UserError, match="at least 8x8 pixels, not 7x20"):
        restorer.denoise(torch.zeros(1, 1, 7, 20), 0.1)
    with pytest.raises(UserError, match="not finite"):
        restorer.denoise(torch.full((1, 1, 16, 16), torch.nan), 0.1)
