"""Every chapter of the tutorial runs, with seconds of training."""

import shutil
import sys
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
CHAPTERS = sorted(p.stem for p in NOTEBOOKS.glob("[0-9]_*.py"))


def test_there_are_nine() -> None:
    assert [c[0] for c in CHAPTERS] == list("123456789")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tutorial") / "notebooks"
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns("runs", "executed", "__pycache__"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter(chapter: str, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNNOISE_FAST", "1")
    monkeypatch.delenv("FGVC_ROOT", raising=False)
    monkeypatch.syspath_prepend(str(copy))
    sys.modules.pop("run", None)
    import run  # type: ignore[import-not-found]

    notebook = run.execute(chapter, copy / "executed")
    assert '"image/png"' in notebook.read_text() or chapter in ("7_saving",)
