"""`unnoise data`."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import QUICK, Command


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


def test_inspect_suggests_a_size(tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """Before --size is given nothing is decoded, and what is known from the files' beginnings is said."""
    photos = tmp_path / "photos"
    for k, (name, side) in enumerate([("cat/a.jpg", 90), ("cat/b.png", 200), ("cat/c.png", 300), ("dog/d.webp", 100)]):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((side + 40 * k, side), 50).convert("RGB").save(photos / name)
    (photos / "dog" / "e.psd").write_bytes(b"8BPS")
    (photos / "dog" / "f.jpg").write_text("not an image")
    assert command("data", "inspect", photos, "--labels", "folder", "--cache", tmp_path / "cache") == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in ("4 in '", "short side 90 to 300 pixels, median 150", "2 PNG, 1 JPEG, 1 WEBP", "4 sizes", "'cat': 3, 'dog': 1",
                  "Photoshop (1, e.g. 'dog/e.psd'): save them as PNG", "skipped 'dog/f.jpg': cannot identify",
                  "unreadable 1, by their headers; --size decodes all",
                  "suggested --size 64: 64 is what an ordinary machine can learn in an hour"):  # fmt: skip
        assert words in out, (words, out)
    assert not (tmp_path / "cache").exists() and not Path("sheet.png").exists()


def test_inspect_of_small_images_of_one_size_needs_none(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(20):
        Image.effect_noise((16, 24), 50 + k).save(tmp_path / f"{k}.png")
    assert command("data", "inspect", tmp_path, "--out", tmp_path / "sheet.png") == 0
    assert "20 of 24x16, grey" in capsys.readouterr().out
    assert command("data", "inspect", tmp_path, "--size", "16x12", "--out", tmp_path / "sheet.png") == 0
    assert "20 of 16x12, grey" in capsys.readouterr().out, "and its own sheet is no data"


def test_inspect_says_a_range_in_doubt_and_takes_it(tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.linspace(0, 4095, 32 * 32).reshape(32, 32).astype(np.uint16)
    for k in range(5):
        Image.fromarray(np.maximum(values, 1) - k % 2).save(tmp_path / f"{k}.png")
    for words, told in (((), "give --range, e.g. 0,4095"), (("--range", "0,4095"), "standard deviation 0.57")):
        assert command("data", "inspect", tmp_path, *words, "--out", tmp_path / "x" / "sheet.png") == 0
        assert told in " ".join(capsys.readouterr().out.split())


def test_training_says_the_classes_and_what_is_left_out(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    for k in range(24):
        (tmp_path / "p" / ("dog" if k < 2 else "cat")).mkdir(parents=True, exist_ok=True)
        Image.effect_noise((8, 8), 50 + k).save(tmp_path / "p" / ("dog" if k < 2 else "cat") / f"{k}.png")
    (tmp_path / "p" / "cat" / "x.jxl").write_bytes(b"\xff\x0a")
    words = ["train", tmp_path / "p", "--labels", "folder", "--size", "8x8", "--batch", 4, "--run", tmp_path / "r", *QUICK]
    assert command(*words) == 0
    out = capsys.readouterr().out
    for line in ("classes: 2: 'cat': 22, 'dog': 2", "imbalance: 'cat' has 22 images and 'dog' 2:",
                 "files: left out: JPEG XL (1, e.g. 'cat/x.jxl'): save them as PNG"):  # fmt: skip
        assert line in out, (line, out)
