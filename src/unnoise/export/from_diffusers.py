"""Folders of the library diffusers as runs: a UNet2DModel with the scheduler of DDPM or DDIM, and what `unnoise export` wrote.

Nothing in them is executed: only JSON and safetensors are read.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from unnoise.data.sources import DataConfig
from unnoise.diffusion.denoiser import X0, Epsilon, Target, Velocity
from unnoise.diffusion.gaussian import Moments
from unnoise.diffusion.samplers import DDIM, DDPM, Sampler
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Betas, Linear, Schedule
from unnoise.diffusion.timesteps import DiscreteTimes, LeadingSteps, SamplingTimes, TrailingSteps, UniformSteps
from unnoise.export.diffusers import WEIGHTS
from unnoise.export.place import make_run
from unnoise.networks.unet2d import UNet2DConfig
from unnoise.recipe import Recipe, RunInfo
from unnoise.registry import from_json
from unnoise.run_folder import RunFolder
from unnoise.training.config import TrainingConfig
from unnoise.utils import atomic
from unnoise.utils.errors import UserError

TARGETS: dict[str, type[Target]] = {"epsilon": Epsilon, "sample": X0, "v_prediction": Velocity}
SPACINGS: dict[str, type[SamplingTimes]] = {"leading": LeadingSteps, "linspace": UniformSteps, "trailing": TrailingSteps}
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # of attention, before diffusers 0.12
OLD = re.compile(r"(attentions\.\d+)\.(query|key|value|proj_attn)\.")
FIXED = {  # fields of UNet2DModel, and of schedulers, with the one value that is read
    "act_fn": "silu", "center_input_sample": False, "time_embedding_type": "positional", "mid_block_scale_factor": 1,
    "resnet_time_scale_shift": "default", "class_embed_type": None, "num_class_embeds": None, "downsample_type": "conv",
    "upsample_type": "conv", "attn_norm_num_groups": None, "time_embedding_dim": None, "mid_block_type": "UNetMidBlock2D",
    "steps_offset": 0, "set_alpha_to_one": True, "sample_max_value": 1.0, "clip_sample_range": 1.0,
}  # fmt: skip
READ = {
    "sample_size", "in_channels", "out_channels", "freq_shift", "flip_sin_to_cos", "down_block_types", "up_block_types",
    "block_out_channels", "layers_per_block", "downsample_padding", "dropout", "attention_head_dim", "norm_num_groups",
    "norm_eps", "add_attention", "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
    "variance_type", "clip_sample", "prediction_type", "thresholding", "dynamic_thresholding_ratio", "timestep_spacing",
    "rescale_betas_zero_snr",
}  # fmt: skip
DDIM_STEPS = 50


@dataclass(frozen=True)
class Config:
    """A file of JSON, whose fields are asked for by name."""

    path: Path
    values: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Config":
        """Raises UserError for what is no JSON object."""
        try:
            values = atomic.read_json(path)
        except (OSError, ValueError) as e:
            raise UserError(f"'{path}' can't be read ({e}): give a folder that diffusers' save_pretrained wrote") from e
        if not isinstance(values, dict):
            raise UserError(f"'{path}' holds no JSON object: give a folder that diffusers' save_pretrained wrote")
        return cls(path, values)

    def check(self) -> None:
        """Raises UserError for fields of other values than are read, and for ones that are not known."""
        for name, value in self.values.items():
            if name in FIXED and value != FIXED[name]:
                raise self.refuse(name, f"it reads {FIXED[name]!r}")
            if name not in FIXED and name not in READ and name[:1] != "_" and value is not None:
                raise self.refuse(name, "no such field was there when this was written")

    def get(self, kind: Any, name: str, default: Any) -> Any:
        """A field of the type `kind`. Raises UserError for another."""
        return from_json(kind, self.values.get(name, default), f"{self.path.stem}.{name}")

    def refuse(self, name: str, works: str) -> UserError:
        return UserError(f"'{self.path}' has {name} {self.values.get(name)!r}, which this program does not read: {works}")


def import_diffusers(path: Path, run: Path) -> RunInfo:
    """Make a run folder of a diffusers folder. Raises UserError that names what in it can't be read."""
    folder = RunFolder(run)
    folder.refuse_existing()
    if (path / "denoiser" / "config.json").is_file():
        info, weights, moments = _read_own(path / "denoiser")
    else:
        info, weights, moments = *_read_plain(path), None
    make_run(folder, info, weights, moments)
    return info


def _read_own(path: Path) -> tuple[RunInfo, dict[str, Tensor], Moments | None]:
    """What `unnoise export --format diffusers` wrote, from its configuration alone."""
    config = Config.read(path / "config.json")
    info: RunInfo = from_json(RunInfo, config.values.get("run"), f"'{config.path}' run")
    tensors = _read_tensors(path / WEIGHTS)
    names = ("mean", "basis", "residual_std")
    moments = Moments(*(tensors.pop(name) for name in names)) if all(name in tensors for name in names) else None
    return info, {name.removeprefix("denoiser."): value for name, value in tensors.items()}, moments


