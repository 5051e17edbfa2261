"""`unnoise import` and `unnoise export`."""

from pathlib import Path

import torch

from tests.cli.conftest import Command
from unnoise.networks.simple_unet import SimpleUnetConfig


def test_import_sample_export(tmp_path: Path, command: Command) -> None:
    state = SimpleUnetConfig((4, 8)).build(1, (8, 8), 0).state_dict()
    torch.save(state, tmp_path / "w.pth")
    folder = tmp_path / "r"
    assert command("import", tmp_path / "w.pth", "--run", folder, "--size", 8, "--data", "digits") == 0
    start = ["--sampling.start", "data"]
    assert command("sample", folder, "-n", 2, "--sampler", "ddim", "--steps", 3, *start) == 0
    assert command("export", folder, "--out", tmp_path / "back.pth") == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == state.keys() and all(torch.equal(back[name], tensor) for name, tensor in state.items())
