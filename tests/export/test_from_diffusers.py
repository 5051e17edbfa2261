"""Folders that diffusers saved as runs: its estimates are ours; what can't be read is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from unnoise.diffusion.samplers import DDIM, DDPM
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.export.from_diffusers import import_diffusers
from unnoise.model import Model
from unnoise.utils.errors import UserError

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of diffusers with random weights; not to be changed."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(8, 1, 1, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=None,
                       down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
                       flip_sin_to_cos=False, freq_shift=1, downsample_padding=0, norm_eps=1e-6)  # fmt: skip
    path = tmp_path_factory.mktemp("diffusers") / "saved"
    DDPMPipeline(unet, DDPMScheduler(100)).save_pretrained(path)
    return path


def copy(saved: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(saved, to))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_estimates_are_those_of_the_scheduler(saved: Path, tmp_path: Path, betas: str, prediction: str) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    folder = copy(saved, tmp_path / "a")
    change(folder / "scheduler" / "scheduler_config.json", beta_schedule=betas, prediction_type=prediction, clip_sample=False)
    import_diffusers(folder, tmp_path / "run")
    model = Model.load(tmp_path / "run", "cpu")
    unet = UNet2DModel.from_pretrained(folder / "unet")
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
    x = torch.randn(1, 1, 8, 8)
    for step in (0, 40, 95):
        with torch.no_grad():
            expected = scheduler.step(unet(x, step).sample, step, x).pred_original_sample
            found = model.denoiser(x, torch.tensor((step + 1) / 100, dtype=torch.float64))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_scheduler_is_the_sampler(saved: Path, tmp_path: Path) -> None:
    info = import_diffusers(saved, tmp_path / "a")
    assert info.recipe.sampling == SamplingConfig(DDPM(), steps=100, times=info.recipe.sampling.times)
    folder = copy(saved, tmp_path / "b")
    change(folder / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler", timestep_spacing="trailing")
    info = import_diffusers(folder, tmp_path / "c")
    assert info.recipe.sampling == SamplingConfig(DDIM(), steps=50)
    assert len(np.unique(Model.load(tmp_path / "c").sample(2, steps=3))) > 10


def test_old_names_of_attention(saved: Path, tmp_path: Path) -> None:
    folder = copy(saved, tmp_path / "a")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(path)
    for new, before in old.items():
        tensors = {name.replace(new, before): value for name, value in tensors.items()}
    save_file(tensors, path)
    import_diffusers(folder, tmp_path / "old")
    import_diffusers(saved, tmp_path / "new")
    old_state, new_state = (load_file(tmp_path / name / "model.safetensors") for name in ("old", "new"))
    assert all(torch.equal(value, old_state[name]) for name, value in new_state.items()) and len(old_state) == len(new_state)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("unet/config.json", {"act_fn": "mish"}, "act_fn 'mish'.*silu"),
    ("unet/config.json", {"num_class_embeds": 10}, "num_class_embeds 10"),
    ("unet/config.json", {"out_channels": 2}, "no learned variance"),
    ("unet/config.json", {"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, "down_block_types"),
    ("unet/config.json", {"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "mirror down_block_types"),
    ("unet/config.json", {"block_out_channels": [16, 48]}, "not of the network that their configuration says"),
    ("unet/config.json", {"block_out_channels": [10**9, 16]}, "at most"),
    ("unet/config.json", {"sample_size": None}, "sample_size must be"),
    ("unet/config.json", {"a_new_field": 3}, "a_new_field 3"),
    ("scheduler/scheduler_config.json", {"_class_name": "PNDMScheduler"}, "DDPMScheduler or DDIMScheduler"),
    ("scheduler/scheduler_config.json", {"beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid'"),
    ("scheduler/scheduler_config.json", {"variance_type": "learned_range"}, "variance_type 'learned_range'"),
    ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "prediction_type 'flow'"),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, "at most"),
    ("scheduler/scheduler_config.json", {"steps_offset": 7}, "steps_offset 7"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "values", "words"), REFUSED, ids=[next(iter(v)) for _, v, _ in REFUSED])
def test_what_is_not_read_is_named(saved: Path, tmp_path: Path, file: str, values: dict[str, Any], words: str) -> None:
    folder = copy(saved, tmp_path / "a")
    change(folder / file, **values)
    with pytest.raises(UserError, match=words):
        import_diffusers(folder, tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.json").exists()


def test_weights_that_are_not_read(saved: Path, tmp_path: Path) -> None:
    path = Path("unet") / "diffusion_pytorch_model.safetensors"

    def pickled(folder: Path) -> None:
        (folder / path).rename((folder / path).with_suffix(".bin"))

    def not_finite(folder: Path) -> None:
        tensors = load_file(folder / path)
        tensors["conv_in.weight"][0, 0, 0, 0] = float("nan")
        save_file(tensors, folder / path)

    def endless_header(folder: Path) -> None:
        (folder / path).write_bytes((20 * 2**30).to_bytes(8, "little") + b"{}")

    def half_a_config(folder: Path) -> None:
        (folder / "unet" / "config.json").write_text("{")

    cases = {"pickled weights, which are never read": pickled, "'conv_in.weight' are not finite": not_finite,
             "damaged": endless_header, "can't be read": half_a_config}  # fmt: skip
    for k, (words, spoil) in enumerate(cases.items()):
        folder = copy(saved, tmp_path / f"{k}")
        spoil(folder)
        with pytest.raises(UserError, match=words):
            import_diffusers(folder, tmp_path / "run")
        assert not (tmp_path / "run").exists()
