"""Sources by name and path, and from whatever a user gives in Python."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from tests.data.files import PIXELS, idx, png, write_tar
from unnoise.cli.options import data_changes
from unnoise.data.arrays import Array, Digits, Idx, InMemory
from unnoise.data.dataset import ImageDataset, Source
from unnoise.data.folder import ImageFolder
from unnoise.data.hub import Hub
from unnoise.data.sources import SOURCES, DataConfig, as_source, find_source, names
from unnoise.data.tar import TarShards
from unnoise.data.torchvision_sets import Cifar10
from unnoise.registry import source_of
from unnoise.utils.errors import AmbiguousName, UserError


def test_names_and_paths(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=PIXELS)
    np.save(tmp_path / "a.npy", PIXELS)
    (tmp_path / "x-000.tar").write_bytes(b"")
    assert find_source(str(tmp_path / "a.npy")) == Array(str(tmp_path / "a.npy"))
    assert find_source(str(tmp_path / "x-{000..002}.tar")) == TarShards(str(tmp_path / "x-{000..002}.tar"))
    assert find_source(str(tmp_path)) == ImageFolder(str(tmp_path))
    (tmp_path / "text.txt").write_text("")
    text = str(tmp_path / "text.txt")
    (tmp_path / "photos.zip").write_bytes(b"PK")
    packed = str(tmp_path / "photos.zip")
    wrong_ones = (("digts", "did you mean 'digits'"), (packed, "unpack it and give that folder"), (text, "give the folder"),
                  ("a/b", "check the path"))  # fmt: skip
    for wrong, words in wrong_ones:
        with pytest.raises(UserError, match=words):
            find_source(wrong)


@pytest.mark.parametrize("name", names())
def test_a_folder_called_as_a_data_set_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set is taken, and how the folder is meant is said, wherever a name becomes a source."""
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    for call in (find_source, as_source, source_of, lambda data: data_changes(data)["data.source"]):
        with pytest.warns(AmbiguousName, match=f"'{name}' is the data set of that name, .*: ./{name} takes that"):
            assert type(call(name)) is SOURCES[name]
    assert find_source(f"./{name}") == ImageFolder(f"./{name}")


@pytest.mark.parametrize("as_path", [False, True])
def test_whatever_lies_at_a_path_is_found(tmp_path: Path, as_path: bool) -> None:
    """Each kind of file and folder holds the same six images, and all are read alike."""
    (tmp_path / "folder").mkdir()
    for k, p in enumerate(PIXELS):
        (tmp_path / "folder" / f"{k}.png").write_bytes(png(p))
    np.savez(tmp_path / "a.npz", images=PIXELS)
    np.save(tmp_path / "a.npy", PIXELS)
    write_tar(tmp_path / "a.tar", [(f"{k}.png", png(p)) for k, p in enumerate(PIXELS)])
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(PIXELS[..., 0])))
    kinds: dict[str, type[Source]] = {"folder": ImageFolder, "a.npz": Array, "a.npy": Array, "a.tar": TarShards, "idx": Idx}
    for name, kind in kinds.items():
        source = as_source(tmp_path / name if as_path else str(tmp_path / name))
        assert type(source) is kind
        truth = PIXELS[..., :1] if kind is Idx else PIXELS
        assert np.array_equal(DataConfig(source).load().pixels, truth)


def test_digits_are_those_of_scikit_learn() -> None:
    ours, theirs = DataConfig(Digits()).load(), load_digits()
    assert np.array_equal(ours.pixels[..., 0], np.round(theirs.images / 16 * 255))
    assert ours.labels is not None and np.array_equal(ours.labels, theirs.target)


def test_names_sources_and_images_in_python() -> None:
    assert as_source("digits") == Digits() and as_source("cifar10") == Cifar10()
    assert as_source("hf:owner/name") == Hub("owner/name")
    own = ImageFolder("my/photos", 64)
    assert as_source(own) is own
    x = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    given: list[Any] = [PIXELS, x, TensorDataset(x, torch.zeros(6, dtype=torch.long)), ImageDataset(PIXELS)]
    for data in given:
        source = as_source(data)
        assert isinstance(source, InMemory) and source.data is data
        assert np.array_equal(DataConfig(source).load().pixels, PIXELS)
    for nothing in (123, None, iter(PIXELS)):
        with pytest.raises(UserError, match=f"images are a path, .* not a {type(nothing).__name__}"):
            as_source(nothing)
    for wrong in ("folder", "array", "shards", "memory"):  # kinds of sources that are not complete by their name alone
        with pytest.raises(UserError, match="neither a known data set nor a path"):
            as_source(wrong)
