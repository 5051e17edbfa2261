"""A recipe in plain words."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.data.arrays import InMemory
from unnoise.data.dataset import Source
from unnoise.data.hub import Hub
from unnoise.diffusion.denoiser import EDM, X0, Denoiser, Epsilon, FlowVelocity, Velocity
from unnoise.diffusion.guidance import AutoGuidance, ClassGuidance, NoGuidance
from unnoise.diffusion.loss import L1, L2, Huber, PseudoHuber
from unnoise.diffusion.samplers import DDIM, DDPM, Consistency, DPMpp2M, DPMpp2MSDE, DPMpp2S, Euler, EulerAncestral, Heun, UniPC
from unnoise.diffusion.sampling import trajectory
from unnoise.diffusion.schedules import Cosine, Flow, Karras, Linear, Schedule
from unnoise.networks.unet import UNetConfig
from unnoise.recipe import RunInfo
from unnoise.registry import to_json
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

PLACES = ("path", "root", "repo")  # fields that say where something lies on a machine
MAX_STEPS = 2000  # of a sampler whose calls are counted
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "muon": "Muon"}
WORDS: dict[type, str] = {
    Linear: "linear in beta",
    Cosine: "cosine",
    Karras: "variance-exploding (EDM)",
    Flow: "flow matching",
    Epsilon: "the noise (epsilon)",
    X0: "the clean image (x0)",
    Velocity: "the velocity between image and noise (v)",
    FlowVelocity: "the flow velocity from image to noise",
    EDM: "image and noise, mixed by the noise level (EDM preconditioning)",
    L1: "absolute error (L1)",
    L2: "squared error (L2)",
    Huber: "Huber's",
    PseudoHuber: "pseudo-Huber",
    DDPM: "DDPM",
    DDIM: "DDIM",
    Euler: "Euler",
    EulerAncestral: "Euler ancestral",
    Heun: "Heun",
    DPMpp2S: "DPM-Solver++(2S)",
    DPMpp2M: "DPM-Solver++(2M)",
    DPMpp2MSDE: "SDE-DPM-Solver++(2M)",
    UniPC: "UniPC",
    Consistency: "consistency",
    ClassGuidance: "class (classifier-free guidance)",
    AutoGuidance: "an early average of the weights (autoguidance)",
}


def source_title(source: Source) -> str:
    """What images are called: of a place on a machine the last part alone."""
    if isinstance(source, InMemory):
        return "images given from Python"
    if isinstance(source, Hub) and not Path(source.repo).is_absolute():
        return source.repo
    fields = to_json(source)
    place = fields.get("path") or fields.get("repo") or ""  # a published data set's `root` is no name of it
    return Path(str(place)).name or str(fields["name"])


def part(value: Any) -> str:
    """A part by its name, with the fields that are not as by default."""
    fields = to_json(value)
    name = str(fields["name"])
    default = {f.name: f.default for f in dataclasses.fields(value) if dataclasses.is_dataclass(value)}
    other = [f"{k.replace('_', ' ')} {_plain(v)}" for k, v in fields.items()
             if k not in ("name", "module", *PLACES) and default.get(k, ...) != getattr(value, k, None)]  # fmt: skip
    return ", ".join([WORDS.get(type(value), name), *other])


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    if isinstance(value, dict):
        return str(value.get("name", ""))
    return f"{value:g}" if isinstance(value, float) else str(value)


def network(info: RunInfo, parameters: int | None) -> str:
    """The kind of network, its size."""
    config = info.recipe.network
    size = "" if parameters is None else f"; {parameters:,} parameters"
    if isinstance(config, UNetConfig):
        patch = f" on patches of {config.patch}x{config.patch}" if config.patch > 1 else ""
        plural = "s" * (config.blocks > 1)
        return (
            f"U-Net{patch} with {', '.join(map(str, config.widths))} channels by level, {config.blocks} block{plural} each{size}"
        )
    return part(config) + size


def recipe(info: RunInfo, parameters: int | None, steps: int | None) -> tuple[tuple[str, str], ...]:
    """Network and training, a line each."""
    r, t = info.recipe, info.recipe.training
    length = "not begun" if steps is None else f"{steps:,} steps of {t.batch} images"
    if steps and info.images:
        length += f", each image seen {steps * t.batch / info.images:.0f} times"
    rows = [
        ("Network", network(info, parameters)),
        ("Noise schedule", part(r.schedule)),
        ("Network predicts", part(r.target)),
        ("Loss", part(t.loss)),
        ("Optimizer", f"{OPTIMIZERS[t.optimizer]}, learning rate {t.learning_rate:.3g}, {t.lr_schedule}"),
        ("Length", length),
        (
            "Weights used",
            f"their average of relative width {t.ema:g} (power-function EMA)" if t.ema else "those of the last step",
        ),
        ("Precision", "bfloat16" if info.bf16 else "float32"),
        ("Seed", str(t.seed)),
    ]
    if info.from_run:
        rows.append(("Began with", f"the weights of the run {info.from_run}"))
    return tuple(rows)


def sampling(info: RunInfo) -> str:
    """The sampler, and how often it calls the network for an image."""
    config = info.recipe.sampling
    guided = "" if isinstance(config.guidance, NoGuidance) else f", guidance by {part(config.guidance)}"
    calls = count_calls(info)
    shown = "" if calls is None else f", {calls} network calls an image"
    return f"{part(config.sampler)}, {config.steps} steps{shown}{guided}"


class _Counter(Denoiser):
    """An estimate of 0, and how often it was asked for."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule, self.calls = schedule, 0

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        self.calls += len(x_t)  # guidance by class asks for both at once
        return torch.zeros_like(x_t)


def count_calls(info: RunInfo) -> int | None:
    """Network calls for an image, as its sampler makes them; None where it can't be run."""
    config = info.recipe.sampling
    if config.steps > MAX_STEPS:
        return None
    counter = _Counter(info.recipe.schedule)
    wrapped = config.guidance.wrap(counter, counter)
    label = torch.zeros(1, dtype=torch.int64) if info.classes else None
    try:
        for _ in trajectory(wrapped, torch.zeros(1, 1, 1, 1), config, BatchRng(0, [0]), label):
            pass
    except UserError:
        return None
    return counter.calls
