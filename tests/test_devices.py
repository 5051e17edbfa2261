"""Without a GPU at hand: everything on the `meta` device, where a tensor made elsewhere or a hidden wait fails.

All of it twice: as on any GPU, and as on Apple's, where a float64 tensor fails too.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unnoise.diffusion.denoiser import Denoiser
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
from unnoise.training.loop import compute_gradients
from unnoise.utils import precision
from unnoise.utils.rng import BatchRng
from unnoise.utils.runtime import Runtime

META = torch.device("meta")
WIDTHS: dict[str, Any] = {"network.widths": [16, 32]}


class NoFloat64(TorchDispatchMode):
    """Inside it the meta device has none, as Apple's GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        assert not any(isinstance(x, Tensor) and x.device == META and x.dtype == torch.float64 for x in tree_leaves(found)), func
        return found


@pytest.fixture(params=["any GPU", pytest.param("Apple's GPU", marks=pytest.mark.slow)], autouse=True)
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "any GPU":
        yield request.param
        return
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", {"meta"})
    with NoFloat64():
        yield request.param


class Tiny(nn.Module):
    """One convolution, with time and label: where it is not the network that is tested."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layer, self.label = nn.Conv2d(channels, channels, 3, padding=1), nn.Embedding(classes, channels)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        out: Tensor = self.layer(x) + c_noise[:, None, None, None]
        return out if label is None else out + self.label(label)[:, :, None, None]


def build(schedule: str = "karras", network: object = Tiny, **changes: object) -> Denoiser:
    """A denoiser with labels, where its network takes them, on the meta device."""
    recipe: Recipe = override(PRESETS["digits"], {"target": "velocity", "schedule": schedule, "sampling.steps": 5,
                                                  "network": network, **changes})  # fmt: skip
    return recipe.build_denoiser((1, 8, 8), 10 if recipe.network.takes_labels else 0).to(META)


def images(count: int = 4) -> Tensor:
    return torch.empty(count, 1, 8, 8, device=META)


def labels(count: int = 4) -> Tensor:
    return torch.zeros(count, dtype=torch.long, device=META)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(network: str, loss: str) -> None:
    """Of every network and loss, in two micro-batches: every parameter has a gradient, on its device."""
    denoiser = build(network=network, **WIDTHS)
    label = None if network == "simple-unet" else labels()
    batch = Batch(images(), torch.empty(4, device=META), images(), label)
    config = TrainingConfig(loss=LOSSES[loss]())
    value, micro_batches = compute_gradients(denoiser.train(), batch, config, Runtime("meta"), micro_batches=2)
    assert value.device == META and micro_batches == 2
    used = [p for n, p in denoiser.named_parameters() if n != "network.augment.weight"]  # no augmentation labels were given
    assert len(used) > 10 and all(p.grad is not None and p.grad.device == META for p in used)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler(name: str, schedule: str) -> None:
    """With every schedule and all sampling times; `sample` samples where the denoiser's parameters lie."""
    denoiser, rng = build(schedule).eval(), BatchRng(0, range(4))
    x = starting_point(denoiser, rng, images())
    for times in SAMPLING_TIMES.values():
        config = SamplingConfig(SAMPLERS[name](), times(), 3)
        assert all(r.x.device == META for r in trajectory(denoiser, x, config, rng, labels()))
    found = sample(denoiser, (4, 1, 8, 8), config=config, label=labels())
    assert found.shape == (4, 1, 8, 8) and found.device == META


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_denoising(schedule: str) -> None:
    """In one call of the network, and by sampling."""
    denoiser = build(schedule).eval()
    assert denoise(denoiser, images(), 0.3).device == META
    records = denoise_by_sampling(denoiser, images(), 0.3, SamplingConfig(steps=3), BatchRng(0, range(4)))
    assert all(record.x.device == META for record in records)


MASK = Mask(torch.ones(8, 8))
OPERATORS = [Identity(), MASK, Downsample(2), Downsample(2, "bicubic") @ MASK, Blur.gaussian(0.8), Signs(), BlockDCT()]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", POSTERIORS)
def test_every_posterior(name: str, schedule: str) -> None:
    """With every kind of operator."""
    denoiser, rng = build(schedule).eval(), BatchRng(0, range(4))
    make: Any = POSTERIORS[name]
    method = make(**{field.name: 2 for field in fields(make) if field.name == "iterations"})  # further ones are all alike
    for operator in OPERATORS:
        measurement = Measurement(operator(images()), operator, torch.empty((), device=META), (1, 8, 8))
        posterior = method.wrap(denoiser, measurement)
        x = starting_point(denoiser, rng, images())
        assert all(r.x.device == META for r in trajectory(posterior, x, SamplingConfig(steps=2), rng, labels()))


@pytest.mark.parametrize("kind", GUIDANCES)
def test_every_guidance(kind: str) -> None:
    """In a trajectory, with a time for each image, through tiles; and inversion."""
    denoiser, rng = build(network="unet", **WIDTHS).eval(), BatchRng(0, range(4))
    guided = GUIDANCES[kind]().wrap(denoiser, denoiser)
    x = starting_point(denoiser, rng, images())
    assert all(r.x.device == META for r in trajectory(guided, x, SamplingConfig(steps=2), rng, labels()))
    assert guided(x, torch.empty(4, device=META), labels()).device == META
    tiled = TiledDenoiser(guided, (8, 8))(torch.empty(2, 1, 20, 12, device=META), torch.tensor(0.5), labels(2))
    assert tiled.device == META and invert(denoiser, images(), SamplingConfig(steps=4), labels()).device == META


@pytest.mark.parametrize("name", TRAINING_TIMES)
def test_training_times(name: str) -> None:
    """From uniform numbers on a device to times on it."""
    assert TRAINING_TIMES[name]()(torch.empty(4, device=META), Linear(10)).device == META


def test_float64_is_noticed(gpu: str) -> None:
    """That it fails where Apple's GPU is meant, and there alone."""
    if gpu == "any GPU":
        assert precision.exact(images()).dtype == torch.float64
        return
    assert precision.exact(images()).dtype == torch.float32
    with pytest.raises(AssertionError, match="_to_copy"):
        images().double()
