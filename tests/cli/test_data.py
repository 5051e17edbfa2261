"""`unnoise data`."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Command


def test_inspect_list_and_clear(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for k in range(30):
        noise = np.random.default_rng(k).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{k}.png")
    Image.fromarray(noise).save(tmp_path / "whole.jpeg")
    (tmp_path / "images" / "broken.jpg").write_bytes((tmp_path / "whole.jpeg").read_bytes()[:700])
    assert command("data", "inspect", tmp_path / "images", "--size", 16, "--out", tmp_path / "sheet.png") == 0
    out = capsys.readouterr().out
    assert "30 of 16x16, colour" in out and "broken.jpg" in out
    assert re.search(r"exact duplicates +0 ", out) and re.search(r"unreadable +1", out)
    assert np.asarray(Image.open(tmp_path / "sheet.png").convert("L")).std() > 5
    assert command("data", "list") == 0
    assert "30 images" in capsys.readouterr().out
    assert command("data", "clear") == 0
    assert command("data", "list") == 0
    assert " images " not in capsys.readouterr().out
