"""Any Dataset or DataLoader of torch: what its items may be, the pixels and labels read of them, and what is refused."""

from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torchvision import tv_tensors

from tests.data.files import ALPHA, COLOUR, PIXELS, WIDE, over_white
from unnoise.data import torch_datasets
from unnoise.data.arrays import InMemory
from unnoise.data.dataset import ImageDataset
from unnoise.data.fit import Fit
from unnoise.data.sources import DataConfig, as_source
from unnoise.data.torch_datasets import from_dataset
from unnoise.utils.errors import UserError

Y = [2, 0, 1, 1, 0, 2]
X = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
UNIT = X.float() / 255
PILLOW = [Image.fromarray(p) for p in PIXELS]
GREY = PIXELS[..., :1]
Named = namedtuple("Named", "image label path")


class Mapped(Dataset[Any]):
    """A Dataset of these items, with further attributes."""

    def __init__(self, items: Any, **more: Any) -> None:
        self.items = items
        self.__dict__ |= more

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, k: int) -> Any:
        return self.items[k]


class Stream(IterableDataset[Any]):
    """The same without a length."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


def pairs(*labels: Any) -> list[tuple[Any, Any]]:
    return list(zip(X, labels, strict=True))


def stacked(items: list[Any]) -> dict[str, Any]:
    return {"pixel_values": torch.stack([i[0] for i in items]), "labels": torch.tensor([i[1] for i in items])}


IMAGES: dict[str, Any] = {  # each holds PIXELS, without labels
    "tensors": X,
    "list of tensors": list(X),
    "tensors (H, W, C)": list(X.permute(0, 2, 3, 1)),
    "arrays": list(PIXELS),
    "arrays (C, H, W)": list(PIXELS.transpose(0, 3, 1, 2)),
    "Pillow": PILLOW,
    "Pillow, one in a palette": [*PILLOW[:3], PILLOW[3].convert("RGB"), *PILLOW[4:]],
    "floats": list(UNIT),
    "a tensor of floats": UNIT,
    "doubles": list(UNIT.double()),
    "halves": list(UNIT.half()),
    "arrays of floats": list(PIXELS / 255),
    "normalised": list(UNIT * 2 - 1),
    "normalised halves": list((UNIT * 2 - 1).half()),
    "rounding beyond the range": list(UNIT * (1 + 2e-7) - 1e-7),
    "torchvision's tensors": [tv_tensors.Image(x) for x in X],
    "with gradients": list(UNIT.clone().requires_grad_()),
    "1-tuples": [(x,) for x in X],
    "TensorDataset": TensorDataset(X),
    "lists": [[x] for x in X],
    "dicts": [{"image": x} for x in X],
    "diffusers' dicts": [{"input": x} for x in X],
    "webdataset's": [{"__key__": "a", "png": x} for x in X],
    "stream": Stream(list(X)),
    "stream of batches": Stream(list(X.split(4))),
    "generator function's list": tuple(X),
    "DataLoader": DataLoader(list(X), 4),  # type: ignore[arg-type]
    "shuffled, dropping the last": DataLoader(TensorDataset(X), 4, shuffle=True, drop_last=True),
    "DataLoader without batches": DataLoader(list(X), batch_size=None),  # type: ignore[arg-type]
    "DataLoader of Pillow": DataLoader(PILLOW, 4),  # type: ignore[arg-type]
    "DataLoader of a stream": DataLoader(Stream(list(X)), 4),
    "DataLoader of a sampler of batches": DataLoader(
        TensorDataset(X), batch_sampler=BatchSampler(SequentialSampler(X), 4, False)
    ),
    "label None": [(x, None) for x in X],
}

LABELLED: dict[str, tuple[Any, list[str]]] = {  # each holds PIXELS, and labels of these names
    "pairs": (pairs(*Y), list("201102")),
    "TensorDataset with labels": (TensorDataset(X, torch.tensor(Y)), list("201102")),
    "lists": ([[x, y] for x, y in pairs(*Y)], list("201102")),
    "3-tuples": ([(x, y, "path") for x, y in pairs(*Y)], list("201102")),
    "namedtuples": ([Named(x, y, "path") for x, y in pairs(*Y)], list("201102")),
    "dicts": ([{"label": y, "image": x} for x, y in pairs(*Y)], list("201102")),
    "Hugging Face's": ([{"pixel_values": x, "labels": y} for x, y in pairs(*Y)], list("201102")),
    "CIFAR-100's": ([{"img": x, "coarse_label": 0, "fine_label": y} for x, y in pairs(*Y)], list("201102")),
    "x and y": ([{"x": x, "y": y} for x, y in pairs(*Y)], list("201102")),
    "webdataset's": ([{"jpg": x, "cls": y} for x, y in pairs(*Y)], list("201102")),
    "tensors": (pairs(*torch.tensor(Y)), list("201102")),
    "(1,), MedMNIST's": (pairs(*np.array(Y)[:, None]), list("201102")),
    "one-hot": (pairs(*torch.eye(3)[Y]), list("201102")),
    "one-hot arrays": (pairs(*np.eye(3, dtype=int)[Y]), list("201102")),
    "one-hot lists": (pairs(*np.eye(3)[Y].tolist()), list("201102")),
    "one-hot bf16": (pairs(*torch.eye(3)[Y].bfloat16()), list("201102")),
    "numpy's numbers": (pairs(*np.array(Y, dtype=np.uint8)), list("201102")),
    "whole floats": (pairs(*map(float, Y)), list("201102")),
    "names": (pairs(*"caabbc"), list("caabbc")),
    "numpy's names": (pairs(*np.array(list("caabbc"))), list("caabbc")),
    "bytes": (pairs(b"c", b"a", b"a", b"b", b"b", b"c"), list("caabbc")),
    "truths": (pairs(True, False, True, True, False, True), ["True", "False", "True", "True", "False", "True"]),
    "named classes": (Mapped(pairs(*Y), classes=["a", "b", "c"]), list("cabbac")),
    "more classes than occur": (Mapped(pairs(*Y), classes=list("abcdefg")), list("cabbac")),
    "ImageNet's classes": (Mapped(pairs(*Y), classes=[("tench", "Tinca"), ("shark",), "ray"]),
                           ["ray", "tench, Tinca", "shark", "shark", "tench, Tinca", "ray"]),
    "Subset": (Subset(Mapped(pairs(*Y), classes=["a", "b", "c"]), range(6)), list("cabbac")),
    "ConcatDataset": (ConcatDataset([Mapped(pairs(*Y)[k : k + 3], classes=["a", "b", "c"]) for k in (0, 3)]), list("cabbac")),
    "DataLoader": (DataLoader(Mapped(pairs(*Y), classes=["a", "b", "c"]), 4, shuffle=True), list("cabbac")),
    "DataLoader of batches of its own": (
        DataLoader(Mapped(pairs(*Y), classes=["a", "b", "c"]), 4, shuffle=True, collate_fn=stacked), list("cabbac")),
    "batches": (Stream([(X[:4], torch.tensor(Y[:4])), [X[4:], Y[4:]]]), list("201102")),
    "batches of Pillow": (Stream([(PILLOW[:4], Y[:4]), {"image": PILLOW[4:], "label": Y[4:]}]), list("201102")),
    "datasets": (datasets.Dataset.from_dict({"image": PILLOW, "label": Y}, features=datasets.Features(
                 {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})), list("cabbac")),
    "datasets, streamed": (datasets.Dataset.from_dict({"image": PILLOW, "label": Y}, features=datasets.Features(
                 {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})).to_iterable_dataset(),
                           list("cabbac")),
}  # fmt: skip


@pytest.mark.parametrize("kind", IMAGES)
def test_images(kind: str) -> None:
    images = DataConfig(as_source(IMAGES[kind])).load()
    assert np.array_equal(images.pixels, PIXELS) and images.labels is None and images.classes == ()
    assert as_source(IMAGES[kind]).own_size() == (8, 8)
    assert any("[-1, 1]" in note for note in images.notes) == kind.startswith("normalised")


@pytest.mark.parametrize("kind", LABELLED)
def test_labels(kind: str) -> None:
    """Each label stays with its image, under the dataset's own name for it; the same without labels."""
    given, names = LABELLED[kind]
    images = DataConfig(as_source(given)).load()
    assert np.array_equal(images.pixels, PIXELS) and images.labels is not None
    assert [images.classes[k] for k in images.labels] == names and set(images.classes) == set(names)
    assert images.labels.dtype == np.int64 and images.notes == ()
    without = DataConfig(as_source(given), labels=False).load()
    assert np.array_equal(without.pixels, PIXELS) and without.labels is None and without.classes == ()


