"""What is saved is whole or is not there; what is damaged is seen before it is used."""

import errno
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import quiet, small
from unnoise.networks.unet import UNetConfig
from unnoise.run_folder import RunFolder
from unnoise.runs.resume import resume
from unnoise.runs.start import begin
from unnoise.training import checkpoint
from unnoise.training.distributed import full_state_dict
from unnoise.utils import atomic
from unnoise.utils.errors import UserError


def parts(seed: int = 0) -> tuple[dict[str, nn.Module], list[torch.optim.Optimizer]]:
    torch.manual_seed(seed)
    model, average = (UNetConfig(widths=(16,), blocks=1, embedding=16).build(1, (8, 8), 0) for _ in range(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.randn(2, 1, 8, 8), torch.zeros(2)).square().sum().backward()
    optimizer.step()
    return {"model": model, "average": average}, [optimizer]


def save(folder: Path, step: int, **options: Any) -> None:
    checkpoint.save(folder, checkpoint.collect(*parts(step)), {"step": step, "total": None}, **options)


def test_damage_anywhere_is_found(tmp_path: Path) -> None:
    """One byte changed at 100 places, or a file cut short: never loaded, and the one before is used."""
    save(tmp_path, 1, keep=9)
    save(tmp_path, 2, keep=9)
    intact = {p.name: p.read_bytes() for p in (tmp_path / "000002").iterdir()}
    rng = np.random.default_rng(0)
    names = sorted(intact)
    for k in range(100):
        name = names[k % len(names)]
        data = bytearray(intact[name])
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        (tmp_path / "000002" / name).write_bytes(data if k % 10 else data[: len(data) // 2])
        said: list[str] = []
        state = checkpoint.load_newest(tmp_path, *parts(7), said.append)
        harmless = name == "manifest.json" and not said  # a byte of white space or of the format's number
        assert state is not None and (state["step"] == 1 or harmless), (name, k)
        assert harmless or "000002' is damaged" in said[0]
        (tmp_path / "000002" / name).write_bytes(intact[name])
    assert checkpoint.load_newest(tmp_path, *parts(7), quiet) == {"step": 2, "total": None, "format": checkpoint.FORMAT}


def test_nothing_is_loaded_from_a_damaged_one(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = tmp_path / "000001" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    models, optimizers = parts(7)
    before = full_state_dict(models["model"])
    with pytest.raises(UserError, match=r"damaged \(the contents of optimizer"):
        checkpoint.load(tmp_path / "000001", models, optimizers)
    assert all(torch.equal(before[name], tensor) for name, tensor in models["model"].state_dict().items())
    with pytest.raises(UserError, match="every checkpoint"):
        checkpoint.load_newest(tmp_path, models, optimizers, quiet)


def test_a_round_trip_keeps_the_bits(tmp_path: Path) -> None:
    saved = parts(1)
    checkpoint.save(tmp_path, checkpoint.collect(*saved), {"step": 3, "total": 9})
    loaded = parts(2)
    assert checkpoint.load(tmp_path / "000003", *loaded)["total"] == 9
    for one, other in zip(saved[0].values(), loaded[0].values(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    one_state, other_state = (o[0].state_dict()["state"] for o in (saved[1], loaded[1]))
    assert one_state.keys() == other_state.keys()
    assert all(torch.equal(values[name], other_state[k][name]) for k, values in one_state.items() for name in values)


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 2)
        save(tmp_path, 1)
    with pytest.raises(UserError, match="has format 2 and this version of unnoise reads 4"):
        checkpoint.load_newest(tmp_path, *parts(5), quiet)


def test_each_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    hashed: list[str] = []
    sha256 = checkpoint._sha256

    def count(path: Path) -> str:
        hashed.append(path.name)
        return sha256(path)

    monkeypatch.setattr(checkpoint, "_sha256", count)
    assert checkpoint.load_newest(tmp_path, *parts(5), quiet) is not None
    assert sorted(hashed) == sorted(checkpoint.NEEDED)


def test_moments_lie_in_memory_as_their_parameters(tmp_path: Path) -> None:
    """Fused optimizers walk the memory itself: with channels last a moment of other strides would be another moment."""
    models, optimizers = parts(1)
    models["model"].to(memory_format=torch.channels_last)
    checkpoint.save(tmp_path, checkpoint.collect(models, optimizers), {"step": 1, "total": None})
    checkpoint.load(tmp_path / "000001", models, optimizers)
    for p, state in optimizers[0].state.items():
        assert all(v.stride() == p.stride() for v in state.values() if v.shape == p.shape)


def test_no_state_is_invented_for_what_was_never_used(tmp_path: Path) -> None:
    """The augmentation labels' weight has no gradient here: neither has it a state after loading."""
    models, optimizers = parts(1)
    checkpoint.save(tmp_path, checkpoint.collect(models, optimizers), {"step": 1, "total": None})
    loaded, (other,) = parts(2)
    checkpoint.load(tmp_path / "000001", loaded, [other])
    unused = loaded["model"].get_parameter("augment.weight")
    assert unused not in optimizers[0].state and unused not in other.state


def test_what_a_killed_save_left_is_swept(tmp_path: Path) -> None:
    """And nothing that is not ours, whatever it is called."""
    token = "0123456789abcdef"
    mine = ("mine.tmp", "a.tmp.txt", "paper/figures.tmp/x", f"paper/.a.{token}.tmp.png", ".tmp")
    ours = (f"checkpoints/000009.{token}.tmp/x", f".model.{token}.tmp.safetensors", f"checkpoints/.latest.{token}.tmp")
    for name in (*ours, *mine):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    RunFolder(tmp_path).sweep()
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(mine)


def test_only_our_checkpoints_are_pruned(tmp_path: Path) -> None:
    """No folder of a user's own that has a number for a name, and nothing that a link leads to."""
    photos = tmp_path / "photos"
    for folder in (photos, tmp_path / "checkpoints" / "2019"):
        folder.mkdir(parents=True)
        (folder / "a.png").write_text("")
    (tmp_path / "checkpoints" / "000000").symlink_to(photos)
    for step in range(2020, 2025):
        save(tmp_path / "checkpoints", step, keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["000000", "002023", "002024", "2019", "latest"]
    assert list(photos.iterdir()) == [photos / "a.png"]


def test_which_are_kept(tmp_path: Path) -> None:
    for step in range(1, 12):
        save(tmp_path, step, keep=2, every=4)
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == ["000004", "000008", "000010", "000011"]
    assert (tmp_path / "latest").read_text() == "000011"


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tries, one sentence, the old checkpoint whole, nothing temporary left, and it goes on when there is room."""
    run = begin(tmp_path / "r", small(training__steps=6), quiet)
    records = run.train()
    for record in records:
        if record.step == 2:
            run.save()
            break
    tries: list[str] = []

    def full(path: Path) -> None:
        tries.append(path.name)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("unnoise.runs.trainer.time.sleep", lambda _: None)
    monkeypatch.setattr(atomic, "flush", full)
    next(records)
    with pytest.raises(
        UserError, match=r"step 3 can't be saved \(No space left on device\); the checkpoints before it are whole"
    ):
        records.close()
    assert len(tries) == 3
    assert not list(tmp_path.rglob("*.tmp*"))
    monkeypatch.undo()
    again = resume(tmp_path / "r", quiet)
    assert again.state.step == 2 and [r.step for r in again.train()] == [3, 4, 5, 6]
    shutil.rmtree(tmp_path / "r")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own thread, which only ends
def test_a_disk_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other run folder is made where it was; when it is back, training goes on from its last checkpoint."""
    run = begin(tmp_path / "r", small(training__steps=6), quiet)
    monkeypatch.setattr("unnoise.runs.trainer.time.sleep", lambda _: None)
    records = run.train()
    for record in records:
        if record.step == 2:
            run.save()
        if record.step == 4:
            (tmp_path / "r").rename(tmp_path / "elsewhere")
            break
    with pytest.raises(UserError, match=r"step 4 can't be saved \(No such file or directory\)"):
        records.close()
    assert not (tmp_path / "r" / "checkpoints").exists() and not (tmp_path / "r" / "model.safetensors").exists()
    again = resume(tmp_path / "elsewhere", quiet)
    assert again.state.step == 2 and [r.step for r in again.train()] == [3, 4, 5, 6]


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    model = UNetConfig(widths=(16,)).build(1, (8, 8), 0)
    path = tmp_path / "model.safetensors"
    checkpoint.save_tensors(path, full_state_dict(model))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        checkpoint.load_model(path, model)
