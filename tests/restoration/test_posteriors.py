"""Posteriors against closed forms: a Gaussian prior whose pixels are correlated, and a mixture."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.diffusion.oracles import MixtureDenoiser
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.gaussian import GaussianDenoiser, Moments
from unnoise.diffusion.samplers import DDIM, SAMPLERS
from unnoise.diffusion.sampling import SamplingConfig, sample
from unnoise.diffusion.schedules import Cosine, Karras, Linear, Schedule
from unnoise.diffusion.timesteps import KarrasSteps
from unnoise.restoration.noise import NOISES, GaussianNoise, estimate_sigma, refine_sigma, salt_and_pepper
from unnoise.restoration.operators import (
    BlockDCT,
    Blur,
    Crop,
    Custom,
    Downsample,
    Grey,
    Identity,
    Mask,
    Operator,
    Signs,
)
from unnoise.restoration.posteriors import DPS, MMPS, POSTERIORS, Measurement, Spectral, conjugate_gradients, denoise
from unnoise.restoration.restore import fitted, restore
from unnoise.restoration.tasks import Dejpeg, Inpaint
from unnoise.restoration.tiling import TiledDenoiser
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

SIZE = (16, 16)
OPERATORS: dict[str, tuple[Operator, int]] = {  # and the channels that they take
    "identity": (Identity(), 1),
    "mask": (Mask.random(SIZE, 0.5), 3),
    "box": (Mask.box(SIZE, 3, 4, 6, 8), 1),
    "crop": (Crop((11, 13)), 3),
    "down-box": (Downsample(4), 3),
    "down-bicubic": (Downsample(2, "bicubic"), 3),
    "gaussian": (Blur.gaussian(1.2), 3),
    "motion": (Blur.motion(5, 30), 1),
    "grey": (Grey(), 3),
    "coded": (Downsample(4) @ Signs(1), 1),
    "jpeg": (BlockDCT(), 3),
    "jpeg-grey": (BlockDCT(), 1),
    "custom": (Custom(lambda x: torch.roll(x, 2, -1) - 0.5 * x), 1),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint(name: str) -> None:
    """<A x, y> = <x, A^T y>, to 1e-5; and A is linear."""
    operator, channels = OPERATORS[name]
    torch.manual_seed(0)
    x, other = torch.randn(2, 2, channels, *SIZE, dtype=torch.float64)
    y = torch.randn_like(operator(x))
    left, right = (operator(x) * y).sum(), (x * operator.adjoint(y, x)).sum()
    assert float((left - right).abs() / left.abs()) < 1e-5
    torch.testing.assert_close(operator(2 * x - other), 2 * operator(x) - operator(other))


def test_operators_are_what_they_say() -> None:
    x = torch.arange(256.0).reshape(1, 1, 16, 16)
    assert float(Downsample(4)(x)[0, 0, 0, 0]) == float(x[0, 0, :4, :4].mean())
    kept = Mask.random((64, 64), 0.8).kept
    assert float(1 - kept.mean()) == pytest.approx(0.8, abs=0.02)
    spike = torch.zeros(1, 1, 31, 31)
    spike[..., 15, 15] = 1
    blurred = Blur.gaussian(1.5)(spike)[0, 0]
    at = torch.arange(31.0) - 15
    assert float((blurred.sum(0) * at.square()).sum()) == pytest.approx(1.5**2, rel=0.02)
    line = Blur.motion(8, 0)(spike)[0, 0]
    assert float(line[15].sum()) == pytest.approx(1, abs=1e-5) and float(line.sum(1)[14]) == 0
    tilted = Blur.motion(8, 90)(spike)[0, 0]
    torch.testing.assert_close(tilted, line.T)
    with pytest.raises(UserError, match="the mask has 16x16 pixels and the image 8x8"):
        Mask.random(SIZE, 0.5)(torch.zeros(1, 1, 8, 8))
    with pytest.raises(UserError, match="only colour"):
        Grey()(torch.zeros(1, 1, 8, 8))


def test_jpeg_is_pillows() -> None:
    """Quantised with a file's own tables, our coefficients give the image that Pillow decodes, to its rounding."""
    rng = np.random.default_rng(0)
    smooth = np.clip(np.cumsum(np.cumsum(rng.normal(size=(16, 16)), 0), 1) * 3 + 120, 0, 255)
    x = torch.from_numpy(smooth.round()).float()[None, None] / 127.5 - 1
    task = Dejpeg.of_quality(30, colour=False)
    decoded = task.damage(x, BatchRng(0, [0]))
    operator, seen = BlockDCT(), task.see(x)  # x itself, rounded as the encoder does it
    ours = operator.adjoint(seen.y, x)  # orthonormal: the adjoint is the inverse
    assert float((ours.clamp(-1, 1) - decoded).abs().max()) * 127.5 <= 1.5


