"""Guidance against its formulas, image by image, and every kind with every sampler."""

import pytest
import torch
from torch import Tensor

from tests.diffusion.oracles import GaussianPixels, each_schedule
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.guidance import GUIDANCES, AutoGuidance, ClassGuidance
from unnoise.diffusion.samplers import SAMPLERS
from unnoise.diffusion.sampling import SamplingConfig, sample
from unnoise.diffusion.schedules import Cosine, Flow, Schedule, per_image
from unnoise.diffusion.timesteps import KarrasSteps, LogSnrSteps, TrailingSteps
from unnoise.utils.errors import UserError

MEANS = torch.tensor([-0.5, 0.1, 0.6, 0.3])  # of three classes, and of no class


class Labelled(Denoiser):
    """Pixels of N(MEANS[label], std^2); exact for each class."""

    def __init__(self, std: float = 0.3) -> None:
        super().__init__()
        self.schedule, self.std, self.calls = Flow(), std, 0

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        self.calls += 1
        label = torch.full((len(x_t),), -1) if label is None else label
        mean = MEANS[label % 4][:, None, None, None].to(x_t)
        alpha, sigma = per_image(self.schedule.alpha(t), x_t), per_image(self.schedule.sigma(t), x_t)
        gain = alpha * self.std**2 / ((alpha * self.std) ** 2 + sigma**2)
        return mean + gain * (x_t - alpha * mean)


