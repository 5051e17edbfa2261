"""A run as a folder of the library diffusers, in one of two forms.

Without code, for `DDPMPipeline.from_pretrained(FOLDER)`, where the network is `unet2d`, the schedule `linear` and there are no
classes:

    model_index.json   unet/config.json   unet/diffusion_pytorch_model.safetensors   scheduler/scheduler_config.json

With the source of what this run uses, for `DiffusionPipeline.from_pretrained(FOLDER, custom_pipeline=FOLDER,
trust_remote_code=True)`, which samples as this program does, from the same noise:

    model_index.json   pipeline.py   denoiser/config.json   denoiser/model.py   denoiser/diffusion_pytorch_model.safetensors
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from unnoise.diffusion import samplers
from unnoise.diffusion.denoiser import X0, Epsilon, Target, Velocity
from unnoise.diffusion.guidance import AutoGuidance
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.diffusion.schedules import Betas, Linear
from unnoise.diffusion.timesteps import LeadingSteps, UniformSteps
from unnoise.export.bundle import PACKAGE, bundle
from unnoise.export.place import bare_denoiser, write_folder
from unnoise.model import Model
from unnoise.networks.base import ModuleConfig
from unnoise.networks.unet2d import UNet2DConfig
from unnoise.recipe import Recipe, RunInfo, without_paths
from unnoise.registry import to_json
from unnoise.utils.errors import UserError

VERSION = "0.36.0"  # of diffusers, as whose the folders are written
WEIGHTS = "diffusion_pytorch_model.safetensors"
PREDICTIONS: dict[type[Target], str] = {Epsilon: "epsilon", X0: "sample", Velocity: "v_prediction"}
MODEL, PIPELINE = (Path(__file__).with_name(f"diffusers_{name}.py.txt") for name in ("model", "pipeline"))


def export_diffusers(run: Path, out: Path, overwrite: bool = False) -> str:
    """Write the folder `out`; says how it is loaded. Raises UserError for a network or schedule of the user's own."""
    model = Model.load(run, "cpu")
    denoiser, plain = bare_denoiser(model), needs_no_code(model.info)

    def fill(folder: Path) -> None:
        if plain:
            _write_plain(model.info, denoiser.network.state_dict(), folder)
        else:
            _write_with_code(model, {f"denoiser.{k}": v for k, v in denoiser.state_dict().items()}, folder)

    write_folder(out, overwrite, fill)
    if plain:
        return f"next: DDPMPipeline.from_pretrained('{out}'), which runs no code of this folder"
    kept = ""
    if isinstance(model.info.recipe.sampling.guidance, AutoGuidance):
        kept = "sampling there has no guidance: the early average is not exported; "
    return f"{kept}next: DiffusionPipeline.from_pretrained('{out}', custom_pipeline='{out}', trust_remote_code=True)"


def needs_no_code(info: RunInfo) -> bool:
    """Whether diffusers' own classes are this run's network and schedule."""
    recipe = info.recipe
    return (
        isinstance(recipe.network, UNet2DConfig)
        and isinstance(recipe.schedule, Linear | Betas)
        and type(recipe.target) in PREDICTIONS
        and not info.classes
        and recipe.sampling.start == "noise"
    )


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


def _write_plain(info: RunInfo, tensors: dict[str, Tensor], folder: Path) -> None:
    assert isinstance(info.recipe.network, UNet2DConfig)
    _write_json(folder / "unet" / "config.json", unet_config(info.recipe.network, info.shape))
    _write_weights(folder / "unet" / WEIGHTS, tensors)
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler_config(info))
    index = {"_class_name": "DDPMPipeline", "_diffusers_version": VERSION, "scheduler": ["diffusers", "DDPMScheduler"],
             "unet": ["diffusers", "UNet2DModel"]}  # fmt: skip
    _write_json(folder / "model_index.json", index)


def unet_config(network: UNet2DConfig, shape: tuple[int, int, int]) -> dict[str, Any]:
    """The configuration of UNet2DModel that is this network."""
    kinds = ["Attn" if level in network.attention_levels else "" for level in range(len(network.widths))]
    return {
        "_class_name": "UNet2DModel", "_diffusers_version": VERSION, "sample_size": list(shape[1:]),
        "in_channels": shape[0], "out_channels": shape[0], "center_input_sample": False, "time_embedding_type": "positional",
        "freq_shift": network.freq_shift, "flip_sin_to_cos": not network.sin_first,
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
        "block_out_channels": list(network.widths), "layers_per_block": network.blocks, "mid_block_scale_factor": 1,
        "downsample_padding": network.padding, "downsample_type": "conv", "upsample_type": "conv", "dropout": network.dropout,
        "act_fn": "silu", "attention_head_dim": network.head_size or None, "norm_num_groups": network.groups,
        "norm_eps": network.eps, "resnet_time_scale_shift": "default", "add_attention": network.middle_attention,
    }  # fmt: skip


