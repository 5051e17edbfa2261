import pytest
import torch

from unnoise.diffusion.schedules import SCHEDULES, Linear, add_noise
from unnoise.diffusion.timesteps import SAMPLING_TIMES, TRAINING_TIMES, LogNormalTimes, stratified_uniform
from unnoise.utils.errors import UserError

schedules = pytest.mark.parametrize("schedule", [make() for make in SCHEDULES.values()], ids=list(SCHEDULES))


def test_notebook_numbers() -> None:
    """T = 300: alpha_bar as a plain running product, at every step; and the figures that the notebook is known by."""
    schedule = Linear(timesteps=300)
    alpha_bar, products = 1.0, []
    for k in range(300):
        alpha_bar *= 1 - (1e-4 + (0.02 - 1e-4) * k / 299)
        products.append(alpha_bar)
    expected = torch.tensor(products, dtype=torch.float64)
    t = torch.arange(1, 301, dtype=torch.float64) / 300
    torch.testing.assert_close(schedule.alpha(t), expected.sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(schedule.sigma(t), (1 - expected).sqrt(), rtol=1e-10, atol=0)
    torch.testing.assert_close(schedule.alpha(t.float()), expected.sqrt().float(), rtol=1e-6, atol=0)
    assert float(schedule.alpha(t[0])) == pytest.approx((1 - 1e-4) ** 0.5, abs=1e-12)
    assert float(schedule.alpha(t[299])) == pytest.approx(0.2192, abs=5e-5)
    assert float(schedule.ratio(t[299])) ** -2 == pytest.approx(0.0505, abs=5e-5)


@schedules
def test_schedule_contract(schedule) -> None:  # type: ignore[no-untyped-def]
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert float(schedule.alpha(t[0])) == pytest.approx(1)
    assert float(schedule.sigma(t[0])) == pytest.approx(0, abs=1e-9)
    ratio = schedule.ratio(t)
    assert (ratio.diff() > 0).all()
    inside = slice(1, 1000)
    torch.testing.assert_close(schedule.time_at(ratio)[inside], t[inside], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(schedule.log_snr(t)[inside], 2 * (schedule.alpha(t) / schedule.sigma(t)).log()[inside])
    assert schedule.alpha(t.float()).dtype == torch.float32
    assert float(schedule.time_at(torch.tensor(float("inf")))) == 1


def test_add_noise_is_per_image() -> None:
    schedule = Linear(300)
    x, z, t = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.tensor([1 / 300, 0.5, 1.0])
    got = add_noise(schedule, x, t, z)
    for b in range(3):
        torch.testing.assert_close(got[b], schedule.alpha(t[b]) * x[b] + schedule.sigma(t[b]) * z[b])


@schedules
@pytest.mark.parametrize("name", TRAINING_TIMES)
def test_training_times_contract(name: str, schedule) -> None:  # type: ignore[no-untyped-def]
    times = TRAINING_TIMES[name]()
    u = stratified_uniform(0.3, 10_000)
    if name == "discrete" and schedule.steps is None:
        with pytest.raises(UserError, match="linear"):
            times(u, schedule)
        return
    t = times(u, schedule)
    assert t.shape == (10_000,) and (t > 0).all() and (t <= 1).all()
    if name == "discrete":
        assert len(torch.unique((t * schedule.steps).round())) == schedule.steps


def test_log_normal_times_have_their_law() -> None:
    schedule = SCHEDULES["karras"]()
    logs = schedule.sigma(LogNormalTimes(-1.2, 1.2)(stratified_uniform(0.5, 20000), schedule)).log()
    assert float(logs.mean()) == pytest.approx(-1.2, abs=0.01)
    assert float(logs.std()) == pytest.approx(1.2, abs=0.01)


@schedules
@pytest.mark.parametrize("name", SAMPLING_TIMES)
def test_sampling_times_contract(name: str, schedule) -> None:  # type: ignore[no-untyped-def]
    times = SAMPLING_TIMES[name]()
    for n in [1, 2, 3, 7, 20, 50, 299, 300, schedule.steps or 1000]:
        t = times(schedule, n)
        assert t.shape == (n + 1,) and t[0] == 1 and t[-1] == 0
        assert (t.diff() < 0).all()
        assert torch.equal(times.below(1.0, schedule, n), t)
    for begin in (0.003, 0.02, 0.37, 0.9991):
        t = times.below(begin, schedule, 20)
        assert t[0] == begin and t[-1] == 0 and (t.diff() < 0).all()
        assert len(t) == 21 if schedule.steps is None else 2 <= len(t) <= 21
    with pytest.raises(UserError):
        times(schedule, 0)


@pytest.mark.parametrize("name", ["uniform", "trailing"])
def test_discrete_sampling_times_are_whole_steps(name: str) -> None:
    schedule = Linear(300)
    for n in range(1, 301):
        steps = SAMPLING_TIMES[name]()(schedule, n) * 300
        torch.testing.assert_close(steps, steps.round())
        assert len(torch.unique(steps)) == n + 1
    with pytest.raises(UserError, match="at most 300"):
        SAMPLING_TIMES[name]()(schedule, 301)
