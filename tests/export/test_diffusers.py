"""Runs as folders of diffusers, sampled from there, and back."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.export.conftest import OTHER, UNET2D, MakeRun
from unnoise.diffusion.samplers import DDIM
from unnoise.diffusion.sampling import SamplingConfig, trajectory
from unnoise.diffusion.timesteps import TrailingSteps
from unnoise.export.diffusers import export_diffusers
from unnoise.export.from_diffusers import import_diffusers
from unnoise.model import Model
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError

SAMPLE = """
import sys
sys.modules["unnoise"] = None
import numpy as np
from diffusers import DiffusionPipeline
folder, out = sys.argv[1:]
pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
pipe.set_progress_bar_config(disable=True)
found = {
    "plain": pipe(batch_size=3, seed=2, output_type="pt").images,
    "other": pipe(batch_size=3, seed=2, num_inference_steps=3, class_label="all", guidance_scale=2, sampler="ddim",
                  output_type="pt").images,
    "pil": np.asarray(pipe(batch_size=1, seed=2).images[0]),
}
np.savez(out, **found)
"""


@pytest.mark.slow
def test_a_pipeline_with_its_source(small_run: Trainer, tmp_path: Path) -> None:
    """In a Python without this program: the images of the same seed, with labels, guidance and another sampler."""
    told = export_diffusers(small_run.folder.path, tmp_path / "a")
    assert "trust_remote_code=True" in told
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-c", SAMPLE, str(tmp_path / "a"), str(tmp_path / "found.npz")]
    subprocess.run(words, check=True, env=environment, cwd=tmp_path)
    found, model = np.load(tmp_path / "found.npz"), Model.load(small_run.folder.path, "cpu")
    expected = model.sample(3, seed=2, output="tensor").numpy()
    np.testing.assert_allclose(2 * found["plain"] - 1, expected, atol=1e-4)
    np.testing.assert_array_equal(found["pil"], model.sample(1, seed=2)[0, :, :, 0])
    from unnoise.diffusion.guidance import ClassGuidance

    sampling = model.info.recipe.sampling
    guided = SamplingConfig(DDIM(), sampling.times, 3, start="data", guidance=ClassGuidance(2.0))
    expected = model.sample(3, seed=2, label="all", sampling=guided, output="tensor").numpy()
    np.testing.assert_allclose(2 * found["other"] - 1, expected, atol=1e-4)


@pytest.mark.parametrize(("network", "schedule"), [("unet", "flow"), ("simple-unet", "linear"), ("unet2d", "cosine")])
def test_every_part_is_bundled(network: str, schedule: str, make: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source of each network and schedule is a module by itself, with the same estimates."""
    simple: dict[str, object] = {"network": network, "network__blocks": None, "network__embedding": None}
    own: dict[str, dict[str, object]] = {"unet2d": UNET2D, "simple-unet": simple}
    run = make("a", classes=2 if network == "unet2d" else 0, schedule=schedule, target="velocity", sampling__steps=4,
               **own.get(network, {}))  # fmt: skip
    export_diffusers(run, run.parent / "out")
    config = json.loads((run.parent / "out" / "denoiser" / "config.json").read_text())
    for file in ("denoiser/model.py", "pipeline.py"):
        text, module = (run.parent / "out" / file).read_text(), ModuleType(Path(file).stem)
        assert "unnoise." not in text and "import unnoise" not in text
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(text, file, "exec"), vars(module))
    theirs = sys.modules["model"].UnnoiseDenoiser(config["run"])
    from safetensors.torch import load_file

    theirs.load_state_dict(load_file(run.parent / "out" / "denoiser" / "diffusion_pytorch_model.safetensors"))
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.25, 0.75])
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(x, t), Model.load(run, "cpu").denoiser(x, t), rtol=1e-4, atol=1e-5)


PLAIN = {"schedule": "linear", "schedule__timesteps": 50, **UNET2D}


class FromGenerator:
    """The numbers of a generator of torch, in the order in which diffusers asks for them."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal_like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator)


@pytest.mark.parametrize("target", ["epsilon", "x0", "velocity"])
def test_a_pipeline_that_needs_no_code(target: str, make: MakeRun) -> None:
    """The images of DDPMPipeline are our sampler's for its noise, and those of its DDIM are ours for ours."""
    from diffusers import DDIMScheduler, DDPMPipeline

    run = make("a", target=target, sampling__sampler="ddpm", sampling__times="trailing", sampling__steps=10, **PLAIN)
    assert "runs no code" in export_diffusers(run, run.parent / "out")
    pipe = DDPMPipeline.from_pretrained(run.parent / "out", local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    model = Model.load(run, "cpu")
    generator = torch.Generator().manual_seed(3)
    found = 2 * torch.as_tensor(pipe(2, generator, num_inference_steps=10, output_type="pt").images) - 1
    rng = FromGenerator(3)
    start = rng.normal_like(torch.empty(2, 1, 8, 8))
    *_, record = trajectory(model.denoiser, start, model.info.recipe.sampling, rng)  # type: ignore[arg-type]
    torch.testing.assert_close(record.x.clamp(-1, 1), found, rtol=0, atol=1e-4)

    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(5)
    x = start
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(pipe.unet(x, t).sample, t, x, use_clipped_model_output=True).prev_sample
    *_, record = trajectory(model.denoiser, start, SamplingConfig(DDIM(), TrailingSteps(), 5), rng)  # type: ignore[arg-type]
    torch.testing.assert_close(record.x, x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("plain", [True, False], ids=["without code", "with code"])
def test_there_and_back(plain: bool, make: MakeRun, small_run: Trainer, tmp_path: Path) -> None:
    """Bit for bit, without any code being run."""
    run = make("a", target="epsilon", sampling__steps=4, **PLAIN) if plain else small_run.folder.path
    export_diffusers(run, tmp_path / "out")
    for code in (tmp_path / "out").rglob("*.py"):
        code.write_text("raise AssertionError")
    import_diffusers(tmp_path / "out", tmp_path / "back")
    sampling = SamplingConfig(DDIM(), TrailingSteps(), 4) if plain else None
    before, after = (Model.load(r, "cpu").sample(3, seed=5, sampling=sampling) for r in (run, tmp_path / "back"))
    np.testing.assert_array_equal(before, after)


def test_what_is_there_stays(make: MakeRun, tmp_path: Path) -> None:
    run = make("a", target="epsilon", **PLAIN)
    out = tmp_path / "out"
    (out / "unet").mkdir(parents=True)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        export_diffusers(run, out)
    assert [p.name for p in out.iterdir() if p.is_file()] == ["mine.txt"]
    export_diffusers(run, out, overwrite=True)
    assert (out / "mine.txt").read_text() == "mine" and (out / "unet" / "config.json").is_file()
    assert not list(out.glob(".*"))


def test_parts_of_ones_own_are_refused(make: MakeRun, tmp_path: Path) -> None:
    from tests.export.test_onnx import OneByOne

    run = make("a", network=OneByOne, **OTHER)
    with pytest.raises(UserError, match=r"test_onnx:OneByOne' is no part of this program.*export format onnx"):
        export_diffusers(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
