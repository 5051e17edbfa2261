"""Step by step beside diffusers' schedulers, with equal noise. Where theirs deviate from their papers, it is said why."""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor, nn

from tests.diffusion.oracles import take_step
from unnoise.diffusion.denoiser import EDM, Denoiser, NetworkDenoiser
from unnoise.diffusion.samplers import DDIM, DDPM, DPMpp2M, DPMpp2MSDE, Euler, Heun, Sampler, UniPC
from unnoise.diffusion.sampling import ClampedDenoiser
from unnoise.diffusion.schedules import Karras, Linear, Schedule
from unnoise.diffusion.timesteps import KarrasSteps, TrailingSteps

COUNTS = [(1000, 10), (1000, 25), (1000, 50), (300, 10), (300, 25), (300, 50)]
BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "timestep_spacing": "trailing"}
START = torch.arange(768, dtype=torch.float64).reshape(3, 8, 8, 4).permute(3, 0, 1, 2) / 768


class Ratio(Denoiser):
    """The model of diffusers' own scheduler tests: eps = x k / (k + 1) at step k."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        k = t * (self.schedule.steps or 0) - 1
        return (x_t - self.schedule.sigma(t) * x_t * k / (k + 1)) / self.schedule.alpha(t)


def beside(theirs: Any, ours: Sampler, steps: int, count: int, stop: int = 0) -> None:
    """Every step but the last `stop`; theirs keeps its tables in float32, hence the tolerance."""
    denoiser = Ratio(Linear(steps))
    theirs.set_timesteps(count)
    x, y, state = START, START.clone(), None
    times = TrailingSteps()(denoiser.schedule, count)
    generator, own = (torch.Generator().manual_seed(1) for _ in range(2))
    for k in range(count - stop):
        step = theirs.timesteps[k]
        assert round(float(times[k]) * steps) - 1 == int(step)
        extra = {} if isinstance(theirs, UniPCMultistepScheduler) else {"generator": generator}
        y = theirs.step(y * step / (step + 1), step, y, **extra).prev_sample
        kind = torch.float32 if isinstance(ours, DPMpp2MSDE) else torch.float64  # as theirs draw
        noise = [torch.randn(START.shape, generator=own, dtype=kind).double()] if _adds_noise(ours) else []
        x, _, state = take_step(ours, denoiser, x, times[k], times[k + 1], state, noise)
        torch.testing.assert_close(x, y, rtol=3e-4, atol=1e-4)


def _adds_noise(sampler: Sampler) -> bool:
    return isinstance(sampler, DDPM | DPMpp2MSDE) or (isinstance(sampler, DDIM) and sampler.eta > 0)


@pytest.mark.parametrize(("steps", "count"), COUNTS)
@pytest.mark.parametrize("name", ["ddpm", "ddpm-forward", "ddim", "dpm++2m", "dpm++2m-sde", "unipc"])
def test_step_by_step(name: str, steps: int, count: int) -> None:
    """x after every step is theirs."""
    last = {"final_sigmas_type": "zero", "lower_order_final": True}
    plain = BETAS | {"clip_sample": False}
    sde = BETAS | last | {"algorithm_type": "sde-dpmsolver++"}
    theirs, ours, stop = {
        "ddpm": (DDPMScheduler(steps, **plain), DDPM(), 0),
        # Its last step, though it ends at the image, adds noise of the whole beta: left out.
        "ddpm-forward": (DDPMScheduler(steps, **plain, variance_type="fixed_large"), DDPM(variance="forward"), 1),
        "ddim": (DDIMScheduler(steps, **plain), DDIM(), 0),
        "dpm++2m": (DPMSolverMultistepScheduler(steps, **BETAS, **last), DPMpp2M(), 0),
        "dpm++2m-sde": (DPMSolverMultistepScheduler(steps, **sde), DPMpp2MSDE(), 0),
        "unipc": (UniPCMultistepScheduler(steps, **BETAS, **last), UniPC(), 0),
    }[name]  # fmt: skip
    beside(theirs, ours, steps, count, stop)


@pytest.mark.parametrize(("steps", "count"), COUNTS)
@pytest.mark.parametrize("name", ["euler", "heun"])
def test_in_y_and_r(name: str, steps: int, count: int) -> None:
    """Theirs work in y = x / alpha and r = sigma / alpha; their second calls are steps of their own."""
    theirs = (EulerDiscreteScheduler if name == "euler" else HeunDiscreteScheduler)(steps, **BETAS)
    theirs.set_timesteps(count)
    denoiser = Ratio(Linear(steps))
    times = TrailingSteps()(denoiser.schedule, count)
    y = START / denoiser.schedule.alpha(times[0])
    x = START
    for step in theirs.timesteps:
        guess = theirs.scale_model_input(y, step) * step / (step + 1)
        y = theirs.step(guess, step, y).prev_sample
    for k in range(count):
        x, _, _ = take_step(Euler() if name == "euler" else Heun(), denoiser, x, times[k], times[k + 1])
    torch.testing.assert_close(x, y.double(), rtol=2e-3, atol=1e-3)


class Product(nn.Module):
    """Some network of an image and c_noise."""

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.sin(3 * x) * c_noise[:, None, None, None].to(x)


@pytest.mark.parametrize("count", [10, 25, 50])
def test_euler_of_edm(count: int) -> None:
    """Its preconditioning, its noise levels and its steps, from pure noise to the image."""
    theirs = EDMEulerScheduler(0.002, 80.0, 0.5)
    theirs.set_timesteps(count)
    schedule = Karras(80.0)
    denoiser = NetworkDenoiser(Product(), schedule, EDM(0.5))
    # Theirs visit the last level, .002, too: those of one step more, but for the step from it to 0.
    times = torch.cat([KarrasSteps()(schedule, count - 1)[:-1], torch.tensor([0.002 / 80, 0.0]).double()])
    y, x = START * 80, START * 80
    for k, step in enumerate(theirs.timesteps):
        guess = Product()(theirs.scale_model_input(y, step), step[None].double())
        y = theirs.step(guess, step, y).prev_sample
        x, _, _ = take_step(Euler(), denoiser, x, times[k], times[k + 1])
        torch.testing.assert_close(x, y.double(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [10, 25, 50])
def test_ddim_reference_sum(count: int) -> None:
    """The sums that diffusers' harness gives for T = 300 (leading times as they take them, clipped)."""
    expected = {10: 189.0186, 25: 196.3546, 50: 199.2085}[count]
    schedule = Linear(300)
    denoiser, x = Ratio(schedule), START
    # Theirs never begin at the last training time: our `leading` does.
    index = [k * (300 // count) for k in range(count)][::-1]
    times = torch.tensor([(k + 1) / 300 for k in index], dtype=torch.float64)
    # Their last step goes to alpha_bar of "step -1", which is the image.
    ends = torch.cat([times[1:], torch.zeros(1, dtype=torch.float64)])
    for t, s in zip(times, ends, strict=True):
        # Theirs keeps the network's own noise after clipping the estimate; write that out.
        eps = (x - schedule.alpha(t) * denoiser(x, t)) / schedule.sigma(t)
        x = schedule.alpha(s) * ClampedDenoiser(denoiser)(x, t) + schedule.sigma(s) * eps
    assert float(x.abs().sum()) == pytest.approx(expected, abs=0.01)


def test_linspace_of_ddim_takes_a_wrong_step_before() -> None:
    """diffusers' DDIM finds the step before as t - T / n, whatever the spacing: with linspace that is not where it goes next."""
    theirs = DDIMScheduler(1000, 1e-4, 0.02, "linear", clip_sample=False, timestep_spacing="linspace")
    theirs.set_timesteps(10)
    assert int(theirs.timesteps[7]) == 222 and int(theirs.timesteps[8]) == 111
    denoiser = Ratio(Linear(1000))
    y = theirs.step(START * 222 / 223, 222, START).prev_sample
    t, right, wrong = (torch.tensor((k + 1) / 1000, dtype=torch.float64) for k in (222, 111, 122))
    steps = [take_step(DDIM(), denoiser, START, t, s)[0] for s in (right, wrong)]
    torch.testing.assert_close(steps[1], y, rtol=3e-4, atol=1e-4)
    assert float((steps[0] - y).abs().max()) > 1e-3