def turned(orientation: int) -> Image.Image:
    """COLOUR as a camera that lies on its side keeps it."""
    image = Image.fromarray(np.ascontiguousarray(np.rot90(COLOUR, 1)))
    image.getexif()[0x0112] = orientation
    return image


def palette(transparent: bool = False) -> tuple[Image.Image, np.ndarray]:
    image = Image.fromarray(COLOUR).quantize(16)
    pixels = np.asarray(image.convert("RGB")).copy()
    if transparent:
        image.info["transparency"] = 3
        pixels[np.asarray(image) == 3] = 255
    return image, pixels


VALUES: dict[str, tuple[Any, np.ndarray]] = {  # an image, and its pixels
    "palette": palette(),
    "palette with transparency": palette(transparent=True),
    "alpha": (Image.fromarray(np.dstack([COLOUR, ALPHA])), over_white(COLOUR, ALPHA)),
    "grey with alpha": (Image.fromarray(np.dstack([COLOUR[..., 0], ALPHA])), over_white(COLOUR[..., :1], ALPHA)),
    "all transparent": (Image.fromarray(np.dstack([COLOUR, 0 * ALPHA])), np.full_like(COLOUR, 255)),
    "one bit": (Image.fromarray(COLOUR[..., 0] > 99), 255 * (COLOUR[..., :1] > 99)),
    "16 bits": (Image.fromarray(WIDE), np.round(WIDE / 257)[..., None]),
    "CMYK": (Image.fromarray(COLOUR).convert("CMYK"), COLOUR),
    "HSV": (Image.new("HSV", (4, 4), (0, 255, 255)), np.full((4, 4, 3), (255, 0, 0))),
    "turned": (turned(6), COLOUR),
    "grey tensor": (torch.from_numpy(COLOUR[..., 0]), COLOUR[..., :1]),
    "grey tensor (1, H, W)": (torch.from_numpy(COLOUR[..., 0])[None], COLOUR[..., :1]),
    "bool": (torch.from_numpy(COLOUR[..., 0] > 99), 255 * (COLOUR[..., :1] > 99)),
    "bf16": (torch.tensor([[0, 0.25, 0.5, 1.0]] * 2, dtype=torch.bfloat16), np.array([[0, 64, 128, 255]] * 2)[..., None]),
    "bf16, normalised": (torch.tensor([[-1, -0.5, 0, 1.0]] * 2).bfloat16(), np.array([[0, 64, 128, 255]] * 2)[..., None]),
    "a row of pixels": (torch.full((3, 1, 4), 9, dtype=torch.uint8), np.full((1, 4, 3), 9)),
}


