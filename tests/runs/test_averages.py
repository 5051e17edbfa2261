"""Averages made from a run's snapshots."""

from pathlib import Path

import pytest
import torch

from tests.conftest import quiet, small
from unnoise.model import Model
from unnoise.runs.averages import make_average
from unnoise.runs.start import begin
from unnoise.utils.errors import UserError


def test_a_run_averaged_again(tmp_path: Path) -> None:
    run = begin(tmp_path / "run", small(training__steps=16, training__snapshots=8, training__extra_ema=[0.05]), quiet)
    list(run.train())
    assert len(list((tmp_path / "run" / "snapshots").iterdir())) == 16
    make_average(tmp_path / "run", 0.05, tmp_path / "out")
    model = Model.load(tmp_path / "out")
    for mine, kept in zip(model.denoiser.parameters(), run.state.extra_averages[0.05].parameters(), strict=True):
        torch.testing.assert_close(mine, kept, rtol=1e-4, atol=1e-6)
    assert run.folder.guide.read_bytes() == (tmp_path / "out" / "guide.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"from 0\.05 up to 0\.28, not 0\.3"):
        make_average(tmp_path / "run", 0.3, tmp_path / "other")
    with pytest.raises(UserError, match="holds a run already"):
        make_average(tmp_path / "run", 0.1, tmp_path / "out")
    bare = begin(tmp_path / "bare", small(training__steps=1), quiet)
    list(bare.train())
    with pytest.raises(UserError, match="holds 0 stored averages"):
        make_average(tmp_path / "bare", 0.1, tmp_path / "other")
    assert not (tmp_path / "other").exists()
