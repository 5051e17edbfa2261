"""One model trained by two processes (gloo, on the CPU): the same as by one."""

import io
import os
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from tests.conftest import quiet, small
from tests.launch import finish, launch
from tests.training.worker import train_until
from unnoise.run_folder import RunFolder
from unnoise.runs.resume import resume
from unnoise.runs.start import begin
from unnoise.training.checkpoint import list_checkpoints
from unnoise.training.loop import train
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import SINGLE, Runtime


def wait_for(metrics: Path) -> None:
    """Until some steps are written down."""
    deadline = time.monotonic() + 240
    while not (metrics.is_file() and metrics.stat().st_size > 2000):
        assert time.monotonic() < deadline, "training did not begin"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("sharded", "optimizer"),
    [(False, "muon"), pytest.param(True, "adamw", marks=pytest.mark.slow), pytest.param(True, "muon", marks=pytest.mark.slow)],
)
def test_one_then_two_then_one(tmp_path: Path, sharded: bool, optimizer: str) -> None:
    """The same images, times and noise, and so the same losses and weights, whoever computes them."""
    recipe = small(training__steps=12, training__sharded=sharded, training__extra_ema=[0.05], data__flip=True,
                   training__optimizer=optimizer, training__sample_every=1e6)  # fmt: skip
    whole = begin(tmp_path / "whole", recipe, quiet)
    list(whole.train())
    begin(tmp_path / "broken", recipe, quiet)
    train_until(tmp_path / "broken", 4, SINGLE)
    process = launch("tests.training.worker", str(tmp_path / "broken"), "8")
    said = finish(process)
    assert process.returncode == 0 and "going on from step 4" in said, said
    assert list_checkpoints(tmp_path / "broken" / "checkpoints")[-1].name == "000008"
    train_until(tmp_path / "broken", 12, SINGLE)
    expected, found = (RunFolder(tmp_path / name).read_losses() for name in ("whole", "broken"))
    assert expected is not None and found is not None and expected[0] == found[0] == list(range(1, 13))
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)
    assert RunFolder(tmp_path / "broken").read_held_out_losses() == RunFolder(tmp_path / "whole").read_held_out_losses()
    again = resume(tmp_path / "broken", quiet)
    for name, model in whole.state.models.items():
        for one, other in zip(model.parameters(), again.state.models[name].parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_lost_process_ends_all(tmp_path: Path) -> None:
    """With a sentence, and what was done is kept."""
    begin(tmp_path / "run", small(training__steps=100_000), quiet)
    process = launch("unnoise", "train", "--resume", str(tmp_path / "run"))
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(metrics)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.kill(next(w.pid for w in workers if w.environ().get("RANK") == "1"), signal.SIGKILL)
    said = finish(process)
    assert process.returncode != 0
    assert "has lost another one" in said and "--resume" in said
    assert resume(tmp_path / "run", quiet).state.step > 0


@pytest.mark.slow
def test_stopped_together(tmp_path: Path) -> None:
    command = ["unnoise", "train", "digits", "--run", str(tmp_path / "run"), "--steps", "100000", "--network.widths", "16,32",
               "--network.blocks", "1", "--training.precision", "fp32"]  # fmt: skip
    process = launch(*command)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(metrics)
    process.send_signal(signal.SIGTERM)
    said = finish(process)
    assert "all is kept. Go on with" in said, said
    assert resume(tmp_path / "run", quiet).state.step > 0


@pytest.mark.slow
def test_shards_per_process(tmp_path: Path) -> None:
    """Each process reads its own shards; class names are those of all; another number of processes is refused."""
    for shard in range(3):
        with tarfile.open(tmp_path / f"s-{shard}.tar", "w") as tar:
            for k in range(20):
                data = io.BytesIO()
                Image.fromarray(np.full((8, 8), 60 * shard + k, np.uint8)).save(data, "png")
                for name, content in ((f"{shard}-{k}.png", data.getvalue()), (f"{shard}-{k}.cls", f"c{shard}".encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    command = ["unnoise", "train", "digits", "--data", f"{tmp_path}/s-{{0..2}}.tar", "--data.source.per-process", "true",
               "--size", "8",
               "--run", str(tmp_path / "run"), "--steps", "6", "--network.widths", "16,32"]  # fmt: skip
    process = launch(*command)
    said = finish(process)
    assert process.returncode == 0, said
    run = tmp_path / "run"
    assert "of each process's own" in said and all(f'"c{k}"' in (run / "recipe.json").read_text() for k in range(3))
    with pytest.raises(UserError, match="as many processes as before"):
        resume(run, quiet)


def test_a_batch_must_be_shared() -> None:
    recipe = small(training__batch=2, training__steps=1)
    images = recipe.data.load()
    state = recipe.build_state(images.shape, 10, "cpu")
    with pytest.raises(UserError, match="can't be shared by 3"):
        next(train(state, images, recipe.training, Runtime(rank=0, world_size=3)))
