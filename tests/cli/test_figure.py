"""`unnoise figure`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Command


@pytest.mark.parametrize("kind", ["data", "forward", "schedules", "reverse", "loss"])
def test_every_figure(kind: str, trained: Path, tmp_path: Path, command: Command) -> None:
    what = {"data": ["digits"], "forward": ["digits"], "schedules": []}.get(kind, [str(trained)])
    assert command("figure", kind, *what, "--out", tmp_path / "f.png") == 0
    assert np.asarray(Image.open(tmp_path / "f.png").convert("L")).std() > 5


def test_an_animation(trained: Path, tmp_path: Path, command: Command) -> None:
    assert command("figure", "animation", trained, "--out", tmp_path / "a.gif", "-n", 4, "--sampling.steps", 5) == 0
    assert Image.open(tmp_path / "a.gif").n_frames == 5  # type: ignore[attr-defined]
