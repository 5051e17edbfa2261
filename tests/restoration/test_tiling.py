"""Tiling: with a denoiser of single pixels, what is made of tiles is what is made of the whole."""

import itertools

import torch

from tests.restoration.priors import SinglePixels
from unnoise.diffusion.samplers import DDIM
from unnoise.diffusion.sampling import SamplingConfig, sample
from unnoise.diffusion.timesteps import KarrasSteps
from unnoise.restoration.operators import Downsample
from unnoise.restoration.posteriors import Measurement
from unnoise.restoration.restore import restore
from unnoise.restoration.tiling import TiledDenoiser


def test_tiles_cover_and_agree() -> None:
    """All of an image, by tiles of the network's size alone, each overlapping the next by a quarter or more."""
    inner = SinglePixels()
    tiled = TiledDenoiser(inner, (16, 16))
    config = SamplingConfig(DDIM(), KarrasSteps(), 5, clamp_estimate=False)
    one, other = (sample(d, (2, 1, 40, 27), config=config, seed=2) for d in (tiled, SinglePixels()))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert inner.sizes == {(16, 16)}
    for whole in (16, 17, 28, 29, 100):
        starts = tiled.starts(whole, 16)
        assert starts[0] == 0 and starts[-1] == whole - 16
        assert all(0 < b - a <= 12 for a, b in itertools.pairwise(starts))


def test_each_image_has_its_own_time_and_label() -> None:
    """In a batch of several tiles each."""
    x, t, label = torch.randn(3, 1, 20, 27), torch.tensor([0.01, 0.2, 0.9]), torch.tensor([0, 9, 4])
    tiled = TiledDenoiser(SinglePixels(), (16, 16))(x, t, label)
    torch.testing.assert_close(tiled, SinglePixels()(x, t, label), rtol=1e-4, atol=1e-5)


def test_tiles_with_a_measurement() -> None:
    """A posterior through tiles is that of the whole: the gradient passes through the blending."""
    y = torch.randn(1, 1, 20, 27, generator=torch.Generator().manual_seed(1)) * 0.3
    sampling = SamplingConfig(times=KarrasSteps(), steps=6, clamp_estimate=False)
    measurement = Measurement(y, Downsample(1), torch.tensor(0.01), (1, 20, 27))
    denoisers = TiledDenoiser(SinglePixels(), (16, 16)), SinglePixels()
    one, other = (restore(d, measurement, sampling=sampling, samples=1).mean for d in denoisers)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
