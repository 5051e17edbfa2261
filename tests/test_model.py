"""A trained model: what it loads, how its samples depend on what is asked, and restoration in one call."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.conftest import call
from tests.conftest import quiet, small
from tests.diffusion.oracles import psnr
from unnoise.data.labels import labels_for
from unnoise.diffusion.denoiser import AutocastDenoiser
from unnoise.diffusion.guidance import AutoGuidance, ClassGuidance, NoGuidance
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.model import Model
from unnoise.restoration.noise import GaussianNoise, PoissonNoise
from unnoise.restoration.operators import Blur, Mask
from unnoise.runs.resume import resume
from unnoise.runs.start import begin
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng


def test_what_is_missing_is_named(small_run: Trainer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        Model.load(tmp_path / "nowhere")
    shutil.copy(small_run.folder.recipe, tmp_path)
    with pytest.raises(UserError, match=r"no model\.safetensors yet"):
        Model.load(tmp_path)
    shutil.copy(small_run.folder.model, tmp_path)
    model = Model.load(tmp_path)
    assert model.moments is not None and model.guide is None  # both files are all that sampling needs
    assert model.sample(1).shape == (1, 8, 8, 1)
    with pytest.raises(UserError, match=r"choose sampling\.start noise"):
        replace(model, moments=None).sample(1, sampling=SamplingConfig(start="data"))
    with pytest.raises(UserError, match=r"guide\.safetensors"):
        model.sample(1, sampling=SamplingConfig(guidance=AutoGuidance()))


def test_until_there_is_an_early_average_a_run_samples_without_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where its recipe guides by it; guidance that is asked for is refused."""
    run = begin(tmp_path / "run", small(training__steps=30, sampling__guidance="auto", sampling__guidance__scale=2), quiet)
    records = run.train()
    next(records)
    records.close()  # before the early average is stored
    model = Model.load(run.folder.path)
    plain = model.sample(2, sampling=replace(model.sampling(), guidance=NoGuidance()))
    assert model.lacks_guide(model.sampling()) and np.array_equal(model.sample(2), plain)
    assert call("sample", str(run.folder.path), "-n", "2", "--out", str(tmp_path / "a.npz")) == 0
    assert "without guidance, as the run has no early average yet" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"guide\.safetensors"):
        model.sample(2, sampling=replace(model.sampling(), guidance=AutoGuidance(3)))
    again = resume(run.folder.path, quiet)
    list(again.train())
    model = Model.load(run.folder.path)
    plain = model.sample(2, sampling=replace(model.sampling(), guidance=NoGuidance()))
    assert not model.lacks_guide(model.sampling()) and not np.array_equal(model.sample(2), plain)


def test_labels_of_samples(small_run: Trainer) -> None:
    """`all` is each class in turn, a name that class for all, nothing a class drawn for each."""
    model = Model.load(small_run.folder.path)
    for label in (None, "all", "7"):
        given = labels_for(label, model.info.classes, range(5), 3)
        expected = model.sample_batch(range(5), 3, label=given)
        assert torch.equal(model.sample(5, 3, label=label, output="tensor"), expected)


def test_precision_is_one_wrapper(small_run: Trainer) -> None:
    """A run that was trained in bfloat16 runs in it on the same kind of device, and its bare network is there."""
    info = replace(small_run.info, bf16=True)
    model = Model.of(small_run.state.average, info, moments=small_run.moments)
    assert isinstance(model.denoiser, AutocastDenoiser) and model.network is small_run.state.average.get_submodule("network")
    plain = small_run.model.sample_batch(range(4), label=torch.zeros(4, dtype=torch.long))
    close = model.sample_batch(range(4), label=torch.zeros(4, dtype=torch.long))
    assert not torch.equal(plain, close) and float((plain - close).abs().mean()) < 0.05


def test_what_a_mask_hides_is_ignored(digits_run: Trainer) -> None:
    """Whatever stands in the holes: the same result, to the bit; and the holes are filled in better than with the mean."""
    model, clean = digits_run.model, digits_run.split.held_out.tensor(slice(0, 8))
    mask = Mask.box((8, 8), 2, 2, 3, 3)
    found = []
    for filling in (-1.0, 1.0):
        y = torch.where(mask.mask > 0, clean, filling)
        found.append(model.restore(y, mask, GaussianNoise(2), samples=4, seed=1))
        photons = model.restore(y, mask, PoissonNoise(200), samples=1, seed=1)
        assert float((photons.mean - clean)[..., mask.mask > 0].abs().mean()) < 0.2
    assert torch.equal(found[0].mean, found[1].mean)
    holes = (mask.mask == 0).expand_as(clean)
    mean = clean.mean().expand_as(clean)
    assert psnr(found[0].mean[holes], clean[holes]) > psnr(mean[holes], clean[holes]) + 2


def test_restoring_in_one_call(digits_run: Trainer) -> None:
    """Deblurring of any size comes nearer to the truth than the blurred image; a needed label is asked for."""
    model = digits_run.model
    clean = digits_run.split.held_out.tensor(slice(0, 16))
    blur = Blur.gaussian(0.8)
    y = blur(clean) + 2 / 127.5 * BatchRng(0, range(16), "added").normal_like(clean)
    found = model.restore(y, blur, noise=GaussianNoise(2), samples=4)
    assert psnr(found.mean, clean) > psnr(y, clean) + 2 and found.std.shape == clean.shape
    assert model.restore(torch.zeros(1, 1, 11, 13), samples=1).mean.shape == (1, 1, 11, 13)
    with pytest.raises(UserError, match="unknown label 'cat'"):
        model.restore(y, blur, label="cat")
    for wrong, words in ((y[0], "not \\(1, 8, 8\\)"), (y.expand(16, 3, 8, 8), "they must agree")):
        with pytest.raises(UserError, match=words):
            model.restore(wrong)


def test_images_are_read_as_the_run_needs_them(small_run: Trainer, tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (10, 12), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([pixels] * 3)).save(tmp_path / "colour.png")
    model = small_run.model
    x = model.read_image(tmp_path / "grey.png")
    torch.testing.assert_close(x[0, 0], torch.from_numpy(pixels).float() / 127.5 - 1)
    assert model.read_image(tmp_path / "grey.png", fitted=True).shape == (1, 1, 8, 8)
    with pytest.raises(UserError, match="is colour and this run was trained on grey"):
        model.read_image(tmp_path / "colour.png")
    assert model.read_image(tmp_path / "colour.png", any_channels=True).shape == (1, 3, 10, 12)


def test_class_guidance_needs_a_network_that_was_trained_without_labels_too(small_run: Trainer) -> None:
    config, info = SamplingConfig(guidance=ClassGuidance(2.0)), small_run.info
    always = replace(info, recipe=replace(info.recipe, training=replace(info.recipe.training, label_dropout=0.0)))
    with pytest.raises(UserError, match="always saw them"):
        Model.of(small_run.state.average, always).sample(1, sampling=config)
    assert Model.of(small_run.state.average, info).sample(1, sampling=config).shape == (1, 8, 8, 1)
