"""A run folder as it stands on the disk."""

from pathlib import Path

import pytest
import torch

from tests.conftest import quiet, small
from unnoise.diffusion.gaussian import Moments
from unnoise.run_folder import RunFolder, list_runs
from unnoise.runs.start import begin
from unnoise.utils.errors import UserError


def test_a_last_line_cut_short_is_forgiven(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert RunFolder(tmp_path).read_losses() == ([1], [0.5])


def test_runs_are_listed(tmp_path: Path) -> None:
    run = begin(tmp_path / "a", small(training__steps=3), quiet)
    list(run.train())
    run.measure()
    begin(tmp_path / "b", small(training__steps=3), quiet)
    for last in ("", '{"step": 3, "loss": NaN, "skipped": true}\n'):  # also where the last step changed nothing
        lines = run.folder.metrics.read_text().splitlines(keepends=True)
        run.folder.metrics.write_text("".join([*lines[:-1], last or lines[-1]]))
        found = {r.folder.name: r for r in list_runs(tmp_path)}
        assert (found["a"].state, found["a"].step, found["a"].total) == ("done", 3, 3) and found["a"].best is not None
    assert (found["b"].state, found["b"].loss) == ("no steps", None)


def test_moments_survive_the_disk(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_moments() is None
    moments = Moments(torch.randn(1, 2, 2), torch.randn(3, 1, 2, 2), torch.tensor(0.3))
    folder.write_model({"network.weight": torch.ones(2)}, moments)
    found = folder.read_moments()
    assert found is not None and all(torch.equal(a, b) for a, b in zip(vars(found).values(), vars(moments).values(), strict=True))
    folder.model.write_bytes(folder.model.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        folder.read_moments()


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "nowhere", "no run folder"), (tmp_path, "has no recipe.json")):
        with pytest.raises(UserError, match=words):
            RunFolder.open(path)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "recipe.json").write_text("{")
    with pytest.raises(UserError, match=r"did you mean '.*digits'"):
        RunFolder.open(tmp_path / "digit")
    with pytest.raises(UserError, match="not readable JSON"):
        RunFolder.open(tmp_path / "digits").read_info()
