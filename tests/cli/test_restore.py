"""`unnoise restore`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Command

TASKS = [
    ["denoise", "--noise", "poisson:30"], ["denoise", "--noise", "camera:0.01,0.02"], ["salt-and-pepper"], ["inpaint"],
    ["upscale", "--factor", "2"], ["deblur", "--blur", "0.8"], ["deblur", "--motion", "3,30"], ["dejpeg", "--quality", "20"],
]  # fmt: skip


@pytest.mark.parametrize("words", TASKS, ids=lambda w: "-".join(w[::2]))
def test_every_task(trained: Path, tmp_path: Path, command: Command, words: list[str]) -> None:
    """A folder in, a folder out: the image, and in details the degraded one, the difference, the deviation and a strip."""
    (tmp_path / "in").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(90, 160, (12, 20), dtype=np.uint8)).save(tmp_path / "in" / "p.png")
    Image.fromarray(np.pad(np.full((4, 6), 255, np.uint8), ((2, 6), (3, 11)))).save(tmp_path / "mask.png")
    more = ["--mask", tmp_path / "mask.png"] if words[0] == "inpaint" else []
    assert command("restore", trained, tmp_path / "in", "--task", *words, *more, "--add-noise", "0", "--samples", "2",
                   "--out", tmp_path / "out", "--sampling.steps", "3") == 0  # fmt: skip
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"p.png", "details"}
    details = {p.name for p in (tmp_path / "out" / "details").iterdir()}
    assert details == {f"p-{what}.png" for what in ("degraded", "difference", "std", "strip")}
    assert Image.open(tmp_path / "out" / "p.png").size == (20, 12)
    assert "restored from" in Image.open(tmp_path / "out" / "p.png").info["unnoise restore"]


def test_white_noise(trained: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 24), dtype=np.uint8)).save(tmp_path / "p.png")
    words = ["restore", trained, tmp_path / "p.png", "--out", tmp_path / "out"]
    assert command(*words) == 0
    assert "(estimated)" in capsys.readouterr().out
    assert command(*words, "--add-noise", 20) == 0
    out = capsys.readouterr().out
    assert "sigma 20.0 of 255; " in out and "PSNR " in out and " dB before, " in out
    assert command(*words, "--sigma", 20, "--mode", "sample", "--sampling.steps", 5) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"p.png", "details"}
    details = {p.name for p in (tmp_path / "out" / "details").iterdir()}
    assert details == {"p-difference.png", "p-strip.png"}  # no longer what the run before this one degraded
    assert Image.open(tmp_path / "out" / "p.png").size == (24, 16)


def test_a_folder_again(trained: Path, tmp_path: Path, command: Command) -> None:
    """Results inside the folder are not taken for images, and one bad image stops it before any is written."""
    rng, words = np.random.default_rng(0), ["restore", trained, tmp_path, "--sigma", 20, "--out", tmp_path / "out"]
    for name in "ab":
        Image.fromarray(rng.integers(0, 255, (16, 24), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    for _ in range(2):
        assert command(*words) == 0
        assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.png", "b.png", "details"}
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / "c.png")
    assert command(*words[:-1], tmp_path / "new") == 2
    assert not (tmp_path / "new").exists()


def test_what_degrades_is_not_what_is_told_of_it(trained: Path, tmp_path: Path, command: Command) -> None:
    """`--sigma` is the noise that restoration expects, `--add-noise` what is added: 0 is none, whatever the seed."""
    Image.fromarray(np.random.default_rng(0).integers(90, 160, (16, 24), dtype=np.uint8)).save(tmp_path / "p.png")
    found = []
    for seed in (0, 1):
        out = tmp_path / f"out{seed}"
        words = ["--task", "deblur", "--sigma", 20, "--add-noise", 0, "--samples", 1, "--sampling.steps", 2, "--seed", seed]
        assert command("restore", trained, tmp_path / "p.png", *words, "--out", out) == 0
        found.append(np.asarray(Image.open(out / "details" / "p-degraded.png")))
    assert np.array_equal(found[0], found[1])
