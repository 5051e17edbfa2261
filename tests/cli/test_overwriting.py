"""Every command that writes: no file that this program did not write is replaced, unless `--overwrite`."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import QUICK, Command

FILES = [  # the command, and each file that it would replace
    ("sample {run} -n 2 --out {out}/new", "new/000001.png new-grid.png new/generation.json"),
    ("sample {run} -n 2", "run/generated/000000.png run/generated-grid.png"),
    ("sample {run} -n 2 --out {out}/new.npz", "new.npz"),
    ("sample {run} -n 2 --from {image} --out {out}/new", "new/000001.png new-grid.png"),
    ("sample {run} -n 2 --from {image}", "run/image-to-image/000000.png run/image-to-image-grid.png"),
    ("sample {run} --regenerate {sample} --out {out}/again.png", "again.png"),
    ("interpolate {run} 1 2 -n 2 --steps 2 --out {out}/row.png", "row.png"),
    ("interpolate {run} 1 2 -n 2 --steps 2 --out {out}/row.gif", "row.gif"),
    ("restore {run} {image} --sigma 20 --out {out}", "image.png details/image-strip.png details/image-difference.png"),
    ("restore {run} {image} --sigma 20 --bits 16 --out {out}", "image.png details/image-degraded.png details/image-std.png"),
    ("figure data digits -n 2 --out {out}/f.png", "f.png"),
    ("figure forward digits --out {out}/f.png", "f.png"),
    ("figure schedules --out {out}/f.png", "f.png"),
    ("figure reverse {run} --out {out}/f.png", "f.png"),
    ("figure loss {run} --out {out}/f.png", "f.png"),
    ("figure animation {run} -n 1 --out {out}/f.gif", "f.gif"),
    ("data inspect digits --out {out}/f.png", "f.png"),
    ("export {simple} --out {out}/f.pth", "f.pth"),
]  # fmt: skip
FOLDERS = [  # the command, and things in its folder that a run would replace; these commands have no --overwrite
    ("train digits --run {out}", "model.safetensors metrics.jsonl samples/000000.png checkpoints/000002/model.safetensors"),
    ("average {averaged} --width 0.1 --out {out}", "model.safetensors recipe.json"),
    ("import {weights} --run {out} --size 8", "model.safetensors recipe.json guide.safetensors"),
    ("evaluate {run} -n 12 --features pixels", "run/evaluation-nearest.png"),
]
CASES = [(words, name) for table in (FILES, FOLDERS) for words, names in table for name in names.split()]


@pytest.fixture(scope="module")
def material(trained: Path, tmp_path_factory: pytest.TempPathFactory, quick: Command) -> dict[str, Path]:
    """What the commands read."""
    root = tmp_path_factory.mktemp("material")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)).save(root / "image.png")
    assert quick("sample", trained, "-n", 1, "--out", root / "made") == 0
    simple = ["--network", "simple-unet", "--network.widths", "8,16", "--training.precision", "fp32", "--steps", 1]
    assert quick("train", "digits", "--run", root / "simple", *simple, "--sampling.steps", 2) == 0
    assert quick("export", root / "simple", "--out", root / "weights.pth") == 0
    averaged = [*QUICK, "--training.snapshots", 2, "--training.extra-ema", "[0.05]"]
    assert quick("train", "digits", "--run", root / "averaged", *averaged) == 0
    return {"image": root / "image.png", "sample": root / "made" / "000000.png", "simple": root / "simple",
            "weights": root / "weights.pth", "averaged": root / "averaged"}  # fmt: skip


@pytest.fixture(scope="module")
def quick() -> Command:
    from tests.cli.conftest import call

    return call


def place(words: str, name: str, material: dict[str, Path], trained: Path, tmp_path: Path) -> tuple[list[str], Path]:
    """The command's words, and the file of the user's that is in its way."""
    run = Path(shutil.copytree(trained, tmp_path / "run")) if "{run}" in words else trained
    out = tmp_path if name.startswith("run/") else tmp_path / "out"
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"the user's own")
    return words.format(run=run, out=tmp_path / "out", **material).split(), path


@pytest.mark.parametrize(("words", "name"), CASES, ids=lambda value: value)
def test_a_file_of_the_users_is_not_replaced(trained: Path, material: dict[str, Path], tmp_path: Path, words: str, name: str,
                                             refused: Callable[..., str]) -> None:  # fmt: skip
    command, path = place(words, name, material, trained, tmp_path)
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    assert any(part in refused(*command) for part in ("holds a run already", *Path(name).parts))
    assert path.read_bytes() == b"the user's own"
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(("words", "name"), [(words, names.split()[0]) for words, names in FILES], ids=lambda value: value)
def test_overwrite_replaces_it(trained: Path, material: dict[str, Path], tmp_path: Path, words: str, name: str,
                               command: Command) -> None:  # fmt: skip
    given, path = place(words, name, material, trained, tmp_path)
    assert command(*given, "--overwrite") == 0
    assert path.read_bytes() != b"the user's own"
    if path.suffix != ".pth":
        assert command(*given) == 0  # its own it replaces, or keeps
