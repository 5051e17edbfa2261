"""`unnoise restore`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Command
from tests.data.files import png16
from unnoise.restoration.files import read_file

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


def noisy(path: Path, size: tuple[int, int] = (16, 24), dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    """A grey image of noise, written; its values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, size).astype(dtype)
    Image.fromarray(values).save(path)
    return values


def test_a_tree_keeps_its_folders(trained: Path, tmp_path: Path, command: Command) -> None:
    """Images of one name in two folders; a second time, when results lie below, hidden files and endings that differ too."""
    for seed, name in enumerate(("a/x.png", "b/x.png", "b/deep/y.png", "._z.png", "w.png", "w.bmp")):
        noisy(tmp_path / name, seed=seed)
    for out in ("out", "out", "new"):
        assert command("restore", trained, tmp_path, "--sigma", 20, "--out", tmp_path / out) == 0
        found = {str(p.relative_to(tmp_path / out)) for p in (tmp_path / out).rglob("*.png") if "details" not in p.parts}
        assert found == {"a/x.png", "b/x.png", "b/deep/y.png", "w.png.png", "w.bmp.png"}
        assert (tmp_path / out / "details" / "b" / "deep" / "y-strip.png").is_file()
    a, b = (np.asarray(Image.open(tmp_path / "out" / name / "x.png")) for name in "ab")
    assert not np.array_equal(a, b)


def test_a_bad_image_is_named_and_the_rest_goes_on(
    trained: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1; what stands in the way of all is refused at once."""
    for name in "ac":
        noisy(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "b.jpg").write_bytes(b"no image")
    noisy(tmp_path / "in" / "tiny.png", (1, 1))
    assert command("restore", trained, tmp_path / "in", "--sigma", 20, "--out", tmp_path / "out") == 1
    assert {p.name for p in (tmp_path / "out").glob("*.png")} == {"a.png", "c.png"}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "b.jpg' can't be read" in lines[0] and "not 1x1" in lines[1]
    assert lines[2].endswith("2 of 4 images could not be restored")
    assert command("restore", trained, tmp_path / "in", "--sigma", 20, "--label", "cat", "--out", tmp_path / "no") == 2
    assert not (tmp_path / "no").exists()


def test_images_in_folders_are_known_by_their_content(
    trained: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    """As in training: without an ending or with a wrong one; what is left out is said; the code is 1 for kinds not read."""
    for name in ("IMG_1", "a.dat", "@eaDir/b.png"):
        noisy(tmp_path / "x.png")
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x.png").rename(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    words = ["restore", trained, tmp_path / "in", "--sigma", 20, "--out", tmp_path / "out"]
    assert command(*words) == 0
    assert {p.name for p in (tmp_path / "out").glob("*.png")} == {"IMG_1.png", "a.png"}
    assert capsys.readouterr().err == "unnoise: left out: hidden or system folders (1, e.g. '@eaDir')\n"
    (tmp_path / "in" / "c.jp2").write_bytes(b"\0\0\0\x0cjP  ")
    assert command(*words) == 1
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "unnoise: left out: JPEG 2000 (1, e.g. 'c.jp2'): save them as PNG" and "1 of 3 images could not" in err[-1]
    words[2] = tmp_path / "out"
    assert "images that this program wrote" in refused(*words[:5], "--out", tmp_path / "new")


def test_what_is_no_result_is_not_written_over(trained: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    """A user's own file in --out stays as it is."""
    noisy(tmp_path / "p.png")
    mine = noisy(tmp_path / "out" / "p.png", seed=1)
    assert "no result of restoring" in refused("restore", trained, tmp_path / "p.png", "--sigma", 9, "--out", tmp_path / "out")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "p.png")), mine)


