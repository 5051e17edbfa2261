"""Without a GPU at hand: everything on the `meta` device, where a tensor made elsewhere or a hidden wait fails."""

import pytest
import torch
from torch import Tensor

from unnoise.diffusion.guidance import GUIDANCES
from unnoise.diffusion.inversion import invert
from unnoise.diffusion.loss import LOSSES
from unnoise.diffusion.samplers import SAMPLERS
from unnoise.diffusion.sampling import SamplingConfig, sample, starting_point, trajectory
from unnoise.diffusion.schedules import SCHEDULES, Linear
from unnoise.diffusion.timesteps import SAMPLING_TIMES, TRAINING_TIMES
from unnoise.presets import PRESETS
from unnoise.recipe import Recipe, override
from unnoise.registry import NETWORKS
from unnoise.restoration.operators import BlockDCT, Blur, Downsample, Identity, Mask, Signs
from unnoise.restoration.posteriors import POSTERIORS, Measurement, denoise, denoise_by_sampling
from unnoise.restoration.tiling import TiledDenoiser
from unnoise.training.batches import Batch
from unnoise.training.config import TrainingConfig
from unnoise.training.loop import gradients
from unnoise.utils.rng import BatchRng

META = torch.device("meta")


def model(network: str = "unet", schedule: str = "karras"):  # type: ignore[no-untyped-def]
    plain = {"target": "velocity", "schedule": schedule, "network": network, "network.widths": [16, 32], "sampling.steps": 5}
    recipe: Recipe = override(PRESETS["digits"], plain)
    return recipe.build_denoiser((1, 8, 8), 0 if network == "simple-unet" else 10).to(META)


def images(count: int = 4) -> Tensor:
    return torch.empty(count, 1, 8, 8, device=META)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(network: str, loss: str) -> None:
    denoiser = model(network)
    label = None if network == "simple-unet" else torch.zeros(4, dtype=torch.long, device=META)
    batch = Batch(images(), torch.empty(4, device=META), images(), label)
    value, parts = gradients(denoiser.train(), batch, TrainingConfig(loss=LOSSES[loss]()), bf16=False, parts=2)
    assert value.device == META and parts == 2
    assert all(p.grad is not None and p.grad.device == META for n, p in denoiser.named_parameters() if "augmentation" not in n)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler(name: str, schedule: str) -> None:
    denoiser, noise = model(schedule=schedule).eval(), BatchRng(0, range(4))
    label = torch.zeros(4, dtype=torch.long, device=META)
    x = starting_point(denoiser, noise, images())
    for times in SAMPLING_TIMES.values():
        sampling = SamplingConfig(SAMPLERS[name](), times(), 3)
        assert all(r.x.device == META for r in trajectory(denoiser, x, sampling, noise, label))
    assert sample(denoiser, (1, 8, 8), range(4), sampling, device=META).shape == (4, 1, 8, 8)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_restoring(schedule: str) -> None:
    denoiser = model(schedule=schedule).eval()
    assert denoise(denoiser, images(), 0.3).device == META
    drawn = denoise_by_sampling(denoiser, images(), 0.3, SamplingConfig(steps=3), BatchRng(0, range(4)))
    assert all(record.x.device == META for record in drawn)


MASK = Mask(torch.ones(8, 8))
OPERATORS = [Identity(), MASK, Downsample(2), Downsample(2, "bicubic") @ MASK, Blur.gaussian(0.8), Signs(), BlockDCT()]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", POSTERIORS)
def test_every_posterior(name: str, schedule: str) -> None:
    denoiser, noise = model(schedule=schedule).eval(), BatchRng(0, range(4))
    label = torch.zeros(4, dtype=torch.long, device=META)
    for operator in OPERATORS:
        y = operator(images())
        posterior = POSTERIORS[name]().wrap(denoiser, Measurement(y, operator, torch.empty((), device=META)))
        x = starting_point(denoiser, noise, images())
        assert all(r.x.device == META for r in trajectory(posterior, x, SamplingConfig(steps=2), noise, label))


@pytest.mark.parametrize("kind", GUIDANCES)
def test_every_guidance(kind: str) -> None:
    denoiser, noise = model().eval(), BatchRng(0, range(4))
    label = torch.zeros(4, dtype=torch.long, device=META)
    guided = GUIDANCES[kind]().wrap(denoiser, denoiser)
    x = starting_point(denoiser, noise, images())
    assert all(r.x.device == META for r in trajectory(guided, x, SamplingConfig(steps=2), noise, label))
    tiled = TiledDenoiser(guided, (8, 8))(torch.empty(2, 1, 20, 12, device=META), torch.tensor(0.5), label[:2])
    assert tiled.device == META and invert(denoiser, images(), SamplingConfig(steps=4), label).device == META


@pytest.mark.parametrize("name", TRAINING_TIMES)
def test_training_times(name: str) -> None:
    assert TRAINING_TIMES[name]()(torch.empty(4, device=META), Linear(10)).device == META
