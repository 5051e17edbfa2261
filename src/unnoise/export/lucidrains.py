"""Checkpoints of lucidrains' denoising-diffusion-pytorch (version 2) as runs, whose network is that library's own Unet.

Its Trainer writes model-N.pt: the GaussianDiffusion's weights and buffers, their average, the optimizer. Not in it: the size.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unnoise.data.sources import DataConfig
from unnoise.diffusion.denoiser import X0, Epsilon, Target, Velocity
from unnoise.diffusion.samplers import DDPM
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Betas
from unnoise.diffusion.timesteps import DiscreteTimes
from unnoise.export.place import make_run
from unnoise.export.weights import read_torch
from unnoise.networks.base import ModuleConfig
from unnoise.recipe import Recipe, RunInfo, override
from unnoise.run_folder import RunFolder
from unnoise.training.config import TrainingConfig
from unnoise.utils.errors import UserError

INNER = "unet"  # of the wrapped network
MIN_SNR = 5.0  # where the library clips the signal-to-noise ratio, if it was asked to


class LucidrainsUnet(nn.Module):
    """The library's Unet as a network: (B, C, H, W), step (B,) -> (B, C, H, W)."""

    counts_steps = True

    def __init__(self, channels: int, dim: int, init_dim: int, dim_mults: tuple[int, ...], full_attn: tuple[bool, ...],
                 heads: tuple[int, ...], head_size: tuple[int, ...]) -> None:  # fmt: skip
        super().__init__()
        try:
            from denoising_diffusion_pytorch import Unet
        except ImportError as e:
            raise UserError("this network is that of the library denoising-diffusion-pytorch: pip install "
                            "denoising-diffusion-pytorch") from e  # fmt: skip
        self.unet = Unet(dim, init_dim=init_dim, dim_mults=dim_mults, channels=channels, full_attn=full_attn, attn_heads=heads,
                         attn_dim_head=head_size)  # fmt: skip

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        out: Tensor = self.unet(x, c_noise)
        return out


def is_checkpoint(value: Any) -> bool:
    """Whether what a .pt file holds is what the library's Trainer writes."""
    return isinstance(value, dict) and {"step", "model", "opt", "ema"} <= value.keys()


def import_lucidrains(path: Path, run: Path, changes: dict[str, Any]) -> RunInfo:
    """Make a run folder of model-N.pt. `changes` give data.size, and may give the target. Raises UserError that says why not."""
    folder = RunFolder(run)
    folder.refuse_existing()
    data = read_torch(path)
    average = {name.removeprefix("ema_model."): v for name, v in data["ema"].items() if name.startswith("ema_model.")}
    state = average or dict(data["model"])
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"'{path}' holds what are no tensors where denoising-diffusion-pytorch keeps its weights")
    weights = {name.removeprefix("model."): value.float() for name, value in state.items() if name.startswith("model.")}
    channels, network = _network(weights, path)
    recipe = Recipe(DataConfig(labels=False), Betas(_buffer(state, "betas", path)), X0(), network,
                    TrainingConfig(times=DiscreteTimes()), SamplingConfig(DDPM(), steps=len(state["betas"])))  # fmt: skip
    known = {} if "target" in changes else {"target": _target(state, path)}
    recipe = override(recipe, known | changes)
    if recipe.data.size is None:
        raise UserError("say the size that the weights were trained at, e.g. data.size 64")
    divisor = 2 ** (len(dict(network.options)["dim_mults"]) - 1)
    if any(side % divisor for side in recipe.data.size):
        raise UserError(f"this network needs height and width in multiples of {divisor}: give its own data.size")
    info = RunInfo(replace(recipe, data=replace(recipe.data, labels=False)), (channels, *recipe.data.size))
    make_run(folder, info, {f"network.{INNER}.{name}": value for name, value in weights.items()})
    return info


def _buffer(state: dict[str, Tensor], name: str, path: Path) -> tuple[float, ...]:
    if name not in state:
        raise UserError(f"'{path}' lacks '{name}', which every checkpoint of denoising-diffusion-pytorch has")
    return tuple(state[name].double().tolist())


def _network(weights: dict[str, Tensor], path: Path) -> tuple[int, ModuleConfig]:
    """The number of channels and the network, read off the weights."""
    try:
        channels, dim = len(weights["final_conv.weight"]), weights["time_mlp.1.weight"].shape[1]
        init = weights["init_conv.weight"]
        levels = range(len({m[1] for name in weights if (m := re.match(r"downs\.(\d+)\.", name))}))
        outs = [len(weights.get(f"downs.{k}.3.1.weight", weights.get(f"downs.{k}.3.weight"))) for k in levels]  # type: ignore[arg-type]
        full = tuple(f"downs.{k}.2.to_out.weight" in weights for k in levels)
        memory = [weights[f"downs.{k}.2.mem_kv"].shape for k in levels]
    except (KeyError, TypeError, IndexError) as e:
        raise UserError(f"'{path}' is of another version of denoising-diffusion-pytorch than 2, or of another network of it "
                        f"({e}): read it with the version that wrote it") from e  # fmt: skip
    if init.shape[1] != channels:
        kind = "self-conditioning" if init.shape[1] > channels else "a learned variance"
        raise UserError(f"the network in '{path}' has {kind}, which samplers here don't know")
    options = {"dim": dim, "init_dim": len(init), "dim_mults": tuple(out // dim for out in outs), "full_attn": full,
               "heads": tuple(m[1] for m in memory),
               "head_size": tuple(m[3] if f else m[2] for m, f in zip(memory, full, strict=True))}  # fmt: skip
    return channels, ModuleConfig(LucidrainsUnet, tuple(options.items()))


def _target(state: dict[str, Tensor], path: Path) -> Target:
    """What the network predicts, which only the weights of the loss tell."""
    weight, kept = (torch.tensor(_buffer(state, name, path)) for name in ("loss_weight", "alphas_cumprod"))
    snr = kept / (1 - kept)
    targets: list[tuple[Target, Tensor]] = [(Epsilon(), 1 / snr), (Velocity(), 1 / (snr + 1)), (X0(), torch.ones_like(snr))]
    for clipped in (snr, snr.clamp(max=MIN_SNR)):
        for target, factor in targets:
            if torch.allclose(weight, clipped * factor, rtol=1e-3, atol=1e-6):
                return target
    raise UserError(f"'{path}' does not tell what the network predicts: say it, target epsilon, x0 or velocity")
