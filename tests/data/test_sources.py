"""Sources beyond folders and the published sets."""

import gzip
import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from unnoise.data.arrays import Array, Idx, from_dataset
from unnoise.data.dataset import ImageDataset, Split, split
from unnoise.data.decode import Fit
from unnoise.data.hub import Hub
from unnoise.data.sources import DataConfig, find_source
from unnoise.data.stats import describe, near_duplicates
from unnoise.data.tar import TarShards, expand
from unnoise.utils.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_idx(tmp_path: Path) -> None:
    grey, labels = PIXELS[..., 0], np.arange(6, dtype=np.uint8)
    for name, part in (("train", slice(0, 4)), ("t10k", slice(4, 6))):
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(grey[part])))
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels[part])))
    source = find_source(str(tmp_path))
    images = source.read(Fit())
    assert source == Idx(str(tmp_path)) and images.labels is not None and images.test is not None
    where = np.argsort(images.labels)
    assert np.array_equal(images.pixels[where, ..., 0], grey) and images.test[where].tolist() == [False] * 4 + [True] * 2
    one = find_source(str(tmp_path / "t10k-images-idx3-ubyte.gz")).read(Fit())
    assert len(one) == 2 and one.test is None
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(UserError, match="can't be read as an idx file"):
        source.read(Fit())


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    for k, p in enumerate(PIXELS):
        folder = tmp_path / ("cats", "dogs/small")[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{k}.png").write_bytes(png(p))
    images = ImageFolder(str(tmp_path), subfolders=True).read(Fit())
    assert images.classes == ("cats", "dogs") and images.labels is not None and list(images.labels) == [0, 0, 0, 1, 1, 1]
    assert ImageFolder(str(tmp_path)).read(Fit()).labels is None
    (tmp_path / "stray.png").write_bytes(png(PIXELS[0]))
    with pytest.raises(UserError, match=r"'stray\.png' lies in no sub-folder"):
        ImageFolder(str(tmp_path), subfolders=True).read(Fit())


def test_a_users_own_dataset() -> None:
    x = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    labelled = from_dataset(TensorDataset(x.float() / 255, torch.tensor([0, 1, 2, 0, 1, 2])), classes=("a", "b", "c"))
    assert np.array_equal(labelled.pixels, PIXELS) and labelled.labels is not None
    assert list(labelled.labels) == [0, 1, 2, 0, 1, 2] and labelled.classes == ("a", "b", "c")
    pillow = from_dataset([Image.fromarray(p) for p in PIXELS], Fit((4, 4)))
    assert pillow.shape == (3, 4, 4) and pillow.labels is None
    for wrong, words in [
        ([Image.new("RGB", (4, 4)), Image.new("RGB", (5, 4))], "image 1 has shape"),
        ([torch.full((3, 4, 4), 2.0)], r"give uint8, or \[0, 1\]"),
        ([np.zeros((4, 4, 2), np.uint8)], "grey or RGB"),
        ([], "no images"),
    ]:
        with pytest.raises(UserError, match=words):
            from_dataset(wrong)


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    for name, part in (("train", slice(0, 4)), ("test", slice(4, 6))):
        rows = {"image": [{"bytes": png(p), "path": None} for p in PIXELS[part]], "label": [0, 1, 0, 1][: len(PIXELS[part])]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{name}-00000-of-00001.parquet")
    return tmp_path


def test_local_parquet_by_the_hubs_library(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = find_source(f"hf:{parquet}")
    images = source.read(Fit())
    assert source == Hub(str(parquet)) and np.array_equal(images.pixels, PIXELS)
    assert images.classes == ("cat", "dog") and images.labels is not None and list(images.labels) == [0, 1, 0, 1, 0, 1]
    assert images.test is not None and list(images.test) == [False] * 4 + [True] * 2
    with pytest.raises(UserError, match="has no split 'trian': it has "):
        Hub(str(parquet), train="trian").read(Fit())


def test_a_local_image_folder_by_the_hubs_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_set_of_the_hub_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="can't be loaded"):
        Hub(str(tmp_path / "nothing")).read(Fit())
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'unnoise\[hub\]'"):
        Hub("owner/name").read(Fit())


def test_names_and_paths(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS)
    np.save(tmp_path / "a.npy", PIXELS)
    (tmp_path / "x-000.tar").write_bytes(b"")
    assert find_source(str(tmp_path / "a.npy")) == Array(str(tmp_path / "a.npy"))
    assert find_source(str(tmp_path / "x-{000..002}.tar")) == TarShards(str(tmp_path / "x-{000..002}.tar"))
    assert find_source(str(tmp_path)) == ImageFolder(str(tmp_path))
    assert [p.name for p in expand("a-{08..11}.tar")] == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert [p.name for p in expand(str(tmp_path / "x-*.tar"))] == ["x-000.tar"]
    (tmp_path / "text.txt").write_text("")
    text = str(tmp_path / "text.txt")
    for wrong, words in (("digts", "did you mean 'digits'"), (text, "give the folder"), ("a/b", "check the path")):
        with pytest.raises(UserError, match=words):
            find_source(wrong)


def test_near_duplicates_across_the_split() -> None:
    """A recompressed copy is found, another image is not."""
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 256, (20, 6, 6, 1)), np.ones((1, 8, 8, 3))).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(smooth[3]).save(out, "JPEG", quality=80)
    parts = Split(ImageDataset(smooth[:10]), ImageDataset(np.stack([smooth[15], np.asarray(Image.open(out))])))
    assert near_duplicates(parts) == [(1, 3)]


def test_inspection_says_what_is_there() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1])
    images = ImageDataset(PIXELS[[0, 1, 2, 3, 4, 0]], labels, ("cat", "dog"), skipped=("'x.jpg': truncated",))
    said: dict[str, Any] = dict(describe(images, split(images, 0.3)))
    assert said["classes"] == "2: 'cat': 2, 'dog': 4" and said["exact duplicates"].startswith("1 ")
    x = images.pixels / 127.5 - 1
    assert f"mean {x.mean():.3f}, standard deviation {x.std():.3f}" in said["pixels on [-1, 1]"] and said["unreadable"] == "1"


def test_background_and_plan(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([PIXELS[0], np.zeros((8, 8), np.uint8)])).save(tmp_path / "clear.png")
    assert DataConfig(ImageFolder(str(tmp_path))).load().pixels.min() == 255
    assert DataConfig(ImageFolder(str(tmp_path)), background="black").load().pixels.max() == 0
    with pytest.raises(UserError, match="did you mean 'black'"):
        DataConfig(background="blak")