def scheduler_config(info: RunInfo) -> dict[str, Any]:
    """That of a DDPMScheduler with this schedule and target, and the recipe's way to sample where it is DDPM's own."""
    schedule, sampling = info.recipe.schedule, info.recipe.sampling
    betas: dict[str, Any]
    if isinstance(schedule, Linear):
        betas = {"beta_schedule": "linear", "beta_start": schedule.beta_start, "beta_end": schedule.beta_end,
                 "rescale_betas_zero_snr": schedule.zero_terminal_snr}  # fmt: skip
    else:
        assert isinstance(schedule, Betas)
        betas = {"trained_betas": list(schedule.betas)}
    forward = isinstance(sampling.sampler, samplers.DDPM) and sampling.sampler.variance == "forward"
    spacing = {LeadingSteps: "leading", UniformSteps: "linspace"}.get(type(sampling.times), "trailing")
    return {
        "_class_name": "DDPMScheduler", "_diffusers_version": VERSION, "num_train_timesteps": schedule.steps, **betas,
        "prediction_type": PREDICTIONS[type(info.recipe.target)], "variance_type": "fixed_large" if forward else "fixed_small",
        "clip_sample": sampling.clamp_estimate and not sampling.dynamic, "clip_sample_range": 1.0,
        "thresholding": bool(sampling.clamp_estimate and sampling.dynamic),
        "dynamic_thresholding_ratio": sampling.dynamic or 0.995, "timestep_spacing": spacing, "steps_offset": 0,
    }  # fmt: skip


def _own(part: object) -> tuple[str, str]:
    """The module and name of a part's class. Raises UserError for one of the user's own."""
    kind = part.module if isinstance(part, ModuleConfig) else type(part)
    if isinstance(part, ModuleConfig) or kind.__module__.partition(".")[0] != PACKAGE:
        raise UserError(f"'{kind.__module__}:{kind.__qualname__}' is no part of this program, so its source is not exported: "
                        "export format onnx, which holds any network")  # fmt: skip
    return kind.__module__, kind.__qualname__


def _write_with_code(model: Model, tensors: dict[str, Tensor], folder: Path) -> None:
    moments = model.moments if model.info.recipe.sampling.start == "data" else None
    (folder / "denoiser").mkdir()
    (folder / "denoiser" / "model.py").write_text(_model_source(model.info.recipe), encoding="utf-8")
    (folder / "pipeline.py").write_text(_pipeline_source(model.info.recipe.sampling), encoding="utf-8")
    run, components = without_paths(to_json(model.info)), -1 if moments is None else len(moments.basis)
    config = {"_class_name": "UnnoiseDenoiser", "_diffusers_version": VERSION, "run": run, "components": components}
    _write_json(folder / "denoiser" / "config.json", config)
    _write_weights(folder / "denoiser" / WEIGHTS, tensors | ({} if moments is None else vars(moments)))
    index = {"_class_name": ["pipeline", "UnnoisePipeline"], "_diffusers_version": VERSION,
             "denoiser": ["model", "UnnoiseDenoiser"]}  # fmt: skip
    _write_json(folder / "model_index.json", index)


def _model_source(recipe: Recipe) -> str:
    """A module with the denoiser, whose network, schedule and target are those of the recipe."""
    parts = {"NetworkOf": recipe.network, "ScheduleOf": recipe.schedule, "TargetOf": recipe.target}
    found = {alias: _own(part) for alias, part in parts.items()}
    aliases = "\n".join(f"{alias} = {name}" for alias, (_, name) in found.items())
    imports = ["import dataclasses", "import typing", "import diffusers", "import torch",
               "from diffusers import ConfigMixin, ModelMixin",
               "from diffusers.configuration_utils import register_to_config"]  # fmt: skip
    return bundle("A denoiser of unnoise (MIT licence), with the source of all that it is made of.",
                  [*found.values(), ("unnoise.diffusion.denoiser", "NetworkDenoiser")], imports,
                  aliases + "\n\n\n" + MODEL.read_text(encoding="utf-8"))  # fmt: skip


def _pipeline_source(sampling: SamplingConfig) -> str:
    """A module with the pipeline and every sampler."""
    for part in (sampling.sampler, sampling.times, sampling.guidance):
        _own(part)
    names = {"sampling": ["trajectory", "starting_point", "SamplingConfig"], "samplers": ["SAMPLERS"],
             "timesteps": ["SAMPLING_TIMES"], "guidance": ["ClassGuidance"]}  # fmt: skip
    found = [(f"{PACKAGE}.diffusion.{module}", name) for module, own in names.items() for name in own]
    return bundle("Sampling from a denoiser of unnoise (MIT licence): its own samplers, from its own noise.",
                  [*found, ("unnoise.data.labels", "labels_for")],
                  ["import torch", "from diffusers import DiffusionPipeline, ImagePipelineOutput"],
                  PIPELINE.read_text(encoding="utf-8"))  # fmt: skip
