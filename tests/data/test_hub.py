"""Data sets by way of the library `datasets`, from local files: nothing is fetched."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.files import PIXELS, png
from unnoise.data.fit import Fit
from unnoise.data.hub import Hub
from unnoise.data.sources import find_source
from unnoise.utils.errors import UserError


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    for name, part in (("train", slice(0, 4)), ("test", slice(4, 6))):
        rows = {"image": [{"bytes": png(p), "path": None} for p in PIXELS[part]], "label": [0, 1, 0, 1][: len(PIXELS[part])]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{name}-00000-of-00001.parquet")
    return tmp_path


def test_local_parquet(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = find_source(f"hf:{parquet}")
    images = source.read(Fit())
    assert source == Hub(str(parquet)) and np.array_equal(images.pixels, PIXELS)
    assert images.classes == ("cat", "dog") and images.labels is not None and list(images.labels) == [0, 1, 0, 1, 0, 1]
    assert images.test is not None and list(images.test) == [False] * 4 + [True] * 2
    with pytest.raises(UserError, match="has no split 'trian': it has "):
        Hub(str(parquet), train="trian").read(Fit())


def test_a_local_image_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for k, p in enumerate(PIXELS):
        folder = tmp_path / "train" / ("cat", "dog")[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{k}.png").write_bytes(png(p))
    images = Hub(str(tmp_path)).read(Fit())
    assert images.classes == ("cat", "dog") and images.labels is not None and images.test is None
    expected = {PIXELS[k].tobytes(): k % 2 for k in range(len(PIXELS))}
    found = {p.tobytes(): int(label) for p, label in zip(images.pixels, images.labels, strict=True)}
    assert found == expected


def test_a_set_takes_no_file_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell may name any path: one outside of the set is left out by name."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "private.png").write_bytes(png(PIXELS[1]))
    folder = tmp_path / "set"
    folder.mkdir()
    cells = [{"bytes": png(PIXELS[0]), "path": None}, {"bytes": None, "path": str(tmp_path / "private.png")}]
    rows = datasets.Dataset.from_dict({"image": cells}, features=datasets.Features({"image": datasets.Image(decode=False)}))
    rows.to_parquet(folder / "train-00000-of-00001.parquet")
    images = Hub(str(folder)).read(Fit())
    assert np.array_equal(images.pixels, PIXELS[:1])
    assert any("outside of itself" in reason for reason in images.skipped)


def test_a_data_set_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="can't be loaded"):
        Hub(str(tmp_path / "nothing")).read(Fit())
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'unnoise\[hub\]'"):
        Hub("owner/name").read(Fit())