def _read_plain(path: Path) -> tuple[RunInfo, dict[str, Tensor]]:
    unet, scheduler = (Config.read(path / part / name) for part, name in
                       (("unet", "config.json"), ("scheduler", "scheduler_config.json")))  # fmt: skip
    unet.check()
    scheduler.check()
    network, (c, h, w) = _network(unet), _shape(unet)
    schedule, sampling = _schedule(scheduler), _sampling(scheduler)
    prediction = scheduler.values.get("prediction_type", "epsilon")
    if prediction not in TARGETS:
        raise scheduler.refuse("prediction_type", f"one of {', '.join(TARGETS)}")
    recipe = Recipe(DataConfig(size=(h, w), labels=False), schedule, TARGETS[prediction](), network,
                    TrainingConfig(times=DiscreteTimes()), sampling)  # fmt: skip
    tensors = {
        OLD.sub(lambda m: f"{m[1]}.{OLD_NAMES[m[2]]}.", name): value
        for name, value in _read_tensors(path / "unet" / WEIGHTS).items()
    }
    return RunInfo(recipe, (c, h, w)), {f"network.{name}": value for name, value in tensors.items()}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Raises UserError where there is no such file, or pickled weights alone."""
    if not path.is_file():
        pickled = path.with_suffix(".bin").is_file()
        raise UserError(f"'{path.parent}' has {'pickled weights, which are never read' if pickled else 'no weights'}: save it "
                        "with save_pretrained(FOLDER, safe_serialization=True)")  # fmt: skip
    try:
        return {name: value.float() for name, value in load_file(path).items()}
    except Exception as e:  # safetensors raises its own kinds
        raise UserError(f"'{path}' is damaged ({str(e).splitlines()[0]}): restore it from a copy") from e


def _shape(unet: Config) -> tuple[int, int, int]:
    channels, out = unet.get(int, "in_channels", 3), unet.get(int, "out_channels", 3)
    if channels != out:
        raise unet.refuse("out_channels", f"as many as in_channels, {channels}: no learned variance")
    size = unet.values.get("sample_size")
    h, w = from_json(tuple[int, int], [size, size] if isinstance(size, int) else size, "config.sample_size")
    return channels, h, w


def _network(unet: Config) -> UNet2DConfig:
    widths = unet.get(tuple[int, ...], "block_out_channels", [224, 448, 672, 896])
    plain = ["DownBlock2D", *["AttnDownBlock2D"] * (len(widths) - 1)]
    down = unet.get(tuple[str, ...], "down_block_types", plain)
    up = unet.get(tuple[str, ...], "up_block_types", [kind.replace("Down", "Up") for kind in reversed(down)])
    if any(kind not in ("DownBlock2D", "AttnDownBlock2D") for kind in down) or len(down) != len(widths):
        raise unet.refuse("down_block_types", "DownBlock2D and AttnDownBlock2D, one for each of block_out_channels")
    if list(up) != [kind.replace("Down", "Up") for kind in reversed(down)]:
        raise unet.refuse("up_block_types", "those that mirror down_block_types")
    return UNet2DConfig(
        widths=widths, blocks=unet.get(int, "layers_per_block", 2),
        attention_levels=tuple(k for k, kind in enumerate(down) if kind.startswith("Attn")),
        head_size=unet.get(int | None, "attention_head_dim", 8) or 0, groups=unet.get(int, "norm_num_groups", 32),
        eps=unet.get(float, "norm_eps", 1e-5), dropout=unet.get(float, "dropout", 0.0),
        padding=unet.get(int, "downsample_padding", 1), middle_attention=unet.get(bool, "add_attention", True),
        freq_shift=unet.get(float, "freq_shift", 0), sin_first=not unet.get(bool, "flip_sin_to_cos", True),
    )  # fmt: skip


def _schedule(config: Config) -> Schedule:
    """The betas, as diffusers makes them."""
    steps, kind = config.get(int, "num_train_timesteps", 1000), config.values.get("beta_schedule", "linear")
    start, end = config.get(float, "beta_start", 1e-4), config.get(float, "beta_end", 0.02)
    zero_terminal_snr = config.get(bool, "rescale_betas_zero_snr", False)
    if config.values.get("trained_betas") is not None:
        return Betas(config.get(tuple[float, ...], "trained_betas", None))
    if kind == "linear":
        return Linear(steps, start, end, zero_terminal_snr)
    if zero_terminal_snr:
        raise config.refuse("rescale_betas_zero_snr", "with the beta_schedule linear alone")
    if kind == "scaled_linear":
        return Betas(tuple((torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2).tolist()))
    if kind == "squaredcos_cap_v2":  # Nichol & Dhariwal 2021, equation 17
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        kept = torch.cos((t + 0.008) / 1.008 * torch.pi / 2) ** 2
        return Betas(tuple((1 - kept[1:] / kept[:-1]).clamp(max=0.999).tolist()))
    raise config.refuse("beta_schedule", "one of linear, scaled_linear, squaredcos_cap_v2")


def _sampling(config: Config) -> SamplingConfig:
    """As the scheduler samples."""
    name, steps = config.values.get("_class_name"), config.get(int, "num_train_timesteps", 1000)
    sampler: Sampler
    if name == "DDPMScheduler":
        variances = {"fixed_small": "posterior", "fixed_small_log": "posterior", "fixed_large": "forward"}
        variance = config.values.get("variance_type", "fixed_small")
        if variance not in variances:
            raise config.refuse("variance_type", f"one of {', '.join(variances)}")
        sampler = DDPM(variance=variances[variance])
    elif name == "DDIMScheduler":
        sampler, steps = DDIM(), min(steps, DDIM_STEPS)
    else:
        raise config.refuse("_class_name", "DDPMScheduler or DDIMScheduler; save the pipeline with one of them")
    spacing = config.values.get("timestep_spacing", "leading")
    if spacing not in SPACINGS:
        raise config.refuse("timestep_spacing", f"one of {', '.join(SPACINGS)}")
    thresholding = config.get(bool, "thresholding", False)
    clamp = config.get(bool, "clip_sample", True)
    quantile = config.get(float, "dynamic_thresholding_ratio", 0.995) if thresholding else 0.0
    return SamplingConfig(sampler, SPACINGS[spacing](), steps, clamp or thresholding, dynamic=quantile)