def test_alpha_stays_and_16_bits_where_asked(
    trained: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """With next to no noise a result is what was given: its alpha exactly, its 16 bits to within what 8 bits would lose."""
    wide = (noisy(tmp_path / "wide.png", dtype="uint16") // 2 + 16384).astype(np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    grey = np.stack([noisy(tmp_path / "la.png"), np.arange(16 * 24).reshape(16, 24).astype(np.uint8)], axis=2)
    Image.fromarray(grey).save(tmp_path / "la.png")
    words = ["restore", trained, tmp_path / "wide.png", tmp_path / "la.png", "--out"]
    assert command(*words, tmp_path / "o8", "--sigma", 0.2) == 0
    assert "wide.png: sigma 0.2 of 255; cut to 8 bits, where --bits 16 keeps 16; " in capsys.readouterr().out
    opened = Image.open(tmp_path / "o8" / "la.png")
    assert opened.mode == "LA" and np.array_equal(np.asarray(opened)[..., 1], grey[..., 1])
    assert Image.open(tmp_path / "o8" / "wide.png").mode == "L"
    assert command(*words, tmp_path / "o16", "--sigma", 0.2, "--bits", 16) == 0
    assert "cut" not in capsys.readouterr().out
    found = Image.open(tmp_path / "o16" / "wide.png")
    assert found.mode == "I;16" and "restored from" in found.info["unnoise restore"]
    assert np.abs(np.asarray(found).astype(int) - wide).mean() < 40  # 8 bits alone lose 64 on average
    alpha = read_file(tmp_path / "o16" / "la.png", bits=16).alpha
    assert alpha is not None and np.array_equal(alpha, grey[..., 1] * np.uint16(257))


def test_ranges_and_bands(trained: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """12 bits in 16 come out from black to white where --range says so, else the doubt is said; --bands takes one of three."""
    dark = np.stack([noisy(tmp_path / "a.png", dtype="uint16", seed=k) // 16 for k in range(3)], axis=2).astype(np.uint16)
    Image.fromarray(dark[..., 1]).save(tmp_path / "grey.png")
    (tmp_path / "rgb.png").write_bytes(png16(dark))
    words = ["restore", trained, "--sigma", 0.2, "--bits", 16, "--out", tmp_path / "out"]
    assert command(*words, tmp_path / "grey.png") == 0
    assert "give --range, e.g. 0,4095" in capsys.readouterr().out
    for name, more in (("grey", []), ("rgb", ["--bands", 2])):
        assert command(*words, tmp_path / f"{name}.png", "--range", "0,4095", *more) == 0
        assert "; values 0 to 4095 are black to white; " in capsys.readouterr().out
        found = np.asarray(Image.open(tmp_path / "out" / f"{name}.png"))
        assert np.abs(found - dark[..., 1] * (65535 / 4095)).mean() < 60
    assert command(*words, tmp_path / "grey.png", "--range", "1024,3072") == 0
    beyond = ((dark[..., 1] < 1024) | (dark[..., 1] > 3072)).mean()
    assert f"values 1024 to 3072 are black to white, and {beyond:.0%} of its values lie beyond; " in capsys.readouterr().out
    assert command(*words, tmp_path / "grey.png", "--bands", 2) == 2
    assert "it has 1 band, none of number 2" in capsys.readouterr().err
    for option, value in (("--range", "5,5"), ("--range", "x"), ("--bands", "1,2")):
        assert command(*words, tmp_path / "grey.png", option, value) == 2


def test_stripes_are_named_and_removed(
    trained: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """Estimated noise that is not white is said to be so, and the mean is that of samples."""
    lines = 128 + 40 * np.random.default_rng(0).standard_normal((24, 1)) + np.random.default_rng(1).standard_normal((24, 24))
    Image.fromarray(lines.clip(0, 255).astype(np.uint8)).save(tmp_path / "p.png")
    assert command("restore", trained, tmp_path / "p.png", "--out", tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "correlated noise (estimated), sigma " in out and " in rows, " in out and "mean of 8 samples by spectral" in out


def test_a_mask_says_how_much_is_missing(
    trained: Path, tmp_path: Path, command: Command, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is restored; an inverted one is asked about, and taken so."""
    noisy(tmp_path / "p.png", (12, 20))
    hole = np.pad(np.full((4, 6), 255, np.uint8), ((2, 6), (3, 11)))
    Image.fromarray(hole).save(tmp_path / "hole.png")
    Image.fromarray(255 - hole).save(tmp_path / "inverted.png")
    Image.new("L", (20, 12)).save(tmp_path / "none.png")
    words = ["restore", trained, tmp_path / "p.png", "--task", "inpaint", "--mode", "sample", "--sampling.steps", 2, "--mask"]
    assert command(*words, tmp_path / "hole.png", "--out", tmp_path / "a") == 0
    assert "hole.png: 10 % of the pixels are missing, where it is not black\n" in capsys.readouterr().out
    assert command(*words, tmp_path / "inverted.png", "--out", tmp_path / "b") == 0
    assert "is it black where pixels are missing? then give --invert-mask\n" in capsys.readouterr().out
    assert command(*words, tmp_path / "inverted.png", "--invert-mask", "--out", tmp_path / "c") == 0
    assert "inverted.png: 10 % of the pixels are missing, where it is not white\n" in capsys.readouterr().out
    first, last = (np.asarray(Image.open(tmp_path / folder / "p.png")) for folder in "ac")
    assert np.array_equal(first, last)
    assert "no pixel is missing" in refused(*words, tmp_path / "none.png", "--out", tmp_path / "d")
    assert "--invert-mask is for --task inpaint" in refused("restore", trained, tmp_path / "p.png", "--invert-mask")


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