@pytest.mark.parametrize("kind", VALUES)
def test_what_an_image_becomes(kind: str) -> None:
    image, pixels = VALUES[kind]
    found = from_dataset([(image, 0)]).pixels[0]
    assert found.shape == pixels.shape and np.abs(found - pixels.astype(float)).max() <= 1
    assert np.array_equal(from_dataset([image], Fit((4, 4))).pixels[0], Fit((4, 4)).array(found[None])[0])


DEEP = np.random.default_rng(1).integers(0, 4096, (6, 8, 8, 4)).astype(np.uint16)
DEEP.flat[:2] = 0, 4095
RANGED: dict[str, Any] = {  # each holds DEEP, of which band 2 is taken
    "uint16 arrays": list(DEEP[..., :3]),
    "with a fourth band": list(DEEP),
    "tensors": [torch.from_numpy(p.astype(np.int32)).permute(2, 0, 1) for p in DEEP],
    "floats": list(DEEP[..., :3].astype(np.float32)),
    "an array": DEEP[..., :3],
    "a tensor": torch.from_numpy(DEEP[..., :3].astype(np.int32)),
}
LEVELS = np.round(DEEP[..., 1:2] / 4095 * 255)


@pytest.mark.parametrize("kind", RANGED)
def test_ranges_and_bands(kind: str) -> None:
    """Honoured of every kind of numbers."""
    source = as_source(RANGED[kind])
    assert source.own_size() == (8, 8)
    assert np.array_equal(DataConfig(source, range=(0, 4095), bands=(2,)).load().pixels, LEVELS)


