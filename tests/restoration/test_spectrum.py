"""Correlated noise: its spectrum against noise that was added, what is found in images of a known prior, and what that gains."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.restoration.priors import SmoothImages
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.timesteps import KarrasSteps
from unnoise.restoration.noise import ROUNDING, CorrelatedNoise, GaussianNoise, Noise
from unnoise.restoration.operators import Cosines, Identity, Mask
from unnoise.restoration.posteriors import Measurement, Spectral
from unnoise.restoration.restorer import Restorer
from unnoise.restoration.spectrum import stripes
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

PRIOR = SmoothImages()
RESTORER = Restorer(PRIOR, (1, 32, 32), 8, SamplingConfig(times=KarrasSteps(), steps=12, clamp_estimate=False))


def psnr(x: Tensor, clean: Tensor) -> float:
    return float(10 * (4 / (x - clean).square().mean()).log10())


@pytest.mark.parametrize(
    "noise",
    [CorrelatedNoise(20, 0.7), CorrelatedNoise(20, 1.0, white=3.0), CorrelatedNoise(0, 0, rows=20.0),
     CorrelatedNoise(10, 0.7, rows=5.0, columns=(8.0, 1.0, 0.0)), CorrelatedNoise(0, 0, white=(5.0, 20.0, 35.0))],
    ids=str,
)  # fmt: skip
def test_the_spectrum_is_that_of_the_noise(noise: CorrelatedNoise) -> None:
    """In blocks of frequencies, of 400 images: to 12 %, and to a hundredth of the whole where there is next to nothing."""
    x = torch.zeros(400, 3, 24, 32)
    found = Cosines()(noise.add(x, BatchRng(0, range(400)))).square().mean(0)
    expected = noise.spectrum(x.shape)
    for part in (np.s_[:, :1, 1:], np.s_[:, 1:, :1], np.s_[:, 1:12, 1:16], np.s_[:, 12:, 16:]):
        got, true = found[part].mean((1, 2)), expected[part].mean((1, 2))
        torch.testing.assert_close(got, true, rtol=0.12, atol=0.01 * float(expected.mean()))
    assert float(noise.variance(x).mean()) == pytest.approx(float(expected.mean()), rel=1e-5)


KINDS: dict[str, tuple[Noise, CorrelatedNoise | None]] = {  # what is added, and what is to be found
    "white 5": (GaussianNoise(5), None),
    "white 20": (GaussianNoise(20), None),
    "white 50": (GaussianNoise(50), None),
    "smooth over 0.7": (CorrelatedNoise(20, 0.7, white=1.0), CorrelatedNoise(20, 0.7)),
    "smooth over 1": (CorrelatedNoise(20, 1.0, white=1.0), CorrelatedNoise(20, 1.0)),
    "smooth over 0.7 and white": (CorrelatedNoise(20, 0.7, white=5.0), CorrelatedNoise(20, 0.7)),
    "rows": (CorrelatedNoise(0, 0, rows=20.0, white=3.0), CorrelatedNoise(0, 0, rows=20.0)),
    "columns": (CorrelatedNoise(0, 0, columns=20.0, white=3.0), CorrelatedNoise(0, 0, columns=20.0)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_found_and_what_it_gains(kind: str) -> None:
    """Parameters to 30 % and a quarter of a pixel: E[x | y] = V / (V + S) y loses at most 0.5 dB by them, by stripes 1.2.

    Samples lose more, since `Spectral` takes these images for rougher than they are: up to 2.6 dB.
    """
    added, wanted = KINDS[kind]
    clean = PRIOR.sample((64, 64), seed=1)
    y = added.add(clean, BatchRng(2, [0]))
    sigma = RESTORER.refine_sigma(y, 0.1)
    found = RESTORER.find_correlation(y, sigma)
    if wanted is None:
        assert found is None
        return
    assert found is not None and isinstance(added, CorrelatedNoise)
    for name in ("sigma", "rows", "columns"):
        (got,), true = getattr(found, name), getattr(wanted, name)
        assert got == pytest.approx(true, rel=0.3, abs=4), found
    assert not wanted.sigma or found.width == pytest.approx(wanted.width, abs=0.25), found
    best, ours = (psnr(PRIOR.wiener(y, noise.spectrum(y.shape)[0].clamp(min=ROUNDING**2)), clean) for noise in (added, found))
    assert ours > best - (0.5 if wanted.sigma else 1.2), (ours, best)
    mean = psnr(RESTORER.restore(Measurement.of(y, Identity(), found), Spectral(), samples=8).mean, clean)
    white = psnr(RESTORER.denoise(y, sigma), clean)
    assert mean > best - 2.6 and (mean > white + 1.5 or "0.7" in kind), (white, mean, best)


def test_stripes_are_told_from_lines_of_the_image() -> None:
    """A horizon, a frame and a few lines are no stripes; stripes are found to 20 %, in the direction in which they are."""
    clean, stripe = PRIOR.sample((96, 128), seed=3), CorrelatedNoise(0, 0, rows=10.0)
    (found,) = stripes(stripe.add(clean, BatchRng(0, [0])))
    assert found == pytest.approx(10, rel=0.2)
    clean[..., :40, :] += 0.8
    clean[..., :6, :] = -1
    clean[..., [50, 60, 61], :] = 1
    assert stripes(clean) == (0.0,) and stripes(clean.mT) == (0.0,)
    y = stripe.add(clean, BatchRng(0, [0]))
    assert stripes(y)[0] > 8 and stripes(y.mT) == (0.0,)


def test_what_cannot_be() -> None:
    """Missing pixels and correlated noise together; levels below 0 or all 0."""
    with pytest.raises(UserError, match="can't be told from missing pixels"):
        Measurement.of(torch.zeros(1, 1, 8, 8), Mask(torch.ones(8, 8)), CorrelatedNoise())
    for wrong in (-1.0, math.inf):
        with pytest.raises(UserError, match="at least 0"):
            CorrelatedNoise(wrong)
