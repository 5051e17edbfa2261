"""Arrays as sources, from files and from Python."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from tests.data.files import PIXELS, idx
from unnoise.data.arrays import Array, Idx, InMemory, from_dataset
from unnoise.data.dataset import ImageDataset, hash_images
from unnoise.data.decode import Fit
from unnoise.data.sources import find_source
from unnoise.recipe import Recipe, override
from unnoise.registry import from_json, to_json
from unnoise.utils.errors import UserError

REFUSED = [
    ("floats", np.zeros((3, 8, 8), dtype=np.float32), "holds float32"),
    ("wide", np.zeros((3, 8, 8), dtype=np.uint16), "holds uint16"),
    ("four", np.zeros((3, 8, 8, 4), dtype=np.uint8), r"\(N, H, W, 3\)"),
    ("empty", np.zeros((0, 8, 8), dtype=np.uint8), "holds no images"),
]


def test_array_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PIXELS)
    assert np.array_equal(Array(str(tmp_path / "a.npy")).read(Fit()).pixels, PIXELS)
    np.savez(tmp_path / "a.npz", other=np.zeros(3), images=PIXELS[..., 0], labels=np.array(["b", "a", "b", "a", "c", "c"]))
    images = Array(str(tmp_path / "a.npz")).read(Fit())
    assert np.array_equal(images.pixels, PIXELS[..., :1]) and images.classes == ("a", "b", "c")
    assert images.labels is not None and images.labels.tolist() == [1, 0, 1, 0, 2, 2]
    np.savez(tmp_path / "b.npz", images=PIXELS, labels=np.arange(5))
    with pytest.raises(UserError, match=r"labels of shape \(5,\) for 6 images"):
        Array(str(tmp_path / "b.npz")).read(Fit())


@pytest.mark.parametrize(("suffix", "save"), [(".npy", np.save), (".npz", np.savez)])
@pytest.mark.parametrize(
    ("name", "array", "words"), [*REFUSED, ("pickled", np.array([{}], dtype=object), "plain arrays")], ids=lambda v: str(v)[:10]
)
def test_array_files_that_are_refused(
    tmp_path: Path, suffix: str, save: Callable[..., None], name: str, array: np.ndarray, words: str
) -> None:
    save(tmp_path / f"{name}{suffix}", array)
    with pytest.raises(UserError, match=words):
        Array(str(tmp_path / f"{name}{suffix}")).read(Fit())


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


def test_a_torch_dataset() -> None:
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


def test_labels_that_do_not_fit() -> None:
    """Every image has one or none has, and it is a number: else later images would have the labels of others."""
    a, b, c = PIXELS[:3]
    for wrong in ([a, (b, 1), (c, 0)], [(a, 0), b], [(a, "cat"), (b, "dog")]):
        with pytest.raises(UserError, match="label"):
            from_dataset(wrong)


GIVEN = {
    "array": PIXELS,
    "grey array": PIXELS[..., 0],
    "tensor": torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
    "torch Dataset": TensorDataset(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.tensor([2, 0, 1, 1, 0, 2])),
    "ImageDataset": ImageDataset(PIXELS, np.array([2, 0, 1, 1, 0, 2]), ("0", "1", "2"), np.arange(6) > 4),
}


@pytest.mark.parametrize("given", GIVEN)
def test_images_in_memory(given: str) -> None:
    """Pixels and labels are those given; at another size they are what one image resized by itself is."""
    images = InMemory(GIVEN[given]).read(Fit())
    truth = PIXELS[..., :1] if given == "grey array" else PIXELS
    assert np.array_equal(images.pixels, truth)
    if given in ("torch Dataset", "ImageDataset"):
        assert images.labels is not None and images.labels.tolist() == [2, 0, 1, 1, 0, 2] and images.classes == ("0", "1", "2")
    else:
        assert images.labels is None and images.classes == ()
    assert (images.test is not None) == (given == "ImageDataset")
    small = InMemory(GIVEN[given]).read(Fit((4, 6), "squash"))
    assert np.array_equal(small.pixels, Fit((4, 6), "squash").array(truth)) and small.shape == (truth.shape[3], 4, 6)


def test_a_part_of_a_data_set_in_memory() -> None:
    """Its images, labels and hashes are of that part, at the size that they are read at."""
    part = ImageDataset(PIXELS, np.arange(6), tuple("012345")).subset(np.arange(6) % 2 == 1)
    for fit in (Fit(), Fit((4, 4))):
        images = InMemory(part).read(fit)
        assert np.array_equal(images.pixels, fit.array(PIXELS[1::2]))
        assert images.labels is not None and images.labels.tolist() == [1, 3, 5]
        assert np.array_equal(images.hashes, hash_images(images.pixels))


@pytest.mark.parametrize(("name", "array", "words"), [*REFUSED, ("flat", np.zeros((8, 8), dtype=np.uint8), r"shape \(8, 8\)")])
def test_arrays_in_memory_that_are_refused(name: str, array: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=words):
        InMemory(array).read(Fit())


def test_a_recipe_keeps_no_images() -> None:
    """It survives JSON as a source that says to give them again."""
    recipe = override(Recipe(), {"data.source": InMemory(PIXELS), "data.size": [4, 4]})
    assert recipe.data.load().shape == (3, 4, 4)
    text = json.dumps(to_json(recipe))
    again: Any = from_json(Recipe, json.loads(text))
    assert isinstance(again.data.source, InMemory) and again.data.source.data is None and again.data.size == (4, 4)
    assert json.dumps(to_json(again)) == text and len(text) < 5000
    with pytest.raises(UserError, match=r"give them again, unnoise\.resume\(run, data=images\)"):
        again.data.load()