class Stretched(Denoiser):
    """An estimate with more contrast where the class is known."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        assert label is not None
        x_hat: Tensor = self.denoiser(x_t, t, label)
        return torch.where((label >= 0)[:, None, None, None], 1.3 * x_hat, x_hat)


T = torch.tensor(0.6, dtype=torch.float64)
X = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
LABEL = torch.tensor([0, 2, 1])


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_classifier_free(scale: float) -> None:
    """The line through both estimates, in one call of the network."""
    denoiser = Labelled()
    good, bad = denoiser(X, T, LABEL), denoiser(X, T, None)
    denoiser.calls = 0
    got = ClassGuidance(scale).wrap(denoiser)(X, T, LABEL)
    torch.testing.assert_close(got, bad + scale * (good - bad))
    assert denoiser.calls == 1
    with pytest.raises(UserError, match="guidance auto"):
        ClassGuidance(scale).wrap(denoiser)(X, T, None)


def test_rescaled_to_the_std_of_the_plain_estimate() -> None:
    """Lin et al. 2024: with `rescale` 1 guided estimates have the standard deviation of the unguided ones, each image its own."""
    denoiser = Labelled()
    plain = denoiser(X, T, LABEL).flatten(1).std(1)
    sharp = ClassGuidance(8.0).wrap(Stretched(denoiser))(X, T, LABEL).flatten(1).std(1)
    again = ClassGuidance(8.0, rescale=1.0).wrap(Stretched(denoiser))(X, T, LABEL).flatten(1).std(1)
    wanted = Stretched(denoiser)(X, T, LABEL).flatten(1).std(1)
    torch.testing.assert_close(again, wanted)
    assert (sharp > 1.5 * wanted).all() and (plain > 0).all()


def test_only_within_its_interval() -> None:
    """Guided where low < sigma / alpha <= high, else the plain estimate to the last bit."""
    denoiser = Labelled()
    ratio = float(denoiser.schedule.ratio(T))
    plain = denoiser(X, T, LABEL)
    for low, high, guided in ((ratio - 0.1, ratio + 0.1, True), (ratio + 0.1, 9.0, False), (0.0, ratio - 0.1, False)):
        got = ClassGuidance(3.0, low, high).wrap(denoiser)(X, T, LABEL)
        assert torch.equal(got, plain) != guided


INTERVAL = {"low": 0.5, "high": 5.0}
GUIDED = [False, True, True, True, False, False]  # at these times of a Flow, by sigma / alpha = t / (1 - t)
TIMES = torch.tensor([0.05, 0.4, 0.6, 0.8, 0.9, 1.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "guidance",
    [ClassGuidance(2.5, **INTERVAL), ClassGuidance(2.5, **INTERVAL, rescale=0.7), AutoGuidance(2.5, **INTERVAL)],
    ids=["class", "class rescaled", "auto"],
)
def test_each_image_is_guided_by_its_own_time(guidance: ClassGuidance | AutoGuidance) -> None:
    """A batch of many times, inside the interval and outside: each image is what it is alone, and what the formula says."""
    denoiser, guide, label = Labelled(), Labelled(0.5), torch.tensor([0, 2, 1, 0, 1, 2])
    x = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    guided = guidance.wrap(denoiser, guide)
    together, good = guided(x, TIMES, label), denoiser(x, TIMES, label)
    bad = guide(x, TIMES, label) if isinstance(guidance, AutoGuidance) else denoiser(x, TIMES)
    expected = bad + 2.5 * (good - bad)
    if isinstance(guidance, ClassGuidance):
        ratio = good.flatten(1).std(1) / expected.flatten(1).std(1)
        expected = expected * (1 + guidance.rescale * (ratio - 1))[:, None, None, None]
    for b in range(6):
        one = slice(b, b + 1)
        torch.testing.assert_close(together[one], guided(x[one], TIMES[one], label[one]), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(together[one], guided(x[one], TIMES[b], label[one]), rtol=1e-6, atol=1e-6)
        if GUIDED[b]:
            torch.testing.assert_close(together[b], expected[b])
            assert float((together[b] - good[b]).abs().max()) > 1e-3
        else:
            assert torch.equal(together[b], good[b])


def test_pure_noise_is_guided_too() -> None:
    """Where sigma / alpha has no end, the default interval has none."""
    one = torch.ones((), dtype=torch.float64)
    denoiser = Labelled()
    for t in (one, one.expand(3)):
        assert not torch.equal(ClassGuidance(3.0).wrap(denoiser)(X, t, LABEL), denoiser(X, t, LABEL))


def test_autoguidance() -> None:
    """The line from the less trained denoiser's estimate through the better one's."""
    better, worse = GaussianPixels(Cosine()), GaussianPixels(Cosine(), std=0.8)
    got = AutoGuidance(2.0).wrap(better, worse)(X, T)
    torch.testing.assert_close(got, worse(X, T) + 2 * (better(X, T) - worse(X, T)))
    with pytest.raises(UserError, match=r"guide\.safetensors"):
        AutoGuidance(2.0).wrap(better)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", GUIDANCES)
def test_every_kind_with_every_sampler(kind: str, name: str) -> None:
    """Guided images are moved to their class's side of the mean; without guidance they have their class's mean."""
    denoiser = Labelled()
    guidance = GUIDANCES[kind]() if kind == "none" else GUIDANCES[kind](2.0)  # type: ignore[call-arg]
    config = SamplingConfig(SAMPLERS[name](), KarrasSteps(), 30, clamp_estimate=False)
    label = torch.arange(600) % 3
    x = sample(guidance.wrap(denoiser, Labelled(0.5)), (600, 1, 2, 2), config=config, label=label)
    means = torch.stack([x[label == k].mean() for k in range(3)])
    if kind == "class":
        assert means[0] < -0.6 and means[2] > 0.68
    else:
        torch.testing.assert_close(means, MEANS[:3], rtol=0, atol=0.06)


def test_sample_guides_as_its_config_says() -> None:
    """The guidance in a config is that of the denoiser wrapped by hand."""
    denoiser, label, guidance = Labelled(), torch.arange(4) % 3, ClassGuidance(2.0)
    by_config = sample(denoiser, (4, 1, 2, 2), config=SamplingConfig(steps=5, guidance=guidance), label=label)
    by_hand = sample(guidance.wrap(denoiser), (4, 1, 2, 2), config=SamplingConfig(steps=5), label=label)
    assert torch.equal(by_config, by_hand) and not torch.equal(by_config, sample(denoiser, (4, 1, 2, 2), steps=5, label=label))


@each_schedule
def test_every_kind_with_every_schedule(schedule: Schedule) -> None:
    """Samples stay finite and near the images' mean."""
    times = TrailingSteps() if schedule.steps else LogSnrSteps(sigma_min=0.01)
    better, worse = GaussianPixels(schedule), GaussianPixels(schedule, std=0.6)
    for kind, make in GUIDANCES.items():
        if kind != "class":
            x = sample(make().wrap(better, worse), (50, 1, 2, 2), config=SamplingConfig(times=times, steps=20))
            assert torch.isfinite(x).all() and abs(float(x.mean()) - 0.3) < 0.15


def test_bad_numbers() -> None:
    """Refused when the guidance is made, before any work."""
    for make, hint in ((lambda: ClassGuidance(-1.0), "at least 0"), (lambda: AutoGuidance(2.0, 3.0, 1.0), "0 <= low < high")):
        with pytest.raises(UserError, match=hint):
            make()
