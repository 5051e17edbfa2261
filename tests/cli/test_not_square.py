"""Images that are higher than wide or wider than high, as a folder of photographs of one shape is trained on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import QUICK, Command
from unnoise.export.webpage import page_facts
from unnoise.model import Model


@pytest.fixture
def run(command: Command, tmp_path: Path) -> Path:
    """A run on twelve photographs of 150x400, 151x402, ...: 24x64 in training."""
    rng, folder = np.random.default_rng(0), tmp_path / "photos"
    folder.mkdir()
    for k in range(12):
        Image.fromarray(rng.integers(0, 256, (150 + k, 400 + 2 * k, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    assert command("train", folder, "--run", tmp_path / "run", *QUICK) == 0
    return tmp_path / "run"


def test_all_that_is_done_with_a_run(run: Path, command: Command, tmp_path: Path) -> None:
    """Sampled, restored, reported on and exported at its shape."""
    model = Model.load(run, "cpu")
    assert model.info.shape == (3, 24, 64) and page_facts(model)["shape"] == (3, 24, 64)
    assert command("sample", run, "-n", 3, "--out", tmp_path / "s.npz") == 0
    images = np.load(tmp_path / "s.npz")["images"]
    assert images.shape == (3, 24, 64, 3)
    Image.fromarray(images[0]).save(tmp_path / "noisy.png")
    assert command("restore", run, tmp_path / "noisy.png", "--sigma", 25, "--out", tmp_path / "clean") == 0
    assert Image.open(tmp_path / "clean" / "noisy.png").size == (64, 24)
    assert command("report", run) == 0 and (run / "report.html").is_file()
    for kind in ("diffusers", "onnx"):
        assert command("export", run, "--format", kind, "--out", tmp_path / kind) == 0, kind
        assert any((tmp_path / kind).iterdir())
