"""Checkpoints of denoising-diffusion-pytorch as runs: its estimates are ours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unnoise.export.lucidrains import import_lucidrains, is_checkpoint
from unnoise.export.weights import read_torch
from unnoise.model import Model
from unnoise.utils.errors import UserError

lucidrains = pytest.importorskip("denoising_diffusion_pytorch")
SIZE = {"data.size": [16, 16]}


def diffusion(objective: str = "pred_v", schedule: str = "sigmoid", **unet: Any) -> Any:
    torch.manual_seed(0)
    options = {"dim_mults": (1, 2), "channels": 1, "attn_heads": 2, "attn_dim_head": 8} | unet
    made = lucidrains.Unet(16, **options)
    return lucidrains.GaussianDiffusion(made, image_size=16, timesteps=50, objective=objective, beta_schedule=schedule).eval()


def save(path: Path, diffusion: Any, **other: Any) -> Path:
    """As the library's Trainer does."""
    ema = {"initted": torch.tensor(True), "step": torch.tensor(9)} | {
        f"ema_model.{k}": v for k, v in diffusion.state_dict().items()
    }
    torch.save(
        {"step": 9, "model": diffusion.state_dict(), "opt": {"state": {}}, "ema": ema, "scaler": None, "version": "2"} | other,
        path,
    )
    return path


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("objective", ["pred_noise", "pred_x0", "pred_v"])
def test_estimates_are_the_librarys(objective: str, schedule: str, tmp_path: Path) -> None:
    theirs = diffusion(objective, schedule)
    path = save(tmp_path / "model-1.pt", theirs)
    assert is_checkpoint(read_torch(path))
    info = import_lucidrains(path, tmp_path / "run", SIZE)
    assert info.shape == (1, 16, 16) and info.recipe.schedule.steps == 50
    model, x = Model.load(tmp_path / "run", "cpu"), torch.randn(2, 1, 16, 16)
    for step in (0, 20, 45):
        with torch.no_grad():
            expected = theirs.model_predictions(x, torch.full((2,), step)).pred_x_start
            found = model.denoiser(x, torch.tensor((step + 1) / 50, dtype=torch.float64))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert len(np.unique(model.sample(2, steps=3))) > 10


def test_the_average_is_taken(tmp_path: Path) -> None:
    theirs = diffusion()
    raw = {name: torch.zeros_like(value) for name, value in theirs.state_dict().items()}
    import_lucidrains(save(tmp_path / "model-1.pt", theirs, model=raw), tmp_path / "run", SIZE)
    weights = Model.load(tmp_path / "run", "cpu").network.get_submodule("unet").state_dict()
    assert torch.equal(weights["init_conv.weight"], theirs.model.init_conv.weight)


def test_what_can_not_be_read_says_why(tmp_path: Path) -> None:
    theirs = diffusion()
    lacking = {k: v for k, v in theirs.state_dict().items() if "loss_weight" not in k}
    odd = theirs.state_dict() | {"loss_weight": torch.rand(50)}
    old = {k: v for k, v in theirs.state_dict().items() if "mem_kv" not in k}
    cases = [(save(tmp_path / "a.pt", diffusion(self_condition=True)), SIZE, "has self-conditioning"),
             (save(tmp_path / "b.pt", theirs, ema={}, model=lacking), SIZE, "lacks 'loss_weight'"),
             (save(tmp_path / "c.pt", theirs, ema={}, model=odd), SIZE, "does not tell what the network predicts"),
             (save(tmp_path / "d.pt", theirs, ema={}, model=old), SIZE, "another version of denoising-diffusion-pytorch"),
             (save(tmp_path / "e.pt", theirs), {}, "say the size"),
             (save(tmp_path / "f.pt", theirs), {"data.size": [15, 16]}, "multiples of")]  # fmt: skip
    for path, changes, words in cases:
        with pytest.raises(UserError, match=words):
            import_lucidrains(path, tmp_path / "run", dict(changes))
        assert not (tmp_path / "run").exists()
    import_lucidrains(tmp_path / "c.pt", tmp_path / "run", SIZE | {"target": "velocity"})


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    """As EDM's: opening one runs what it names."""
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "network.pkl").write_bytes(pickle.dumps({"ema": Evil()}))
    torch.save({"ema": Evil()}, tmp_path / "network.pt")
    for name, words in (("network.pkl", "pickle of Python objects, as EDM"), ("network.pt", "not a file of plain weights")):
        with pytest.raises(UserError, match=words):
            read_torch(tmp_path / name)
    assert not (tmp_path / "ran").exists()
