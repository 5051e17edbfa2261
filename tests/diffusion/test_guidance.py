"""Guidance against its formulas, and every kind with every sampler."""

import pytest
import torch
from torch import Tensor

from tests.diffusion.oracles import GaussianDenoiser
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.guidance import GUIDANCES, AutoGuidance, ClassGuidance
from unnoise.diffusion.samplers import SAMPLERS
from unnoise.diffusion.sampling import SamplingConfig, sample
from unnoise.diffusion.schedules import SCHEDULES, Cosine, Flow
from unnoise.diffusion.timesteps import KarrasSteps, LogSnrSteps, TrailingSteps
from unnoise.utils.errors import UserError

MEANS = torch.tensor([-0.5, 0.1, 0.6, 0.3])  # of three classes, and of no class


class Labelled(Denoiser):
    """Pixels of N(MEANS[label], 0.3^2); exact for each class."""

    def __init__(self, std: float = 0.3) -> None:
        super().__init__()
        self.schedule, self.std, self.calls = Flow(), std, 0

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        self.calls += 1
        label = torch.full((len(x_t),), -1) if label is None else label
        mean = MEANS[label % 4][:, None, None, None].to(x_t)
        alpha, sigma = self.schedule.alpha(t).to(x_t), self.schedule.sigma(t).to(x_t)
        gain = alpha * self.std**2 / ((alpha * self.std) ** 2 + sigma**2)
        return mean + gain * (x_t - alpha * mean)


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


def test_rescaled_to_the_spread_of_the_plain_estimate() -> None:
    denoiser = Labelled()
    plain = denoiser(X, T, LABEL).flatten(1).std(1)
    sharp = ClassGuidance(8.0).wrap(_Stretched(denoiser))(X, T, LABEL).flatten(1).std(1)
    again = ClassGuidance(8.0, rescale=1.0).wrap(_Stretched(denoiser))(X, T, LABEL).flatten(1).std(1)
    wanted = _Stretched(denoiser)(X, T, LABEL).flatten(1).std(1)
    torch.testing.assert_close(again, wanted)
    assert (sharp > 1.5 * wanted).all() and (plain > 0).all()


class _Stretched(Denoiser):
    """An estimate with more contrast where the class is known."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        assert label is not None
        x_hat: Tensor = self.denoiser(x_t, t, label)
        return torch.where((label >= 0)[:, None, None, None], 1.3 * x_hat, x_hat)


def test_only_within_its_interval() -> None:
    denoiser = Labelled()
    ratio = float(denoiser.schedule.ratio(T))
    plain = denoiser(X, T, LABEL)
    for low, high, guided in ((ratio - 0.1, ratio + 0.1, True), (ratio + 0.1, 9.0, False), (0.0, ratio - 0.1, False)):
        got = ClassGuidance(3.0, low, high).wrap(denoiser)(X, T, LABEL)
        assert torch.equal(got, plain) != guided


def test_pure_noise_is_guided_too() -> None:
    """Where sigma / alpha has no end, the default interval has none."""
    one = torch.ones((), dtype=torch.float64)
    denoiser = Labelled()
    assert not torch.equal(ClassGuidance(3.0).wrap(denoiser)(X, one, LABEL), denoiser(X, one, LABEL))


def test_autoguidance() -> None:
    better, worse = GaussianDenoiser(Cosine()), GaussianDenoiser(Cosine(), std=0.8)
    got = AutoGuidance(2.0).wrap(better, worse)(X, T)
    torch.testing.assert_close(got, worse(X, T) + 2 * (better(X, T) - worse(X, T)))
    with pytest.raises(UserError, match=r"guide\.safetensors"):
        AutoGuidance(2.0).wrap(better)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", GUIDANCES)
def test_every_kind_with_every_sampler(kind: str, name: str) -> None:
    """Guided images are moved to their class's side of the mean; without guidance they have their class's mean."""
    denoiser = Labelled()
    how = GUIDANCES[kind]() if kind == "none" else GUIDANCES[kind](2.0)  # type: ignore[call-arg]
    guided = how.wrap(denoiser, Labelled(0.5))
    label = torch.arange(600) % 3
    x = sample(guided, (1, 2, 2), range(600), SamplingConfig(SAMPLERS[name](), KarrasSteps(), 30, clamp_estimate=False), label=label)
    means = torch.stack([x[label == k].mean() for k in range(3)])
    if kind == "class":
        assert means[0] < -0.6 and means[2] > 0.68
    else:
        torch.testing.assert_close(means, MEANS[:3], rtol=0, atol=0.06)


@pytest.mark.parametrize("schedule", [make() for make in SCHEDULES.values()], ids=list(SCHEDULES))
def test_every_kind_with_every_schedule(schedule: object) -> None:
    times = TrailingSteps() if getattr(schedule, "steps", None) else LogSnrSteps(sigma_min=0.01)
    better, worse = GaussianDenoiser(schedule), GaussianDenoiser(schedule, std=0.6)  # type: ignore[arg-type]
    for kind, make in GUIDANCES.items():
        if kind != "class":
            x = sample(make().wrap(better, worse), (1, 2, 2), range(50), SamplingConfig(times=times, steps=20))
            assert torch.isfinite(x).all() and abs(float(x.mean()) - 0.3) < 0.15


def test_bad_numbers() -> None:
    for make, hint in ((lambda: ClassGuidance(-1.0), "at least 0"), (lambda: AutoGuidance(2.0, 3.0, 1.0), "0 <= low < high")):
        with pytest.raises(UserError, match=hint):
            make()