def test_ranges_and_bands_of_images() -> None:
    """Pillow's of 16 bits and of floats; an `ImageDataset`, with its labels; what they do not have is refused by number."""
    for mode in ("uint16", "float32"):
        source = as_source([Image.fromarray(p[..., 1].astype(mode)) for p in DEEP])
        assert source.own_size() == (8, 8)
        assert np.array_equal(DataConfig(source, range=(0, 4095)).load().pixels, LEVELS)
    held = ImageDataset(PIXELS // 2, np.array(Y), ("a", "b", "c")).subset(np.arange(6) > 0)
    found = DataConfig(as_source(held), range=(0, 127), bands=(3,)).load()
    assert np.array_equal(found.pixels, np.round((PIXELS[1:, ..., 2:] // 2) / 127 * 255)) and found.labels.tolist() == Y[1:]  # type: ignore[union-attr]
    for given, more, words in (([PIXELS[0]], {"range": (0, 4095)}, "image 0: .*8 bits, for which the range 0,4095"),
                               (held, {"bands": (4,)}, "it has 3 bands, none of number 4")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            DataConfig(as_source(given), **more).load()


def test_alpha_goes_over_the_background_asked_for() -> None:
    image = Image.fromarray(np.dstack([COLOUR, ALPHA]))
    black = DataConfig(as_source([image]), background="black").load().pixels[0]
    assert np.abs(black - COLOUR * (ALPHA[..., None] / 255)).max() <= 1


def test_normalised_images_are_known_from_any_of_them() -> None:
    """A bright image has no value below 0; the next says that 0 is grey. Without a dark one nothing is known."""
    bright, dark = torch.full((1, 4, 4), 0.5), torch.full((1, 4, 4), -1.0)
    images = from_dataset([bright, dark])
    assert images.pixels[:, 0, 0, 0].tolist() == [191, 0] and "taken to be in [-1, 1]" in images.notes[0]
    assert from_dataset([bright, 0 * dark]).pixels[:, 0, 0, 0].tolist() == [128, 0]
    with pytest.raises(UserError, match=r"darkest .* is -0\.02, .*clamp"):  # resampled beyond [0, 1], or centred
        from_dataset([bright, dark * 0.02])


def test_grey_among_colour() -> None:
    images = from_dataset([PILLOW[0], PILLOW[1].convert("L"), PILLOW[2]])
    assert np.array_equal(images.pixels[[0, 2]], PIXELS[[0, 2]]) and images.notes == (
        "1 of 3 images are grey and taken as colour",
    )
    assert np.array_equal(images.pixels[1], np.repeat(np.asarray(PILLOW[1].convert("L"))[..., None], 3, axis=2))


def test_names_that_do_not_fit_are_said() -> None:
    for classes in (["a", "b"], ["a", "a", "b"]):
        images = from_dataset(Mapped(pairs(*Y), classes=classes))
        assert images.classes == ("0", "1", "2") and "names don't fit" in images.notes[0]


class Broken(Mapped):
    """One whose third item fails."""

    def __getitem__(self, k: int) -> Any:
        if k == 2:
            raise OSError("image file is truncated")
        return self.items[k]


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X), **options)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing": (list, "the dataset holds no images"),
    "an empty stream": (lambda: Stream([]), "the dataset holds no images"),
    "an item of None": (lambda: [X[0], None], "image 1 is nothing: give a Pillow image"),
    "a path": (lambda: [X[0], "a.png"], r"image 1 is a str: .*PIL\.Image\.open"),
    "a number": (lambda: [(1, X[0])], "image 0 is a int"),
    "an empty tuple": (lambda: [X[0], ()], "item 1 of the dataset is an empty tuple"),
    "other keys": (lambda: [{"photo": X[0], "id": 3}], "item 0 of .* has the keys 'photo', 'id': call the image 'image'"),
    "undecoded": (lambda: [{"image": {"bytes": b"", "path": "a"}}], "image 0 is a dict"),
    "sizes": (lambda: [Image.new("RGB", (4, 4)), Image.new("RGB", (5, 4))], r"image 1 has shape \(4, 5, 3\) where .*give a size"),
    "NaN": (lambda: [UNIT[0], torch.tensor([[0, np.nan]])], r"image 1 is .*NaN or infinite.*torch\.nan_to_num\(image\)"),
    "infinite": (lambda: [np.full((4, 4), np.inf)], r"image 0 is .* without a finite value: .*numpy\.nan_to_num"),
    "0 to 255 as floats": (lambda: [UNIT[0], X[1].float()], r"image 1 is float32 .* to 25\d: .*image\.round\(\)\.to\(torch"),
    "ImageNet's normalisation": (lambda: [UNIT[0] * 4.4 - 2.1], r"image 0 is float32 .* from -2\.\d+ to 2\.\d+"),
    "16 bits": (lambda: [np.full((4, 4), 60000, np.uint16)], r"image 0 is uint16 .*\(image / 257\)\.round\(\)\.astype\("),
    "int64": (lambda: [X[0].long()], r"image 0 is int64 .*image\.to\(torch\.uint8\)"),
    "complex": (lambda: [X[0] * 1j], "image 0 is complex"),
    "only 0 and 1": (lambda: list(X // 128), r"hold only 0 and 1.*255 \* image"),
    "four channels": (lambda: [torch.zeros(4, 8, 8)], r"image 0 is float32 of shape \(4, 8, 8\): give image\.convert\('RGB'\)"),
    "two channels": (lambda: [np.zeros((5, 5, 2), np.uint8)], "give grey or RGB"),
    "no pixels": (lambda: [torch.zeros(3, 0, 8)], r"image 0 is float32 of shape \(3, 0, 8\)"),
    "a line": (lambda: [torch.zeros(8)], r"image 0 is float32 of shape \(8,\)"),
    "floats in Pillow": (lambda: [Image.new("F", (4, 4))], "image 0 can't be read .*no known range"),
    "sparse": (lambda: [X[0, 0].to_sparse()], "image 0 can't be read"),
    "one image as a tensor": (lambda: torch.zeros(3, 64, 64, dtype=torch.uint8), r"one colour image, channels first"),
    "a broken item": (lambda: Broken(X), r"item 2 of .* \(OSError: .*truncated\): .*Subset"),
    "a length that fails": (lambda: Mapped(iter(X)), r"can't be read \(TypeError: .*has no len"),
    "a dict by name": (lambda: Mapped({"a": X[0]}), r"item 0 of the dataset can't be read \(KeyError"),
    "a stream without end": (lambda: Stream(_Endless()), "does not say its length and has not ended after 6 images"),
    "a loader without end": (lambda: DataLoader(Stream(_Endless()), 4), "has not ended after"),
    "a part by a sampler": (lambda: loader(sampler=SubsetRandomSampler([1, 2])), "by a SubsetRandomSampler: give"),
    "weighted": (lambda: loader(sampler=WeightedRandomSampler([1.0] * 6, 6)), "by a WeightedRandomSampler"),
    "batches by a sampler": (lambda: loader(batch_sampler=BatchSampler(SubsetRandomSampler([1]), 1, False)), "chooses images"),
    "two views": (lambda: [([X[0], X[1]], 3)], "item 0 of the dataset holds 2 images, but not a label for each"),
}  # fmt: skip


class _Endless:
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield X[0]


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, words = REFUSED[kind]
    monkeypatch.setattr(torch_datasets, "MAX_BYTES", 5 * X[0].nbytes)
    with pytest.raises(UserError, match=words):
        DataConfig(as_source(given())).load()


NOT_LABELS: dict[str, tuple[Any, str]] = {  # refused; without labels the images are read
    "for the first alone": ([(X[0], 0), *X[1:]], "image 1 has no label, unlike image 0: .*data.labels false"),
    "for all but the first": ([X[0], *pairs(*Y)[1:]], "image 1 has a label, unlike image 0"),
    "None for one": (pairs(2, 0, None, 1, 0, 2), "image 2 has no label, unlike image 0"),
    "a key that lacks": ([{"image": x} | ({"label": 1} if k < 3 else {}) for k, x in enumerate(X)], "image 3 has no label"),
    "attributes, as CelebA's": (
        pairs(*torch.tensor([[0, 1, 0, 1]] * 6)),
        "the label of image 0 is a row that marks 2 of 4 classes",
    ),
    "masks, as VOC's": (pairs(*X[:, 0]), r"the label of image 0 is uint8 of shape \(8, 8\)"),
    "Pillow masks": (list(zip(X, PILLOW, strict=True)), r"the label of image 0 is uint8 of shape \(8, 8, 3\)"),
    "objects, as COCO's": (pairs(*[[{"bbox": 1}, {}]] * 6), "the label of image 0 is a list"),
    "a dict": (pairs(*[{"id": 1}] * 6), "the label of image 0 is a dict"),
    "values": (pairs(2, 0, 0.5, 1, 0, 2), r"the label of image 2 is 0\.5: give one class"),
    "NaN": (pairs(2, 0, float("nan"), 1, 0, 2), "the label of image 2 is nan"),
    "-1 for unknown": (pairs(2, 0, 1, -1, 0, 2), "the label of image 3 is -1"),
    "names and numbers": (pairs(2, 0, "a", 1, 0, 2), "the label of image 2 is 'a' and that of image 0 2"),
    "captions": (pairs(*[["a cat", "a dog"]] * 6), "the label of image 0 is <U5 of shape"),
    "ragged": (pairs(*[[[1], [2, 3]]] * 6), "the label of image 0 is"),
}


@pytest.mark.parametrize("kind", NOT_LABELS)
def test_labels_that_are_refused(kind: str) -> None:
    given, words = NOT_LABELS[kind]
    with pytest.raises(UserError, match=words):
        DataConfig(as_source(given)).load()
    images = DataConfig(as_source(given), labels=False).load()
    assert np.array_equal(images.pixels, PIXELS) and images.labels is None
    assert as_source(given).own_size() == (8, 8)


def test_the_size_is_that_of_the_first_item_alone() -> None:
    assert as_source([torch.zeros(3, 20, 30), None]).own_size() == (20, 30)
    assert as_source(Stream(_Endless())).own_size() == (8, 8)
    assert as_source([turned(6)]).own_size() == COLOUR.shape[:2]
    assert InMemory(ImageDataset(PIXELS)).own_size() == (8, 8)
    with pytest.raises(UserError, match="holds no images"):
        as_source([]).own_size()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (TensorDataset, "not the class TensorDataset: give one of its objects"),
        ({"train": X, "test": X}, "not a dict of 'train', 'test': give one of these"),
        ((x for x in X), "not a generator"),
    ],
)
def test_what_is_no_dataset(given: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        as_source(given)
