"""Runs of every format that recipe.json ever had are opened, and one that is not known yet is refused.

`tests/runs/formats/N` holds the two files that are a model, as the program wrote them when the format was new, of a small network
on digits, and the first samples of it.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import unnoise as un
from unnoise.recipe import FORMAT
from unnoise.run_folder import RunFolder

FORMATS = Path(__file__).parent / "formats"


def test_there_is_a_run_of_each_format() -> None:
    assert sorted(int(p.name) for p in FORMATS.iterdir()) == list(range(1, FORMAT + 1))


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_a_run_of_each_format_opens(number: int, tmp_path: Path) -> None:
    """It gives the samples that it gave, restores, and is written again as the present format."""
    run = FORMATS / str(number)
    assert json.loads((run / "recipe.json").read_text()).get("format", 1) == number
    model = un.load(run)
    expected = np.load(run / "samples.npy").astype(int)
    assert np.abs(model.sample(4, seed=3).astype(int) - expected).max() <= 1  # of 255: sums differ between machines
    assert np.isfinite(model.restore(model.sample(1, output="tensor"), noise=un.GaussianNoise(20)).mean.numpy()).all()
    model.info.save(tmp_path / "recipe.json")
    assert json.loads((tmp_path / "recipe.json").read_text())["format"] == FORMAT


def test_two_files_are_a_model(tmp_path: Path) -> None:
    """No images, checkpoints or logs are needed to sample."""
    for name in ("recipe.json", "model.safetensors"):
        shutil.copy(FORMATS / str(FORMAT) / name, tmp_path)
    assert un.load(tmp_path).sample(2).shape == (2, 8, 8, 1)


@pytest.mark.parametrize("number", [FORMAT + 1, 0, -1, "2", 1.0, True, None])
def test_a_later_format_is_refused(number: object, tmp_path: Path) -> None:
    info = json.loads((FORMATS / "1" / "recipe.json").read_text())
    (tmp_path / "recipe.json").write_text(json.dumps(info | {"format": number}))
    with pytest.raises(un.UserError, match=r"is not known here .* use the version that wrote it"):
        RunFolder.open(tmp_path).read_info()
