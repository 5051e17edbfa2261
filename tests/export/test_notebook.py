"""Weights in the form of the notebook's final_model.pth, in and out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unnoise.diffusion.sampling import SamplingConfig
from unnoise.export.notebook import export_notebook, import_notebook
from unnoise.export.weights import read_state_dict
from unnoise.model import Model
from unnoise.networks.simple_unet import SimpleUnetConfig
from unnoise.runs.resume import resume
from unnoise.runs.trainer import Trainer
from unnoise.utils.errors import UserError


def weights(widths: tuple[int, ...] = (8, 16, 32), channels: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = SimpleUnetConfig(widths).build(channels, (64, 64), 0)
    for module in network.modules():  # statistics that a fresh network does not have
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            module.num_batches_tracked = torch.tensor(264_000)
    return dict(network.state_dict())


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    path = tmp_path / "final_model.pth"
    torch.save(weights(), path)
    return path


def test_there_and_back_keeps_the_bits(pth: Path, tmp_path: Path) -> None:
    info = import_notebook(pth, tmp_path / "run")
    assert info.shape == (3, 64, 64) and info.recipe.network == SimpleUnetConfig((8, 16, 32))
    export_notebook(tmp_path / "run", tmp_path / "back.pth")
    before, after = read_state_dict(pth), read_state_dict(tmp_path / "back.pth")
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    fresh = SimpleUnetConfig((8, 16, 32)).build(3, (64, 64), 0)
    fresh.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True))  # as the notebook does


def test_an_imported_run_samples_and_denoises(pth: Path, tmp_path: Path) -> None:
    import_notebook(pth, tmp_path / "run", {"data.size": [16, 16]})
    model = Model.load(tmp_path / "run")
    samples = model.sample(2, sampling=SamplingConfig(steps=3))
    assert samples.shape == (2, 16, 16, 3) and len(np.unique(samples)) > 10
    network = SimpleUnetConfig((8, 16, 32)).build(3, (16, 16), 0).eval()
    network.load_state_dict(weights())
    x, k = torch.randn(1, 3, 16, 16), 120
    t = torch.tensor([(k + 1) / 300], dtype=torch.float64)
    alpha, sigma = (f(t).float().reshape(-1, 1, 1, 1) for f in (model.denoiser.schedule.alpha, model.denoiser.schedule.sigma))
    with torch.no_grad():
        expected = (x - sigma * network(x, torch.tensor([float(k)]))) / alpha
        torch.testing.assert_close(model.denoiser(x, t), expected, rtol=1e-4, atol=1e-4)
        cleaned = x - sigma / alpha * network(alpha * x, torch.tensor([float(k)]))  # E[x | y] for noise of sigma / alpha
        torch.testing.assert_close(model.restorer().denoise(x, float(sigma / alpha)), cleaned, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match="no checkpoint to go on from"):
        resume(tmp_path / "run", print)


def test_wrong_weights_are_named_one_by_one(tmp_path: Path) -> None:
    state = weights()
    state["ups.0.conv2.weight"] = torch.zeros(16, 16, 1, 1)
    state["extra.bias"] = state.pop("output.bias")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError) as e:
        import_notebook(tmp_path / "w.pth", tmp_path / "run")
    for part in (
        "output.bias is missing",
        "extra.bias is unknown",
        "ups.0.conv2.weight has shape (16, 16, 1, 1) where the notebook's has (16, 16, 3, 3)",
    ):
        assert part in str(e.value)
    assert not (tmp_path / "run").exists()


def test_files_that_are_no_weights(tmp_path: Path, pth: Path) -> None:
    cases = {
        "object.pth": (nn.Linear(1, 1), r"not a file of plain weights.*model\.state_dict\(\)"),
        "list.pth": ([1, 2], "holds a list, not a state_dict"),
        "nested.pth": ({"epoch": 3, "state_dict": weights()}, "a dict whose 'epoch' is no tensor"),
        "other.pth": (nn.Linear(2, 2).state_dict(), "another network.*conv0.bias is missing, .*, and 144 more"),
    }
    for name, (value, words) in cases.items():
        torch.save(value, tmp_path / name)
        with pytest.raises(UserError, match=words):
            import_notebook(tmp_path / name, tmp_path / "run")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "short.pth").write_bytes(pth.read_bytes()[:5000])
    for name in ("text.pth", "short.pth"):
        with pytest.raises(UserError, match="damaged"):
            import_notebook(tmp_path / name, tmp_path / "run")
    with pytest.raises(UserError, match="no file"):
        import_notebook(tmp_path / "missing.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_channels_that_do_not_fit(pth: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images of 3 channels, Digits\(\) has 1"):
        import_notebook(pth, tmp_path / "run", {"data.source": "digits", "data.size": [16, 16]}, measure=True)
    assert not (tmp_path / "run").exists()


def test_start_from_data_with_imported_weights(tmp_path: Path) -> None:
    torch.save(weights(channels=1), tmp_path / "grey.pth")
    import_notebook(tmp_path / "grey.pth", tmp_path / "run", {"data.source": "digits", "data.size": [16, 16]}, measure=True)
    model = Model.load(tmp_path / "run")
    assert model.moments is not None and model.moments.mean.shape == (1, 16, 16)
    found = model.sample(2, sampling=SamplingConfig(steps=3, start="data"))
    assert found.shape == (2, 16, 16, 1) and not np.array_equal(found, model.sample(2, sampling=SamplingConfig(steps=3)))


def test_other_networks_are_not_for_the_notebook(small_run: Trainer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="simple-unet only"):
        export_notebook(small_run.folder.path, tmp_path / "x.pth")
    assert not (tmp_path / "x.pth").exists()
