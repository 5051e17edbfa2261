"""The command as a user meets it: in a process of its own where start-up counts, else through its entry point."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unnoise import cli
from unnoise.data.arrays import Digits
from unnoise.recipe import Recipe

QUICK = ["--steps", "2", "--network.widths", "16,32", "--sampling.steps", "2", "--training.precision", "fp32"]


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["unnoise", *map(str, words)])
    with pytest.raises(SystemExit) as e:
        cli.main()
    return int(e.value.code or 0)


@pytest.mark.parametrize("words", [["--help"], ["trian"], ["train", "--help"], ["sample", "--stpes", "3", "x"]])
def test_help_and_mistypes_do_not_load_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom unnoise import cli\n"
        f"sys.argv = ['unnoise', *{words}]\n"
        "try: cli.main()\nexcept SystemExit as e: print('code', e.code)\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"code {0 if '--help' in words else 2}" in done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "d"
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "train", "digits", "--run", folder, *QUICK) == 0
    return folder


def test_train_leaves_a_run_folder(trained: Path) -> None:
    names = {str(p.relative_to(trained)) for p in trained.rglob("*") if p.is_file()}
    assert {"recipe.json", "model.safetensors", "metrics.jsonl", "strip.png", "loss.png", "samples/000002.png"} <= names
    assert "checkpoints/000002/state.json" in names


def test_lines_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("unnoise.cli.training.LINE_EVERY", 0.0)
    assert run(monkeypatch, "train", "digits", "--run", tmp_path / "r", *QUICK) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(re.fullmatch(r"step 1 of 2: loss \d\.\d{4}, \d+ images/s, \d+\.\d minutes left", line) for line in lines), lines
    assert re.search(r"trained 2 steps, loss \d\.\d{4}, \d+ images/s: ", lines[-1])


def test_sample(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "sample", trained, "-n", 5, "--seed", 7, "--out", tmp_path / "s") == 0
    assert sorted(p.name for p in (tmp_path / "s").glob("*.png")) == [f"{k:06d}.png" for k in range(5)]
    assert Image.open(tmp_path / "s-grid.png").size[0] > 8
    assert run(monkeypatch, "sample", trained, "-n", 5, "--seed", 7, "--out", tmp_path / "s.npz", "--batch", 5) == 0
    pixels = np.load(tmp_path / "s.npz")["images"]
    assert pixels.shape == (5, 8, 8, 1) and pixels.dtype == np.uint8
    assert np.array_equal(pixels[3, :, :, 0], np.asarray(Image.open(tmp_path / "s" / "000003.png")))


def test_from_a_image_and_between_two(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 20), dtype=np.uint8)).save(image)
    assert run(monkeypatch, "sample", trained, "--from", image, "--strength", 0.3, "-n", 3, "--out", tmp_path / "v") == 0
    assert len(list((tmp_path / "v").iterdir())) == 3 and (tmp_path / "v-grid.png").is_file()
    assert run(monkeypatch, "morph", trained, image, "4", "-n", 5, "--steps", 5, "--out", tmp_path / "m.png") == 0
    assert run(monkeypatch, "morph", trained, "3", "4", "--label", "5", "-n", 5, "--steps", 5, "--out", tmp_path / "m.gif") == 0
    assert Image.open(tmp_path / "m.gif").n_frames == 5  # type: ignore[attr-defined]
    assert run(monkeypatch, "sample", trained, "--label", "all", "--guidance", 2, "--out", tmp_path / "all") == 0
    assert len(list((tmp_path / "all").glob("*.png"))) == 10
    again = tmp_path / "again.png"
    assert run(monkeypatch, "sample", trained, "--redraw", tmp_path / "all" / "000007.png", "--out", again) == 0
    assert np.array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(tmp_path / "all" / "000007.png")))


TASKS = [
    ["denoise", "--noise", "poisson:30"], ["denoise", "--noise", "camera:0.01,0.02"], ["salt-and-pepper"], ["inpaint"],
    ["upscale", "--factor", "2"], ["deblur", "--blur", "0.8"], ["deblur", "--motion", "3,30"], ["dejpeg", "--quality", "20"],
]  # fmt: skip


@pytest.mark.parametrize("words", TASKS, ids=lambda w: "-".join(w[::2]))
def test_every_task(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """A folder in, a folder out: the image, what it looked like before, where it is in doubt, and a strip."""
    (tmp_path / "in").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(90, 160, (12, 20), dtype=np.uint8)).save(tmp_path / "in" / "p.png")
    Image.fromarray(np.pad(np.full((4, 6), 255, np.uint8), ((2, 6), (3, 11)))).save(tmp_path / "mask.png")
    more = ["--mask", tmp_path / "mask.png"] if words[0] == "inpaint" else []
    assert run(monkeypatch, "restore", trained, tmp_path / "in", "--task", *words, *more, "--add-noise", "0", "--samples", "2",
               "--out", tmp_path / "out", "--sampling.steps", "3") == 0  # fmt: skip
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"p.png", "details"}
    details = {p.name for p in (tmp_path / "out" / "details").iterdir()}
    assert details == {f"p-{what}.png" for what in ("damaged", "difference", "spread", "strip")}
    assert Image.open(tmp_path / "out" / "p.png").size == (20, 12)
    assert "restored from" in Image.open(tmp_path / "out" / "p.png").info["unnoise restore"]


def test_every_figure(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, what in (("data", "digits"), ("forward", "digits"), ("schedules", ""), ("reverse", trained), ("loss", trained)):
        to = tmp_path / f"{kind}.png"
        assert run(monkeypatch, "figure", kind, *([what] if what else []), "--out", to) == 0
        assert np.asarray(Image.open(to).convert("L")).std() > 5
    assert run(monkeypatch, "figure", "animation", trained, "--out", tmp_path / "a.gif", "-n", 4, "--sampling.steps", 5) == 0
    assert Image.open(tmp_path / "a.gif").n_frames == 5  # type: ignore[attr-defined]


def test_restore(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 24), dtype=np.uint8)).save(tmp_path / "p.png")
    words = ["restore", trained, tmp_path / "p.png", "--out", tmp_path / "out"]
    assert run(monkeypatch, *words) == 0
    assert "(estimated)" in capsys.readouterr().out
    assert run(monkeypatch, *words, "--add-noise", 20) == 0
    said = capsys.readouterr().out
    assert "sigma 20.0 of 255; " in said and "PSNR " in said and " dB before, " in said
    assert run(monkeypatch, *words, "--sigma", 20, "--mode", "sample", "--sampling.steps", 5) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"p.png", "details"}
    details = {p.name for p in (tmp_path / "out" / "details").iterdir()}
    assert details == {"p-difference.png", "p-strip.png"}  # no longer what the run before this one damaged
    assert Image.open(tmp_path / "out" / "p.png").size == (24, 16)


def test_restoring_a_folder_again(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results inside the folder are not taken for images, and one bad image stops it before any is written."""
    rng, words = np.random.default_rng(0), ["restore", trained, tmp_path, "--sigma", 20, "--out", tmp_path / "out"]
    for name in "ab":
        Image.fromarray(rng.integers(0, 255, (16, 24), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    for _ in range(2):
        assert run(monkeypatch, *words) == 0
        assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.png", "b.png", "details"}
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / "c.png")
    assert run(monkeypatch, *words[:-1], tmp_path / "new") == 2
    assert not (tmp_path / "new").exists()


def test_import_draw_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from unnoise.networks.simple_unet import SimpleUnetConfig

    state = SimpleUnetConfig((4, 8)).build(1, (8, 8), 0).state_dict()
    torch.save(state, tmp_path / "w.pth")
    folder = tmp_path / "r"
    assert run(monkeypatch, "import", tmp_path / "w.pth", "--run", folder, "--size", 8, "--data", "digits") == 0
    start = ["--sampling.start", "data"]
    assert run(monkeypatch, "sample", folder, "-n", 2, "--sampler", "ddim", "--steps", 3, *start) == 0
    assert run(monkeypatch, "export", folder, "--out", tmp_path / "back.pth") == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_folder_with_a_broken_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = tmp_path / "images" / "deep"
    deep.mkdir(parents=True)
    for k in range(30):
        noise = np.random.default_rng(k).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(deep / f"{k}.{'PNG' if k % 2 else 'jpeg'}")
    (deep / "broken.jpg").write_bytes((deep / "0.jpeg").read_bytes()[:300])
    words: list[object] = ["train", "--data", tmp_path / "images", "--size", "16", "--run", tmp_path / "r"]
    assert run(monkeypatch, *words, *QUICK, "--batch", 4, "--network.patch", 1) == 0
    out = capsys.readouterr().out
    assert "broken.jpg" in out and "30 images of 16x16, colour" not in out and "25 images of 16x16, colour" in out
    assert "broken.jpg" in (tmp_path / "r" / "skipped.txt").read_text()
    assert run(monkeypatch, *words[:-1], tmp_path / "strict", *QUICK, "--network.patch", 1, "--strict") == 2
    assert "1 files can't be read" in capsys.readouterr().err and not (tmp_path / "strict").exists()
    assert run(monkeypatch, "data", "inspect", tmp_path / "images", "--size", 16, "--out", tmp_path / "sheet.png") == 0
    out = capsys.readouterr().out
    assert "30 of 16x16, colour" in out and "broken.jpg" in out
    assert re.search(r"exact duplicates +0 ", out) and re.search(r"unreadable +1", out)
    assert run(monkeypatch, "data", "list") == 0
    assert "30 images" in capsys.readouterr().out
    assert run(monkeypatch, "data", "clear") == 0
    assert run(monkeypatch, "data", "list") == 0
    assert " images " not in capsys.readouterr().out
    assert run(monkeypatch, "train", "--resume", tmp_path / "r") == 0


def test_mistakes(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence with the remedy, exit 2, no traceback, nothing written."""
    empty, texts, no_model = tmp_path / "empty", tmp_path / "texts", tmp_path / "no-model"
    for folder in (empty, texts, no_model):
        folder.mkdir()
    (texts / "a.txt").write_text("hello")
    (texts / "b.jpg").write_text("not an image")
    (no_model / "recipe.json").write_bytes((trained / "recipe.json").read_bytes())
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "recipe.json").write_text((trained / "recipe.json").read_text().replace('"schedule"', '"shedule"'))
    out, np_file = tmp_path / "out", tmp_path / "pickled.npz"
    np.savez(np_file, np.array([{}], dtype=object))
    (tmp_path / "file").write_text("")
    colour, grey = tmp_path / "colour.png", tmp_path / "grey.png"
    Image.new("RGB", (8, 8), "red").save(colour)
    Image.new("L", (8, 8), 128).save(grey)
    tiny, small = tmp_path / "tiny.png", tmp_path / "small.png"
    Image.fromarray(np.zeros((1, 3), np.uint8)).save(tiny)
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(small)
    large = tmp_path / "large.png"
    Image.new("L", (40, 40), 128).save(large)
    before = sorted(tmp_path.rglob("*"))
    cases: list[tuple[list[object], str]] = [
        (["train", "digts"], "did you mean 'digits'"),
        (["train", "--data", "digts"], "did you mean 'digits'"),
        (["train", "--data", tmp_path / "missing"], "check the path"),
        (["train", "--data", empty], "no images in"),
        (["train", "--data", texts], "none of the 1 files"),
        (["train", "--data", np_file], "numpy.savez"),
        (["train", "digits", "--sampler", "hen"], "did you mean 'heun'"),
        (["train", "digits", "--schedule", "cosin"], "did you mean 'cosine'"),
        (["train", "digits", "--network.width", "3"], "did you mean 'widths'"),
        (["train", "digits", "--steps", "-3"], "greater than 0"),
        (["train", "digits", "--minutes", "0"], "greater than 0"),
        (["train", "digits", "--size", "9"], "multiples of"),
        (["train", "digits", "--steps", "1", "--run", tmp_path / "file" / "r"], "choose another --run"),
        (["train", "--resume", tmp_path / "nowhere"], "no run folder"),
        (["sample", tmp_path / "nowhere"], "no run folder"),
        (["sample", empty], "no recipe.json"),
        (["sample", no_model], "no model.safetensors"),
        (["sample", wrong], "unknown field 'shedule'"),
        (["sample", trained, "-n", "0"], "at least 1"),
        (["sample", trained, "--steps", "0"], "at least 1"),
        (["sample", trained, "--out", tmp_path / "file" / "x"], "choose another --out"),
        (["sample", trained, "--out", tmp_path / "x.jpg"], "a folder's name"),
        (["info", "digitz"], "did you mean 'digits'"),
        (["runs", empty], "no runs in"),
        (["data", "inspect", empty], "no images in"),
        (["data", "inspekt", empty], "did you mean 'inspect'"),
        (["data", "inspect"], "say what to inspect"),
        (["data", "inspect", "fgvc-aircraft", "--root", empty], "add --download"),
        (["data", "inspect", "digits", "--root", empty], "unknown field 'data.source.root'"),
        (["data", "inspect", "fgvc-aircraft", "--data.source.level", "famly"], "did you mean 'family'"),
        (["train", "notebook", "--root", empty], "add --download"),
        (["train", "images"], "give --data"),
        (["figure", "revers", trained], "did you mean 'reverse'"),
        (["figure", "reverse"], "unnoise figure reverse RUN"),
        (["figure", "schedules", "--schedule.timesteps", "300"], "takes --out alone"),
        (["figure", "loss", trained, "--sampling.steps", "3"], "takes no recipe fields"),
        (["figure", "animation", trained, "--out", tmp_path / "a.webm"], ".gif or .mp4"),
        (["figure", "data", "digits", "--out", tmp_path / "a.jpg"], "ends so"),
        (["figure", "data", "digits", "--out", tmp_path / "file" / "a.png"], "can't read or write"),
        (["sample", trained, "--out", "."], "a folder's name"),
        (["train", "--data", "folder"], "neither a known set nor a path"),
        (["train", "digits", "--labels", "yes"], "folder or none"),
        (["train", "digits", "--labels", "folder"], "unknown field 'data.source.subfolders'"),
        (["figure", "loss", no_model], "no metrics.jsonl"),
        (["figure", "schedules", "--out", tmp_path / "s.jpg"], "ends so"),
        (["figure", "data", "digits", "-n", "0"], "at least 1"),
        (["import", tmp_path / "no.pth", "--run", out], "no file"),
        (["import", np_file, "--run", out], "not a file of plain weights"),
        (["import", np_file, "--run", trained], "holds a run already"),
        (["export", trained, "--out", tmp_path / "x.pth"], "simple-unet only"),
        (["export", trained, "--out", tmp_path / "x.pth", "--format", "notebok"], "did you mean 'notebook'"),
        (["restore", trained, texts / "b.jpg"], "can't be read as an image"),
        (["restore", trained, colour], "is colour and this run was trained on grey"),
        (["restore", trained, grey, "--task", "denoize"], "did you mean 'denoise'"),
        (["restore", trained, grey, "--mode", "men"], "did you mean 'mean'"),
        (["restore", trained, grey, "--sigma", "0"], "greater than 0"),
        (["restore", trained, grey, "--sigma", "9e5"], "of 255"),
        (["restore", trained, grey, grey], "written over"),
        (["restore", trained, grey, "--out", tmp_path], "written over"),
        (["restore", trained, grey, "--sampling.steps", "5"], "add --mode sample"),
        (["restore", trained, grey, "--mode", "sample", "--sampling.stpes", "5"], "did you mean 'steps'"),
        (["restore", trained, grey], "no noise to speak of"),
        (["restore", trained, empty, "--sigma", "9"], "no images in"),
        (["restore", trained, grey, "--task", "inpaint"], "needs --mask"),
        (["restore", trained, grey, "--task", "inpaint", "--mask", large], "make them the same size"),
        (["restore", trained, grey, "--task", "colourise"], "trained on grey"),
        (["restore", trained, grey, "--task", "dejpeg"], "is no JPEG file"),
        (["restore", trained, grey, "--task", "deblur", "--motion", "9"], "LENGTH,DEGREES"),
        (["restore", trained, grey, "--noise", "poison:3"], "did you mean 'poisson'"),
        (["restore", trained, grey, "--noise", "camera:x"], "a name and its numbers"),
        (["restore", trained, grey, "--noise", "poisson:9", "--sigma", "9"], "leave --sigma away"),
        (["restore", trained, grey, "--task", "deblur", "--blur", "9"], "too wide for an image"),
        (["restore", trained, grey, "--task", "deblur", "--motion", "-3,0"], "greater than 0 pixels"),
        (["restore", trained, grey, "--task", "upscale", "--factor", "99", "--add-noise", "0"], "not 99"),
        (["restore", trained, grey, "--factor", "2"], "--factor is for --task upscale"),
        (["restore", trained, grey, "--task", "dejpeg", "--quality", "9", "--sigma", "9"], "knows its own noise"),
        (["restore", trained, grey, "--task", "deblur", "--motion", "9,inf"], "a number of degrees"),
        (["restore", trained, grey, "--task", "deblur", "--motion", "0,30"], "greater than 0 pixels"),
        (["restore", trained, grey, "--task", "deblur", "--motion", "9,30", "--blur", "2"], "give one"),
        (["restore", trained, grey, "--task", "deblur", "--mode", "mean"], "for white noise"),
        (["restore", trained, grey, "--sigma", "9", "--samples", "4"], "add --mode average"),
        (["restore", trained, grey, "--sigma", "9", "--method", "ddnm"], "the denoiser's own"),
        (["restore", trained, grey, "--task", "deblur", "--sigma", "9", "--method", "ddnm"], "takes no noise into account"),
        (["restore", trained, grey, "--task", "deblur", "--sampling.start", "data"], "is for drawing"),
        (["restore", trained, grey, "--noise", "poisson:1e30", "--add-noise", "0"], "below a million"),
        (["restore", trained, grey, "--sigma", "9", "--label", "cat"], "unknown label 'cat'"),
        (["restore", trained, tiny, "--sigma", "9"], "at least"),
        (["restore", trained, small], "too small to estimate"),
        (["restore", trained, grey, "--task", "upscale", "--method", "mpms"], "did you mean 'mmps'"),
        (["import", np_file, "--run", out, "--root", empty], "add --data"),
        (["sample", trained, "--label", "eight"], "unknown label 'eight'"),
        (["sample", trained, "--guidance", "-1"], "at least 0"),
        (["sample", trained, "--guidance", "2", "--sampling.guidance", "atuo"], "did you mean 'auto'"),
        (["sample", trained, "--from", grey, "--strength", "0"], "at most 1"),
        (["sample", trained, "--from", grey, "--out", tmp_path / "x.npz"], "a folder's name"),
        (["sample", trained, "--redraw", grey], "does not say how it was drawn"),
        (["sample", trained, "--sampler", "dpm++2"], "did you mean 'dpm++2"),
        (["morph", trained, "3", "--out", out / "m.png"], "two ends or more"),
        (["morph", trained, "3", "4", "--out", out / "m.jpg"], "give a name that ends so"),
        (["average", trained, "--width", "0.1", "--out", out], "holds 0 stored averages"),
        (["train", "digits", "--batch", "many"], "--batch is auto or a number"),
        (["train", "digits", "--training.optimizer", "mion"], "did you mean 'muon'"),
        (["restore", trained, grey, "--sigma", "9", "--out", tmp_path / "file" / "x"], "choose another --out"),
    ]
    for words, hint in cases:
        rest = ["--run", out] if words[0] == "train" and "--run" not in words and "--resume" not in words else []
        assert run(monkeypatch, *words, *rest) == 2, words
        error = capsys.readouterr().err
        assert error.startswith("unnoise: ") and error.count("\n") == 1, error
        assert hint in error, error
    assert sorted(tmp_path.rglob("*")) == before


def start_training(folder: Path) -> "subprocess.Popen[str]":
    """`unnoise train`, once it has made some steps."""
    words = ["train", "digits", "--run", str(folder), *QUICK[2:], "--steps", "100000"]
    process = subprocess.Popen([sys.executable, "-m", "unnoise", *words], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (folder / "metrics.jsonl").exists() or (folder / "metrics.jsonl").stat().st_size < 500:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_keeps_everything(tmp_path: Path, number: signal.Signals) -> None:
    """Within 10 seconds."""
    folder = tmp_path / "r"
    process = start_training(folder)
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert f"unnoise train --resume {folder}" in out
    assert (folder / "model.safetensors").is_file() and list((folder / "checkpoints").iterdir())


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    process = start_training(tmp_path / "r")
    while process.poll() is None:  # however fast the first one is answered
        process.send_signal(signal.SIGINT)
        time.sleep(0.005)
    assert process.returncode in (130, -signal.SIGINT)
    assert not [p for p in (tmp_path / "r" / "checkpoints").glob("*") if p.name.isdigit() and not (p / "manifest.json").exists()]


def test_demo_is_the_digits_preset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Recipe] = []

    def train_nothing(folder: Path, recipe: Recipe) -> int:
        seen.append(recipe)
        return 1

    monkeypatch.setattr(cli.training, "begin", train_nothing)
    assert run(monkeypatch, "demo", "--run", tmp_path / "d") == 1
    assert seen[0].training.minutes == 1 and seen[0].data.source == Digits()
