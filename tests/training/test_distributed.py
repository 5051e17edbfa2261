"""One model trained by two processes (gloo, on the CPU): the same as by one."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from tests.training.test_loop import quiet, small
from tests.training.worker import train_until
from unnoise.data.sources import DataConfig
from unnoise.diffusion.schedules import Flow
from unnoise.run_folder import RunFolder
from unnoise.runs.start import begin, resume
from unnoise.training.batches import Ahead, Batches
from unnoise.training.checkpoint import list_checkpoints
from unnoise.training.config import TrainingConfig
from unnoise.training.loop import train
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import SINGLE, Runtime, cores

ROOT = Path(__file__).parents[1]


def launch(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
               "--rdzv-endpoint", "localhost:0", "-m", "--", *arguments]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: "subprocess.Popen[str]", seconds: float = 120) -> str:
    said, _ = process.communicate(timeout=seconds)
    return said


def wait_for(metrics: Path) -> None:
    """Until some steps are written down."""
    deadline = time.monotonic() + 60
    while not (metrics.is_file() and metrics.stat().st_size > 2000):
        assert time.monotonic() < deadline, "training did not begin"
        time.sleep(0.1)


@pytest.mark.parametrize("sharded", [False, True])
def test_one_then_two_then_one(tmp_path: Path, sharded: bool) -> None:
    """The same images, times and noise, and so the same losses and weights, whoever computes them."""
    recipe = small(training__steps=12, training__sharded=sharded, training__extra_ema=[0.05], data__flip=True)
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
    for name, model in whole.training.models.items():
        for one, other in zip(model.parameters(), again.state.models[name].parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_each_process_takes_its_part() -> None:
    """Parts of 2, 3 and 5 processes put together are what one process sees, to the bit; also when read ahead."""
    images = DataConfig().load()
    plan = TrainingConfig(batch=8, label_dropout=0.4)
    whole = Batches(images, plan, Flow(), flip=True, augmented=0.2)
    for count in (2, 3, 5):
        parts = [
            Batches(images, plan, Flow(), flip=True, augmented=0.2, runtime=Runtime(k, count)) for k in range(count)
        ]
        for step in (0, 300):
            for mine, pieces in zip(whole(step), zip(*(p(step) for p in parts), strict=True), strict=True):
                assert mine is not None and torch.equal(mine, torch.cat([p for p in pieces if p is not None]))
    with ThreadPoolExecutor(1) as pool:
        ahead = Ahead(whole, pool)
        for step in (0, 1, 2, 7):
            for mine, its in zip(ahead(step), whole(step), strict=True):
                assert mine is not None and its is not None and torch.equal(mine, its)


def test_a_lost_process_ends_all(tmp_path: Path) -> None:
    """Within 30 seconds, with a sentence, and what was done is kept."""
    begin(tmp_path / "run", small(training__steps=100_000), quiet)
    process = launch("unnoise", "train", "--resume", str(tmp_path / "run"))
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(metrics)
    begun = time.monotonic()
    workers = psutil.Process(process.pid).children(recursive=True)
    os.kill(next(w.pid for w in workers if w.environ().get("RANK") == "1"), signal.SIGKILL)
    said = finish(process, 40)
    assert time.monotonic() - begun < 30 and process.returncode != 0
    assert "has lost another one" in said and "--resume" in said
    assert resume(tmp_path / "run", quiet).training.step > 0


def test_stopped_together(tmp_path: Path) -> None:
    command = ["unnoise", "train", "digits", "--run", str(tmp_path / "run"), "--steps", "100000", "--network.widths", "16,32",
               "--network.blocks", "1", "--training.precision", "fp32"]  # fmt: skip
    process = launch(*command)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(metrics)
    process.send_signal(signal.SIGTERM)
    said = finish(process, 40)
    assert "all is kept. Go on with" in said, said
    assert resume(tmp_path / "run", quiet).training.step > 0


def test_divided_shards(tmp_path: Path) -> None:
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
    command = ["unnoise", "train", "digits", "--data", f"{tmp_path}/s-{{0..2}}.tar", "--data.source.divide", "true",
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
    training = recipe.build_state(images.shape, 10, "cpu")
    with pytest.raises(UserError, match="can't be shared by 3"):
        next(train(training, images, recipe.training, runtime=Runtime(0, 3)))


def test_cores_are_those_allowed() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
