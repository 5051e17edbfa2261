"""`unnoise average`."""

from collections.abc import Callable
from pathlib import Path

from unnoise.run_folder import RunFolder
from unnoise.runs.trainer import Trainer


def test_what_cant_be_made_a_run(tmp_path: Path, small_run: Trainer, refused: Callable[..., str]) -> None:
    folder, out = small_run.folder.path, tmp_path / "out"
    assert "give either --width" in refused("average", folder, "--out", out)
    assert "give either --width" in refused("average", folder, "--best", "--width", 0.1, "--out", out)
    assert "holds a run already" in refused("average", folder, "--best", "--out", folder)
    bare = RunFolder(tmp_path / "bare")
    bare.path.mkdir()
    bare.recipe.write_bytes(small_run.folder.recipe.read_bytes())
    for content in (None, b"no weights"):
        if content is not None:
            bare.best.write_bytes(content)
        assert "no best.safetensors that can be read" in refused("average", bare.path, "--best", "--out", out)
    assert not out.exists()
