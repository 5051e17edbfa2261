"""`unnoise train`: a run from beginning to end, stopped and resumed, with a network of one's own."""

import contextlib
import io
import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import QUICK, SMALL_NETWORK, Command, call
from unnoise.cli.train import follow_trainings
from unnoise.run_folder import RunFolder
from unnoise.runs.progress import TrainingProgress
from unnoise.runs.trainer import Trainer
from unnoise.training.checkpoint import list_checkpoints
from unnoise.training.records import Measured, TrainingRecord

PATIENCE = 120  # seconds, on a machine that has other work too


class Finished(NamedTuple):
    folder: Path
    lines: list[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of two steps, and what the command printed, a line after each step."""
    folder, out = tmp_path_factory.mktemp("runs") / "r", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr("unnoise.runs.progress.LINE_EVERY", 0.0)
        assert call("train", "digits", "--run", folder, *QUICK) == 0
    return Finished(folder, out.getvalue().splitlines())


def test_it_leaves_a_run_folder(finished: Finished) -> None:
    names = {str(p.relative_to(finished.folder)) for p in finished.folder.rglob("*") if p.is_file()}
    assert {"recipe.json", "model.safetensors", "metrics.jsonl", "strip.png", "loss.png", "samples/000002.png", "report.html",
            "report.md", "cost.jsonl"} <= names  # fmt: skip
    assert "checkpoints/000002/state.json" in names


def test_lines_where_there_is_no_terminal(finished: Finished) -> None:
    step = r"step 1 of 2: loss \d\.\d{4}, \d+ images/s, \d+\.\d minutes left"
    assert any(re.fullmatch(step, line) for line in finished.lines), finished.lines
    assert re.search(r"trained 2 steps, loss \d\.\d{4}, \d+ images/s: ", finished.lines[-1])


def test_skipped_steps_are_counted_and_the_mean_stays_finite(small_run: Trainer) -> None:
    shown = TrainingProgress(small_run, shown=False)
    for step, loss in enumerate((math.nan, 0.5, math.inf, 0.5), 1):
        shown.update(TrainingRecord(step, 4, Measured(loss, loss), 1e-3, 100.0))
        assert ("nan" in shown.facts) == (step == 1)
    assert shown.facts == "loss 0.5000, 100 images/s, 2 steps skipped"


def test_a_folder_with_a_broken_image(
    tmp_path: Path, command: Command, refused: Callable[..., str], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It is named; training resumes also when the decoded images are gone from the cache."""
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    deep = tmp_path / "images" / "deep"
    deep.mkdir(parents=True)
    for k in range(30):
        noise = np.random.default_rng(k).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(deep / f"{k}.{'PNG' if k % 2 else 'jpeg'}")
    (deep / "broken.jpg").write_bytes((deep / "0.jpeg").read_bytes()[:300])
    words: list[object] = ["train", "--data", tmp_path / "images", "--size", "16", *QUICK, "--batch", 4, "--network.patch", 1]
    assert command(*words, "--run", tmp_path / "r") == 0
    out = capsys.readouterr().out
    assert "broken.jpg" in out and "30 images of 16x16, colour" not in out and "25 images of 16x16, colour" in out
    assert "broken.jpg" in (tmp_path / "r" / "skipped.txt").read_text()
    assert "1 files can't be read" in refused(*words, "--run", tmp_path / "strict", "--strict")
    assert not (tmp_path / "strict").exists()
    assert command("data", "clear") == 0
    assert command("train", "--resume", tmp_path / "r") == 0


def start_training(folder: Path) -> "subprocess.Popen[str]":
    """`unnoise train`, once it has made some steps."""
    words = ["train", "digits", "--run", str(folder), *SMALL_NETWORK, "--steps", "100000"]
    process = subprocess.Popen([sys.executable, "-m", "unnoise", *words], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE
    while not (folder / "metrics.jsonl").exists() or (folder / "metrics.jsonl").stat().st_size < 500:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=lambda s: s.name)
def test_stopping_keeps_everything(tmp_path: Path, number: signal.Signals) -> None:
    """The newest checkpoint is that of the last step written down."""
    folder = tmp_path / "r"
    process = start_training(folder)
    process.send_signal(number)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert f"unnoise train --resume {folder}" in out
    losses = RunFolder(folder).read_losses()
    assert losses is not None and int(list_checkpoints(folder / "checkpoints")[-1].name) == losses[0][-1] < 100_000
    assert f"stopped at step {losses[0][-1]};" in out and (folder / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    process = start_training(tmp_path / "r")
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None:  # however fast the first one is answered
        assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        time.sleep(0.005)
    assert process.returncode in (130, -signal.SIGINT)
    assert not [p for p in list_checkpoints(tmp_path / "r" / "checkpoints") if not (p / "manifest.json").exists()]


def test_an_open_training_ends_with_a_short_fall(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a budget the first Ctrl-C lets the rate fall and ends; the second one stops, and resuming finishes."""
    np.savez(tmp_path / "mine.npz", images=np.random.default_rng(0).integers(0, 255, (40, 40, 40, 3), np.uint8))
    words = ["train", tmp_path / "mine.npz", *SMALL_NETWORK, "--batch", 4, "--training.sample-count", 4]
    update = TrainingProgress.update

    def interrupt_at(*steps: int) -> None:
        def shown(self: TrainingProgress, record: TrainingRecord) -> None:
            update(self, record)
            if record.step in steps:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(TrainingProgress, "update", shown)

    interrupt_at(20)
    assert command(*words, "--run", tmp_path / "r") == 0
    out = capsys.readouterr().out
    assert "images of 40x40, colour" in out and "training until Ctrl-C" in out
    assert "the learning rate falls to 0 over 2 more steps" in out and "trained 22 steps" in out
    interrupt_at(20, 21)
    assert command(*words, "--run", tmp_path / "twice") == 130
    assert "stopped at step 21" in capsys.readouterr().out
    interrupt_at()
    assert command("train", "--resume", tmp_path / "twice") == 0 and "trained 22 steps" in capsys.readouterr().out
    assert RunFolder(tmp_path / "r").read_losses() == RunFolder(tmp_path / "twice").read_losses()


def test_what_to_train_is_a_preset_or_images(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders with the name of a preset, too."""
    monkeypatch.chdir(tmp_path)
    for name in ("images", "digits", "mine"):
        Path(name).mkdir()
        for k in range(6):
            Image.fromarray(np.full((12, 12, 3), 40 * k, np.uint8)).save(f"{name}/{k}.png")
    for words, shown in ((["images"], "12x12, colour"), (["mine"], "12x12, colour"), (["digits"], "8x8, grey"),
                         (["digits", "--data", "./digits"], "12x12, colour")):  # fmt: skip
        assert command("train", *words, "--run", f"r{len(words)}-{words[0]}", *QUICK, "--steps", 1, "--data.held-out", 0) == 0
        out = capsys.readouterr().out
        assert shown in out and ("is the preset, not the folder" in out) == (words == ["digits"])
    assert command("train", "mine", "--from-run", "r1-mine", "--run", "more", "--steps", 1, "--data.held-out", 0) == 0
    assert "the preset" not in capsys.readouterr().out  # it has the recipe of a run


MYNET = """
from torch import nn

class MyNet(nn.Module):
    def __init__(self, channels, classes, width):
        super().__init__()
        self.label = nn.Embedding(classes + 1, width)  # the last row is no label
        self.conv_in, self.conv_out = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x, c_noise, label=None):
        label = -c_noise.new_ones(len(x)).long() if label is None else label
        embedding = self.label(label % self.label.num_embeddings)
        return self.conv_out((self.conv_in(x) + embedding[:, :, None, None] + c_noise[:, None, None, None]).relu())

class Other:
    pass

def function(channels):
    return MyNet(channels, 0, 8)
"""
OWN = ["train", "digits", "--steps", "4", "--network", "mypackage.mynet:MyNet", "--network.width", "8", *SMALL_NETWORK[2:]]


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, which holds `mypackage`."""
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "__init__.py").write_text("")
    (tmp_path / "mypackage" / "mynet.py").write_text(MYNET)
    (tmp_path / "mypackage" / "broken.py").write_text("raise RuntimeError('first line\\nsecond line')\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    forget()


def forget() -> None:
    """As in a new process, the package is not imported yet."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "mypackage"]:
        del sys.modules[name]


@pytest.mark.parametrize("in_process", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_network_of_ones_own(
    own_package: Path, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_process: bool
) -> None:
    """Trained, stopped, resumed, also in another process, and sampled; its losses are those of a run that was never stopped."""
    update = TrainingProgress.update

    def stop_at_2(self: TrainingProgress, record: TrainingRecord) -> None:
        update(self, record)
        if record.step == 2:
            signal.raise_signal(signal.SIGTERM)

    assert command(*OWN, "--run", "whole") == 0
    monkeypatch.setattr(TrainingProgress, "update", stop_at_2)
    assert command(*OWN, "--run", "r") == 128 + signal.SIGTERM
    monkeypatch.setattr(TrainingProgress, "update", update)
    assert [p.name for p in list_checkpoints(own_package / "r" / "checkpoints")] == ["000002"]
    network = json.loads((own_package / "r" / "recipe.json").read_text())["recipe"]["network"]
    assert network == {"name": "mypackage.mynet:MyNet", "width": 8}
    forget()
    if in_process:
        assert command("train", "--resume", "r") == 0
        out = capsys.readouterr().out
    else:
        words = ["-P", "-m", "unnoise", "train", "--resume", "r"]  # -P: the current folder is not on the path already
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=PATIENCE)
        out = done.stdout
        assert done.returncode == 0, done.stderr
    assert "going on from step 2 of 4" in out
    losses = [RunFolder(own_package / name).read_losses() for name in ("whole", "r")]
    assert losses[0] is not None and losses[1] is not None and losses[0][0] == losses[1][0] == [1, 2, 3, 4]
    np.testing.assert_allclose(losses[1][1], losses[0][1], rtol=1e-5)
    forget()
    assert command("sample", "r", "-n", 3, "--out", "s.npz") == 0
    assert np.load("s.npz")["images"].shape == (3, 8, 8, 1)


@pytest.mark.parametrize(
    ("part", "hint"),
    [
        ("--network=nopackage.mynet:MyNet", "No module named 'nopackage'"),
        ("--network=mypackage.nothing:MyNet", "No module named 'mypackage.nothing'"),
        ("--network=mypackage.broken:MyNet", "RuntimeError: first line"),
        ("--network=mypackage.mynet:Nothing", "the module 'mypackage.mynet' has no 'Nothing'"),
        ("--network=mypackage.mynet:Other", "'mypackage.mynet:Other' is no NetworkConfig"),
        ("--network=mypackage.mynet:function", "'mypackage.mynet:function' is no NetworkConfig"),
        ("--schedule=mypackage.mynet:MyNet", "'mypackage.mynet:MyNet' is no Schedule"),
        ("--network=mypackage.mynet:MyNet", "needs 'width'"),
    ],
)
def test_parts_that_can_not_be_used(own_package: Path, refused: Callable[..., str], part: str, hint: str) -> None:
    error = refused("train", "digits", "--steps", "2", "--run", "r", part)
    assert hint in error and not (own_package / "r").exists(), error


def test_a_run_whose_network_is_gone(own_package: Path, command: Command, refused: Callable[..., str]) -> None:
    assert command(*OWN, "--steps", "1", "--run", "r") == 0
    forget()
    (own_package / "mypackage").rename(own_package / "renamed")
    for words in (["sample", "r"], ["train", "--resume", "r"], ["restore", "r", "x.png"], ["info", "r"]):
        error = refused(*words)
        assert "'mypackage.mynet'" in error and "PYTHONPATH" in error, error


def test_a_gpu_that_is_passed_over_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("unnoise.utils.runtime.choose_device_and_why", lambda: ("cpu", "Apple's GPU fails in a short check"))
    assert follow_trainings() == 0
    assert capsys.readouterr().out == "device: cpu (Apple's GPU fails in a short check)\n"