@pytest.mark.parametrize("quality", [20, 75, 90])
def test_what_a_file_kept_is_found(quality: int) -> None:
    """The coefficients read from a decoded colour file are the encoder's to half a step, nearly: uniform within it."""
    torch.manual_seed(0)
    x = (0.3 * torch.randn(1, 3, 1, 1) + Blur.gaussian(3.0)(torch.randn(1, 3, 64, 64)) * 2).clamp(-0.8, 0.8)
    task = Dejpeg.of_quality(quality, colour=True)
    seen = task.see(task.damage(x, BatchRng(0, [0])))
    error = (seen.y - seen.operator(x)) / (12 * seen.variance).sqrt()  # in steps
    for part in (error[:, : 64 * 64], error[:, 64 * 64 :]):  # luma, chroma
        assert float(part.abs().quantile(0.999)) < 0.9 and float(part.square().mean().sqrt()) < 1.1 / 12**0.5


def prior(seed: int = 0, size: int = 4, rank: int = 6) -> tuple[Moments, Tensor, Tensor]:
    """A Gaussian whose pixels are correlated; its mean (N,) and covariance (N, N)."""
    g = torch.Generator().manual_seed(seed)
    n = size * size
    mean = 0.1 * torch.randn(1, size, size, generator=g)
    directions = torch.linalg.qr(torch.randn(n, rank, generator=g)).Q.T  # orthogonal
    basis = (directions * torch.linspace(0.7, 0.2, rank)[:, None]).reshape(rank, 1, size, size).contiguous()
    rest = torch.tensor(0.05)
    flat = basis.reshape(rank, n).double()
    return Moments(mean, basis, rest), mean.flatten().double(), flat.T @ flat + float(rest) ** 2 * torch.eye(n).double()


def matrix_of(operator: Operator, size: int = 4) -> Tensor:
    n = size * size
    return operator(torch.eye(n).double().reshape(n, 1, size, size)).flatten(1).T


SEEN: dict[str, Operator] = {
    "mask": Mask.random((4, 4), 0.5, seed=3),
    "down": Downsample(2),
    "blur": Custom(lambda x: (x + torch.roll(x, 1, -1)) / 2),
}


def against_the_truth(name: str, method: str, schedule: Schedule, sigma: float = 0.1, rounds: int = 8) -> tuple[float, float]:
    """The bias of the mean in posterior standard deviations (root mean square), and the ratio of variances."""
    moments, mean, covariance = prior()
    count = 2000
    operator, a = SEEN[name], matrix_of(SEEN[name])
    truth = mean + 0.2
    y = a @ truth + sigma * torch.randn(len(a), generator=torch.Generator().manual_seed(5)).double()
    y = torch.where(a.abs().sum(1) > 0, y, 0)  # of a missing pixel nothing is seen
    gain = covariance @ a.T @ torch.linalg.inv(a @ covariance @ a.T + sigma**2 * torch.eye(len(a)).double())
    wanted, spread = mean + gain @ (y - a @ mean), (covariance - gain @ a @ covariance).diagonal()
    seen = operator(torch.zeros(1, 1, 4, 4))
    shaped = y.float().reshape(1, *seen.shape[1:]).expand(count, *seen.shape[1:])
    how = POSTERIORS[method]() if method != "mmps" else MMPS(rounds)
    found = restore(GaussianDenoiser(schedule, moments), shaped, operator, sigma**2, (1, 4, 4), how,
                    SamplingConfig(SAMPLERS["dpm++2m"](), KarrasSteps(), 60, clamp_estimate=False), samples=1)  # fmt: skip
    x = found.samples[0].flatten(1).double()
    bias = float(((x.mean(0) - wanted) / spread.sqrt()).square().mean().sqrt())
    return bias, float((x.var(0) / spread).mean())


