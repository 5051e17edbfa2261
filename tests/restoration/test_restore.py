"""`restore`: statistics of its samples, what each of them depends on, and measurements that it refuses."""

import math

import pytest
import torch

from tests.restoration.priors import OPERATORS, SinglePixels, make_prior
from unnoise.diffusion.gaussian import GaussianDenoiser
from unnoise.diffusion.samplers import SAMPLERS
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Karras
from unnoise.diffusion.timesteps import KarrasSteps
from unnoise.restoration.operators import Crop, Custom, Identity, Mask
from unnoise.restoration.posteriors import DPS, MMPS, Measurement
from unnoise.restoration.restore import padded_size, restore
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

MOMENTS, MEAN, _ = make_prior()
DENOISER = GaussianDenoiser(Karras(20.0), MOMENTS)
SHAPE = (1, 4, 4)


def config(steps: int) -> SamplingConfig:
    return SamplingConfig(times=KarrasSteps(), steps=steps, clamp_estimate=False)


def test_a_sample_is_twice_as_far_off_as_the_mean() -> None:
    """A sample's squared error is twice the mean's, and the samples' variance is the mean's squared error."""
    clean = MOMENTS.sample(BatchRng(0, range(400)), torch.empty(400, *SHAPE))
    operator = OPERATORS["mask"]
    y = operator(clean + 0.1 * BatchRng(1, range(400)).normal_like(clean))
    found = restore(DENOISER, Measurement(y, operator, torch.tensor(0.01), SHAPE), MMPS(iterations=3), config(40), samples=16)
    one, mean = (float((x - clean).square().mean()) for x in (found.samples[0], found.mean))
    assert one / (mean * 16 / 17) == pytest.approx(2, rel=0.12)
    assert float(found.std.square().mean()) == pytest.approx(float((found.mean - clean).square().mean()) * 16 / 17, rel=0.15)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_can_restore(name: str) -> None:
    """From the prior's own mean, half of it missing: the samples' mean is that again."""
    y = OPERATORS["mask"](MEAN.float().reshape(1, *SHAPE).expand(200, *SHAPE))
    sampling = SamplingConfig(SAMPLERS[name](), KarrasSteps(), 30, clamp_estimate=False)
    found = restore(DENOISER, Measurement(y, OPERATORS["mask"], torch.tensor(0.01), SHAPE), sampling=sampling, samples=1)
    assert float((found.samples[0].mean(0).flatten() - MEAN).abs().max()) < 0.15


def test_not_linear() -> None:
    """DPS takes any function and reduces the error to less than a third; the others refuse it."""
    squash = Custom(lambda x: torch.tanh(2 * x), linear=False)
    clean = MOMENTS.sample(BatchRng(0, range(100)), torch.empty(100, *SHAPE))
    measurement = Measurement(squash(clean), squash, torch.tensor(1e-2), SHAPE)
    found = restore(DENOISER, measurement, DPS(), config(50), samples=1).samples[0]
    before = (clean - MEAN.float().reshape(1, *SHAPE)).square().mean()
    assert float((found - clean).square().mean() / before) < 0.3
    unasked = restore(DENOISER, measurement, sampling=config(50), samples=1).samples[0]
    assert torch.equal(unasked, found)  # the method that suits the operator
    with pytest.raises(UserError, match="choose dps"):
        restore(DENOISER, measurement, MMPS())


def test_a_part_of_a_larger_image() -> None:
    """What lies beyond the image is sampled, and changes nothing in what was measured."""
    y = MOMENTS.sample(BatchRng(0, range(3)), torch.empty(3, *SHAPE)).clamp(-1, 1)[..., :3, :3]
    measurement = Measurement(y, Identity() @ Crop((3, 3)), torch.tensor(1e-6), SHAPE)
    found = restore(DENOISER, measurement, MMPS(iterations=8), config(30), samples=1)
    assert found.mean.shape == (3, 1, 4, 4) and float((found.mean[..., :3, :3] - y).abs().max()) < 0.02


def test_samples_do_not_depend_on_their_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample k of image b is a function of (seed, k, b), however many are made at once; variances and masks go with them."""
    y = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(2)) * 0.3
    operator, variance = Mask((y > -0.2).float()), 0.01 + y.square()  # of each image its own
    measurement = Measurement(operator(y), operator, variance, SHAPE)
    progress: list[float] = []
    together = restore(DENOISER, measurement, sampling=config(8), samples=4, on_progress=progress.append)
    assert sum(progress) == pytest.approx(4)
    monkeypatch.setattr("unnoise.restoration.restore.MAX_PIXELS", 1)
    apart = restore(DENOISER, measurement, sampling=config(8), samples=5)
    torch.testing.assert_close(together.samples, apart.samples[:4], rtol=1e-4, atol=1e-5)


def test_labels_go_with_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where next to nothing is measured, samples are those of each image's class, however many are made at once."""
    label, shape = torch.tensor([4, 0, 2]), (1, 8, 8)
    measurement = Measurement(torch.zeros(3, *shape), Identity(), torch.tensor(1e6), shape)
    for max_pixels in (64**3, 1):
        monkeypatch.setattr("unnoise.restoration.restore.MAX_PIXELS", max_pixels)
        found = restore(SinglePixels(), measurement, sampling=config(10), samples=30, label=label)
        torch.testing.assert_close(found.samples.mean((0, 2, 3, 4)), 0.1 * label, rtol=0, atol=0.1)
        torch.testing.assert_close(found.mean.mean((1, 2, 3)), 0.1 * label, rtol=0, atol=0.1)


def test_padded_size() -> None:
    """The smallest that holds the image and that a network takes."""
    assert padded_size((40, 27), (16, 16), 8) == (40, 32) and padded_size((5, 9), (16, 16), 8) == (16, 16)


def test_bad_measurements() -> None:
    """Refused before the network is called."""
    y, variance = torch.zeros(1, *SHAPE), torch.tensor(0.01)
    for call, hint in (
        (lambda: restore(DENOISER, Measurement(y * math.nan, Identity(), variance, SHAPE)), "not finite"),
        (lambda: restore(DENOISER, Measurement(y, Identity(), -variance, SHAPE)), "at least 0"),
        (lambda: restore(DENOISER, Measurement(y, Identity(), variance, SHAPE), samples=0), "at least 1 sample"),
    ):
        with pytest.raises(UserError, match=hint):
            call()
