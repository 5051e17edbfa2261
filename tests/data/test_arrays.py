"""Arrays as sources, from files and from Python."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from tests.data.files import PIXELS, idx
from unnoise.data.arrays import Array, Idx, InMemory
from unnoise.data.dataset import ImageDataset, hash_images
from unnoise.data.fit import Fit
from unnoise.data.sources import find_source
from unnoise.recipe import Recipe, override
from unnoise.registry import from_json, to_json
from unnoise.utils.errors import UserError

ONES = np.ones((3, 8, 8, 3), dtype=np.uint8)
REFUSED = [  # name, array, words of the answer; in a file or in memory
    ("floats", np.linspace(0, 1, 192).reshape(3, 8, 8), r"float64 of shape \(3, 8, 8\) from 0 to 1, .*\(255 \* images\)\.round"),
    ("normal", np.linspace(-1, 1, 192, dtype="f2").reshape(3, 8, 8), r"save \(127\.5 \* \(images \+ 1\)\)\.round"),
    ("centred", np.linspace(-0.5, 0.5, 192).reshape(3, 8, 8), r"save \(255 \* \(images \+ 0\.5\)\)\.round"),  # IBM/BAGAN 9
    ("wide", np.full((3, 8, 8), 60_000, dtype=np.uint16), r'save \(images / 257\)\.round\(\)\.astype\("uint8"\)'),
    ("twelve", np.full((3, 8, 8), 4095, dtype=np.uint16), r"save \(images / 4095 \* 255\)\.round"),
    ("int", np.full((3, 8, 8), 200), r'int64 .*save images\.astype\("uint8"\)'),
    ("hounsfield", np.array([-1000, 3000] * 96).reshape(3, 8, 8), r"save \(255 / 4000\.0 \* \(images - -1000\.0\)\)\.round"),
    ("gaps", np.array([0.5, np.nan] * 96).reshape(3, 8, 8), r"NaN or infinite.*save numpy\.nan_to_num\(255 \* images\)\.round"),
    ("bits", ONES, r"uint8 .* from 1 to 1, .*save \(255 \* images\)\.round"),  # dSprites, and masks
    ("text", np.full((3, 8, 8), "a"), "holds <U1"),
    ("rgba", np.full((6, 8, 8, 4), 9, dtype=np.uint8), r"fourth channel.*save images\[\.\.\., :3\].*astype"),
    ("rgba-first", np.full((6, 4, 8, 8), 9, dtype=np.uint8), r"save images\[:, :3\]"),
    ("grey-alpha", np.full((6, 8, 8, 2), 9, dtype=np.uint8), r"2 channels are neither"),
    ("one", np.full((64, 64, 3), 9, dtype=np.uint8), r"which is one image or 64 grey ones of 64x3: save images\[None\]"),
    ("one-rgba", np.full((64, 64, 4), 9, dtype=np.uint8), r"save images\[None\]"),
    ("one-grey", np.full((64, 64, 1), 9, dtype=np.uint8), r"save images\[None\]"),
    ("one-first", np.full((3, 64, 64), 9, dtype=np.uint8), r"save images\.transpose\(1, 2, 0\)\[None\]"),
    ("either", np.full((9, 3, 64, 3), 9, dtype=np.uint8), "channels may come first or last"),
    ("volumes", np.full((9, 7, 8, 6), 9, dtype=np.uint8), r"save images\.reshape\(-1, 8, 6\)"),  # MedMNIST's 3D, Moving MNIST
    ("video", np.full((2, 5, 8, 6, 3), 9, dtype=np.uint8), r"save images\.reshape\(-1, 8, 6, 3\)"),
    ("video-first", np.full((2, 5, 3, 8, 6), 9, dtype=np.uint8), r"save images\.reshape\(-1, 3, 8, 6\)"),
    ("flat", np.full((9, 784), 9, dtype=np.uint8), r"save images\.reshape\(-1, 28, 28\)"),  # Quick, Draw!
    ("flat-colour", np.full((9, 3072), 9, dtype=np.uint8), r"save images\.reshape\(-1, 3, 32, 32\)"),  # downsampled ImageNet
    ("flat-one", np.full((8, 8), 9, dtype=np.uint8), r"\(8, 8\), as of one grey image: save images\[None\]"),
    ("line", np.full(8, 9, dtype=np.uint8), r"save \(N, H, W\)"),
    ("empty", np.zeros((0, 8, 8), dtype=np.uint8), "holds no images"),
]  # fmt: skip


def rebuilt(expression: str, images: np.ndarray) -> np.ndarray:
    """What the expression of an answer makes of the array."""
    made: np.ndarray = eval(expression, {"images": images, "numpy": np})
    return made


def test_array_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PIXELS)
    assert np.array_equal(Array(str(tmp_path / "a.npy")).read(Fit()).pixels, PIXELS)
    np.savez(tmp_path / "a.npz", other=np.zeros(3), images=PIXELS[..., 0], labels=np.array(["b", "a", "b", "a", "c", "c"]))
    images = Array(str(tmp_path / "a.npz")).read(Fit())
    assert np.array_equal(images.pixels, PIXELS[..., :1]) and images.classes == ("a", "b", "c")
    assert images.labels is not None and images.labels.tolist() == [1, 0, 1, 0, 2, 2]
    np.savez(tmp_path / "b.npz", images=PIXELS, labels=np.arange(5))
    with pytest.raises(UserError, match=r"'labels' of '.*b\.npz' has the shape \(5,\) for 6 images: give one class for each"):
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


@pytest.mark.parametrize(
    ("name", "array", "words"), [row for row in REFUSED if row[0] not in ("text", "either", "line", "empty")]
)
def test_the_remedy_of_an_answer_makes_images(name: str, array: np.ndarray, words: str) -> None:
    """Followed to the end: each answer leads to one that is read, which spans what the numbers spanned."""
    given = array
    for _ in range(3):
        try:
            images = InMemory(array).read(Fit()).pixels
            break
        except UserError as e:
            expression = str(e).partition(": save ")[2]
            for end in (" for the one", " to ", ", if ", ", or "):
                expression = expression.partition(end)[0]
            array = rebuilt(expression, array)
    assert (images.dtype == np.uint8 and images.shape[3] in (1, 3) and images.min() < images.max()) or given.min() == given.max()
    if given.dtype.kind == "f" or given.min() < 0:
        assert images.min() == 0 and images.max() == (128 if name == "gaps" else 255)


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


@pytest.mark.parametrize(("name", "array", "words"), REFUSED)
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
