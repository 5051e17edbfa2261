"""`unnoise interpolate`."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.conftest import Command


def test_between_an_image_and_a_sample(trained: Path, tmp_path: Path, command: Command) -> None:
    image = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 20), dtype=np.uint8)).save(image)
    assert command("interpolate", trained, image, "4", "-n", 5, "--steps", 5, "--out", tmp_path / "m.png") == 0
    width, height = Image.open(tmp_path / "m.png").size
    assert width > 4 * height  # all five in a row


def test_between_two_samples_of_a_class_as_a_film(trained: Path, tmp_path: Path, command: Command) -> None:
    assert command("interpolate", trained, "3", "4", "--label", "5", "-n", 5, "--steps", 5, "--out", tmp_path / "m.gif") == 0
    assert Image.open(tmp_path / "m.gif").n_frames == 5  # type: ignore[attr-defined]