@pytest.mark.parametrize(
    "schedule", [Karras(20.0), Cosine(), Linear(1000)], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("name", SEEN)
def test_mmps_draws_the_posterior(name: str, schedule: Schedule) -> None:
    bias, ratio = against_the_truth(name, "mmps", schedule)
    assert bias < 0.1 and 0.85 < ratio < 1.15, (bias, ratio)


@pytest.mark.parametrize("name", ["mask", "down"])
def test_two_rounds_are_near(name: str) -> None:
    """As many as a network's Jacobian is asked for by default."""
    bias, ratio = against_the_truth(name, "mmps", Karras(20.0), rounds=2)
    assert bias < 0.25 and 0.9 < ratio < 1.1, (bias, ratio)


@pytest.mark.parametrize("method", sorted(set(POSTERIORS) - {"mmps"}))
def test_others_come_near_the_mean(method: str) -> None:
    """They are approximations: near the mean, their spread whatever it is (docs/restoring.md gives the figures)."""
    bias, _ = against_the_truth("mask", method, Karras(20.0))
    assert bias < 0.8, bias


def test_mixture_weights() -> None:
    """One pixel of each image is seen through noise: the modes have the weights that Bayes' rule gives them."""
    denoiser, sigma, y = MixtureDenoiser(Karras(20.0)), 0.8, 0.1
    variance = denoiser.std**2 + sigma**2
    low = denoiser.weight * math.exp(-((y + denoiser.centre) ** 2) / 2 / variance)
    high = (1 - denoiser.weight) * math.exp(-((y - denoiser.centre) ** 2) / 2 / variance)
    seen = torch.full((4000, 1, 1, 2), y)
    operator = Mask(torch.tensor([[1.0, 0.0]]))
    how = SamplingConfig(SAMPLERS["dpm++2m"](), KarrasSteps(), 80, clamp_estimate=False)
    x = restore(denoiser, seen * operator.kept, operator, sigma**2, method=MMPS(rounds=2), sampling=how, samples=1).samples[0]
    found = (x[..., 0] < 0).float().mean(), (x[..., 1] < 0).float().mean()
    assert float(found[0]) == pytest.approx(low / (low + high), abs=0.05)  # MMPS takes p(x | x_t) for a Gaussian
    assert float(found[1]) == pytest.approx(0.3, abs=0.03)


def test_seeing_all_is_denoising_at_the_combined_level() -> None:
    """With A = I, E[x | x_t, y] is the one-step estimate at the level that both together have, for a Gaussian."""
    moments, _, _ = prior()
    denoiser = GaussianDenoiser(Karras(20.0), moments)
    x_t, y = torch.randn(5, 1, 4, 4), torch.randn(5, 1, 4, 4)
    sigma_t, sigma_y = 0.7, 0.4
    t = denoiser.schedule.time_at(torch.tensor(sigma_t, dtype=torch.float64))
    got = MMPS(rounds=8).wrap(denoiser, Measurement(y, Identity(), torch.tensor(sigma_y**2)))(x_t, t)
    precision = sigma_t**-2 + sigma_y**-2
    both = (x_t / sigma_t**2 + y / sigma_y**2) / precision
    torch.testing.assert_close(got, denoise(denoiser, both, precision**-0.5), rtol=1e-3, atol=1e-3)


def test_a_sample_is_twice_as_far_off_as_the_mean() -> None:
    moments, _, _ = prior()
    denoiser = GaussianDenoiser(Karras(20.0), moments)
    clean = moments.sample(BatchRng(0, range(400)), torch.empty(400, 1, 4, 4))
    operator = SEEN["mask"]
    y = operator(clean + 0.1 * BatchRng(1, range(400)).normal_like(clean))
    variance = 0.01
    found = restore(denoiser, y, operator, variance, method=MMPS(rounds=3), samples=16,
                    sampling=SamplingConfig(times=KarrasSteps(), steps=40, clamp_estimate=False))  # fmt: skip
    one, mean = (float((x - clean).square().mean()) for x in (found.samples[0], found.mean))
    assert one / (mean * 16 / 17) == pytest.approx(2, rel=0.12)
    assert float(found.std.square().mean()) == pytest.approx(float((found.mean - clean).square().mean()) * 16 / 17, rel=0.15)


@pytest.mark.parametrize("name", ["mask", "down"])
@pytest.mark.parametrize("method", ["ddnm", "diffpir", "mmps"])
def test_without_noise_what_is_seen_is_kept(method: str, name: str) -> None:
    moments, _, _ = prior()
    denoiser, operator = GaussianDenoiser(Karras(20.0), moments), SEEN[name]
    y = operator(moments.sample(BatchRng(0, range(6)), torch.empty(6, 1, 4, 4)).clamp(-0.9, 0.9))
    sampling = SamplingConfig(times=KarrasSteps(), steps=40, clamp_estimate=False)
    how = MMPS(rounds=8) if method == "mmps" else POSTERIORS[method]()
    x = restore(denoiser, y, operator, 1e-6, (1, 4, 4), how, sampling, samples=1).samples[0]
    assert float((operator(x) - y).abs().max()) < 0.02


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_can_restore(name: str) -> None:
    moments, mean, _ = prior()
    y = SEEN["mask"](mean.float().reshape(1, 1, 4, 4).expand(200, 1, 4, 4))
    sampling = SamplingConfig(SAMPLERS[name](), KarrasSteps(), 30, clamp_estimate=False)
    x = restore(GaussianDenoiser(Karras(20.0), moments), y, SEEN["mask"], 0.01, sampling=sampling, samples=1)
    assert float((x.samples[0].mean(0).flatten() - mean).abs().max()) < 0.15


def test_not_linear() -> None:
    """DPS takes any callable; the others say so."""
    moments, mean, _ = prior()
    denoiser = GaussianDenoiser(Karras(20.0), moments)
    squash = Custom(lambda x: torch.tanh(2 * x), linear=False)
    clean = moments.sample(BatchRng(0, range(100)), torch.empty(100, 1, 4, 4))
    sampling = SamplingConfig(times=KarrasSteps(), steps=50, clamp_estimate=False)
    found = restore(denoiser, squash(clean), squash, 1e-2, method=DPS(), sampling=sampling, samples=1).samples[0]
    before = (clean - mean.float().reshape(1, 1, 4, 4)).square().mean()
    assert float((found - clean).square().mean() / before) < 0.3
    with pytest.raises(UserError, match="choose dps"):
        restore(denoiser, squash(clean), squash, 1e-2)


def test_conjugate_gradients_solve() -> None:
    torch.manual_seed(0)
    root = torch.randn(3, 6, 6, dtype=torch.float64)
    matrix = root @ root.mT + torch.eye(6)
    b = torch.randn(3, 6, dtype=torch.float64)
    u = conjugate_gradients(lambda v: (matrix @ v[..., None])[..., 0], b, 12)
    torch.testing.assert_close(u, torch.linalg.solve(matrix, b), rtol=1e-6, atol=1e-8)


class Local(Denoiser):
    """Looks at one pixel alone, so that tiles can change nothing; counts its calls and how much they held."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule, self.shapes = Karras(20.0), set[tuple[int, ...]]()

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        self.shapes.add(tuple(x_t.shape[2:]))
        return 0.3 + 0.25 / (0.25 + self.schedule.sigma(t).to(x_t) ** 2) * (x_t - 0.3)


def test_tiles_cover_and_agree() -> None:
    local = Local()
    tiled = TiledDenoiser(local, (16, 16))
    sampling = SamplingConfig(DDIM(), KarrasSteps(), 5, clamp_estimate=False)
    one, other = (sample(d, (1, 40, 27), [0, 1], sampling, seed=2) for d in (tiled, Local()))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert local.shapes == {(16, 16)}
    for whole in (16, 17, 28, 29, 100):
        starts = tiled.starts(whole, 16)
        assert starts[0] == 0 and starts[-1] == whole - 16
        assert all(0 < b - a <= 12 for a, b in itertools.pairwise(starts))
    assert fitted((40, 27), (16, 16), 8) == (40, 32) and fitted((5, 9), (16, 16), 8) == (16, 16)


def test_a_part_of_a_larger_image() -> None:
    """What lies beyond the image is drawn, and changes nothing in what is seen."""
    moments, _, _ = prior()
    y = moments.sample(BatchRng(0, range(3)), torch.empty(3, 1, 4, 4)).clamp(-1, 1)[..., :3, :3]
    sampling = SamplingConfig(times=KarrasSteps(), steps=30, clamp_estimate=False)
    found = restore(GaussianDenoiser(Karras(20.0), moments), y, Identity() @ Crop((3, 3)), 1e-6, (1, 4, 4),
                    method=MMPS(rounds=8), sampling=sampling, samples=1)  # fmt: skip
    assert found.mean.shape == (3, 1, 4, 4) and float((found.mean[..., :3, :3] - y).abs().max()) < 0.02


@pytest.mark.parametrize("name", NOISES)
def test_noises_have_their_variance(name: str) -> None:
    x = torch.linspace(-0.8, 0.8, 5).reshape(1, 1, 1, 5).expand(4000, 1, 1, 5)
    model = NOISES[name]()
    y = model.add(x, BatchRng(0, range(4000)))
    torch.testing.assert_close(y.mean(0), x[0], rtol=0, atol=0.03)
    torch.testing.assert_close(y.var(0), model.variance(x[:1])[0], rtol=0.1, atol=1e-4)
    with pytest.raises(UserError, match="greater than 0"):
        type(model)(0.0)  # type: ignore[call-arg]


def test_a_first_guess_is_refined() -> None:
    """The denoiser's own residual finds the level, from a guess that is a half too high or too low."""
    moments, _, _ = prior(size=16, rank=4)
    denoiser = GaussianDenoiser(Karras(20.0), moments)
    clean = moments.sample(BatchRng(0, range(4)), torch.empty(4, 1, 16, 16))
    y = clean + 0.3 * BatchRng(1, range(4)).normal_like(clean)
    for guess in (0.2, 0.45):
        found = refine_sigma(y, guess, lambda y, sigma: denoise(denoiser, y, sigma), 20.0, 12)
        assert found == pytest.approx(0.3, rel=0.05)
    assert GaussianNoise(25.0).variance(y).unique().numel() == 1 and estimate_sigma(y[0]) > 0


def test_salt_and_pepper_is_found() -> None:
    torch.manual_seed(0)
    clean = Blur.gaussian(2.0)(torch.randn(1, 3, 32, 32)).mul(2).clamp(-0.9, 0.9)
    hit = torch.rand(clean.shape) < 0.1
    y = torch.where(hit, torch.where(torch.rand(clean.shape) < 0.5, -1.0, 1.0), clean)
    whole = salt_and_pepper(y)
    assert torch.equal(whole == 0, hit)


def test_bad_observations() -> None:
    moments, _, _ = prior()
    denoiser, y = GaussianDenoiser(Karras(20.0), moments), torch.zeros(1, 1, 4, 4)
    for call, hint in (
        (lambda: restore(denoiser, y * math.nan), "not finite"),
        (lambda: restore(denoiser, y, variance=-1.0), "at least 0"),
        (lambda: restore(denoiser, y, samples=0), "at least 1 sample"),
        (lambda: Blur.gaussian(0), "greater than 0 pixels"),
        (lambda: Downsample(2, "cubic"), "box or bicubic"),
    ):
        with pytest.raises(UserError, match=hint):
            call()


def test_a_composition_is_linear_only_if_both_are() -> None:
    bent = Custom(lambda x: x.square(), linear=False)
    assert not (bent @ Crop((4, 4))).linear and not (Crop((4, 4)) @ bent).linear and (Grey() @ Crop((4, 4))).linear


def test_samples_do_not_depend_on_their_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample k of image b is a function of (seed, k, b), however many are drawn at once; variances and masks go with them."""
    moments, _, _ = prior()
    denoiser = GaussianDenoiser(Karras(20.0), moments)
    y = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(2)) * 0.3
    operator, variance = Mask((y > -0.2).float()), 0.01 + y.square()  # of each image its own
    sampling = SamplingConfig(times=KarrasSteps(), steps=8, clamp_estimate=False)
    told: list[float] = []
    at_once = restore(denoiser, operator(y), operator, variance, sampling=sampling, samples=4, told=told.append)
    assert sum(told) == pytest.approx(4)
    monkeypatch.setattr("unnoise.restoration.restore.AT_ONCE", 1)
    apart = restore(denoiser, operator(y), operator, variance, sampling=sampling, samples=5)
    torch.testing.assert_close(at_once.samples, apart.samples[:4], rtol=1e-4, atol=1e-5)


def test_noise_of_very_different_strength_is_weighed() -> None:
    """Values a thousand times less noisy than others do not hide those from a few conjugate gradients."""
    moments, mean, covariance = prior()
    denoiser = GaussianDenoiser(Karras(20.0), moments)
    variance = torch.logspace(-4, -1, 16).reshape(1, 1, 4, 4)
    sigma_t, y = 0.1, mean.float().reshape(1, 1, 4, 4) + 0.3
    x_t = y + 0.05
    t = denoiser.schedule.time_at(torch.tensor(sigma_t, dtype=torch.float64))
    got = MMPS(rounds=3).wrap(denoiser, Measurement(y, Identity(), variance))(x_t, t).flatten().double()
    precision = torch.linalg.inv(covariance) + sigma_t**-2 * torch.eye(16) + variance.flatten().double().reciprocal().diag()
    spread = torch.linalg.inv(precision)
    told = x_t.flatten().double() / sigma_t**2 + y.flatten().double() / variance.flatten()
    truth = spread @ (torch.linalg.solve(covariance, mean) + told)
    assert float(((got - truth) / spread.diagonal().sqrt()).square().mean().sqrt()) < 0.3


def test_tiles_with_what_is_seen() -> None:
    """A posterior through tiles is that of the whole: the gradient passes through the blending."""
    y = torch.randn(1, 1, 20, 27, generator=torch.Generator().manual_seed(1)) * 0.3
    sampling = SamplingConfig(times=KarrasSteps(), steps=6, clamp_estimate=False)
    denoisers = TiledDenoiser(Local(), (16, 16)), Local()
    one, other = (restore(d, y, Downsample(1), 0.01, sampling=sampling, samples=1).mean for d in denoisers)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_noise_beside_a_hole_is_read_from_what_is_there() -> None:
    kept = torch.ones(16, 16)
    kept[:, 8:] = 0
    y = torch.where(kept > 0, 0.6, -1.0).reshape(1, 1, 16, 16)
    seen = Inpaint(kept, NOISES["poisson"]()).see(y)
    assert seen.variance[0, 0, 8, 7].item() == pytest.approx(seen.variance[0, 0, 8, 0].item(), rel=1e-3)


def test_smaller_images_keep_their_places() -> None:
    ramp = torch.linspace(-1, 1, 15).expand(1, 1, 15, 15)
    torch.testing.assert_close(Downsample(4, "bicubic")(ramp), Downsample(4, "bicubic")(ramp[..., :12, :12]))


@pytest.mark.parametrize("sigma", [25.0, 50.0])
def test_a_clipped_images_noise(sigma: float) -> None:
    """Estimated from where nothing was cut."""
    ramp = torch.linspace(-1, 1, 128).expand(3, 128, 128)
    y = ramp + sigma / 127.5 * BatchRng(0, range(3)).normal_like(ramp)
    assert 127.5 * estimate_sigma(y) == pytest.approx(sigma, rel=0.05)
    assert 127.5 * estimate_sigma(y.clamp(-1, 1)) == pytest.approx(sigma, rel=0.05)
    with pytest.raises(UserError, match="too small"):
        estimate_sigma(y[:, :5])


def test_spectral_is_exact_for_its_own_images() -> None:
    """For the Gaussian images that it has in mind, the estimate is that of linear algebra; and noise alone changes nothing."""
    how, schedule, size = Spectral(spread=0.4), Karras(20.0), (3, 5, 6)
    n, like = 3 * 5 * 6, torch.zeros(1, *size).double()
    one, huge = torch.ones((), dtype=torch.float64), torch.tensor(1e6, dtype=torch.float64)
    prior = how.covariance(one, huge, like)(torch.eye(n).double().reshape(n, *size)).flatten(1)
    assert float(prior.diagonal().mean()) == pytest.approx(0.4**2, rel=1e-3)
    torch.testing.assert_close(prior, prior.T)
    values, directions = torch.linalg.eigh(prior)
    moments = Moments(torch.zeros(size).double(), (directions * values.clamp(min=0).sqrt()).T.reshape(n, *size), torch.zeros(()))
    denoiser, operator = GaussianDenoiser(schedule, moments), Mask.random(size[1:], 0.4)
    x_t, y, sigma = torch.randn(1, *size).double(), operator(torch.randn(1, *size).double()), 0.7
    t = schedule.time_at(torch.tensor(sigma, dtype=torch.float64))
    got = how.wrap(denoiser, Measurement(y, operator, torch.tensor(0.01)))(x_t, t)
    a = operator.kept.expand(size).flatten().double().diag()
    precision = torch.linalg.inv(prior) + torch.eye(n) / sigma**2 + a / 0.01
    truth = torch.linalg.solve(precision, x_t.flatten() / sigma**2 + y.flatten() / 0.01)
    torch.testing.assert_close(got.flatten(), truth, rtol=2e-3, atol=2e-3)
