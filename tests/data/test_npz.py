"""Which arrays of a file are the images, the labels and the test images: the usual names, and what is refused."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.data.files import PIXELS
from unnoise.data.arrays import Array
from unnoise.data.dataset import split
from unnoise.data.fit import Fit
from unnoise.data.sources import DataConfig
from unnoise.utils.errors import UserError

A, B, C = PIXELS[:4], PIXELS[4:], 255 - PIXELS[:2]  # images for training, test and validation
GREY = PIXELS[..., 0]
Y, Z = np.array([2, 0, 1, 0]), np.array([1, 2])
YS, ZS = list("2010"), list("12")  # their names
HOT = np.eye(3, dtype=np.float32)
OBJECTS = np.array([{}, None], dtype=object)


class Taken(NamedTuple):
    """What is read: images and classes to train on, those held out, and words of what is said."""

    train: np.ndarray
    labels: list[str] | None = None
    held_out: np.ndarray | None = None
    held_labels: list[str] | None = None
    said: str = ""


KNOWN: dict[str, tuple[dict[str, Any], Taken]] = {
    "keras": ({"x_test": B, "x_train": A, "y_train": Y, "y_test": Z}, Taken(A, YS, B, ZS,
              "images from 'x_train' with the labels 'y_train'; held out: 'x_test' with the labels 'y_test'")),
    "keras cifar, labels (N, 1)": ({"x_train": A, "y_train": Y[:, None], "x_test": B, "y_test": Z[:, None]},
                                   Taken(A, YS, B, ZS)),
    "keras mnist, capitals": ({"X_train": GREY, "y_train": np.arange(6)}, Taken(GREY[..., None], list("012345"))),
    "medmnist": ({"train_images": A, "val_images": C, "test_images": B, "train_labels": Y[:, None].astype("u1"),
                  "test_labels": Z[:, None], "val_labels": np.array([[0], [1]])},
                 Taken(A, YS, np.concatenate([C, B]), ["0", "1", "1", "2"], "'val_images' with the labels 'val_labels'")),
    "medmnist, labels (N, 1, 1)": ({"train_images": A, "train_labels": Y[:, None, None]}, Taken(A, YS)),
    "guided diffusion": ({"arr_0": A, "arr_1": Y}, Taken(A, YS, said="images from 'arr_0' with the labels 'arr_1'")),
    "reference statistics": ({"arr_0": A, "mu": np.zeros(9), "sigma": np.eye(9)}, Taken(A, said="'mu' float64 (9,), 'sigma'")),
    "numpy's default": ({"arr_0": A}, Taken(A)),
    "arr_1 is no label": ({"arr_0": A, "arr_1": np.zeros((4, 512))}, Taken(A, said="not used: 'arr_1' float64 (4, 512)")),
    "images and labels": ({"labels": Y, "images": A}, Taken(A, YS)),
    "image and label": ({"image": A, "label": Y}, Taken(A, YS)),
    "X and y": ({"X": A, "y": Y}, Taken(A, YS)),
    "X and Y": ({"X": A, "Y": Y}, Taken(A, YS)),
    "data and target": ({"data": A, "target": Y}, Taken(A, YS)),
    "samples": ({"samples": A}, Taken(A)),
    "dsprites, whose metadata are pickled": ({"metadata": OBJECTS, "imgs": GREY, "latents_values": np.zeros((6, 6))},
                                             Taken(GREY[..., None], said="'metadata' object (2,), 'latents_values'")),
    "trainX and trainy": ({"trainX": A, "trainy": Y, "testX": B, "testy": Z}, Taken(A, YS, B, ZS)),
    "deeplearning.ai": ({"train_set_x": A, "train_set_y": Y, "test_set_x": B, "test_set_y": Z}, Taken(A, YS, B, ZS)),
    "only splits": ({"train": A, "test": B}, Taken(A, None, B)),
    "dev for validation": ({"X_tr": A, "X_dev": B}, Taken(A, None, B)),
    "cifar-100, fine before coarse": ({"x_train": A, "coarse_labels_train": Y * 0, "fine_labels_train": Y},
                                      Taken(A, YS, said="not used: 'coarse_labels_train'")),
    "one unknown name": ({"faces_64": A, "embeddings": np.zeros((4, 9))}, Taken(A, said="images from 'faces_64'")),
    "images goes before others": ({"images": A, "photos": B, "masks": GREY}, Taken(A, said="'photos' uint8 (2, 8, 8, 3), 'mas")),
    "remedy of two unknown": ({"images": A, "test_images": B, "more": C}, Taken(A, None, B)),
    "a name of images, but of points": ({"x": np.zeros((4, 2)), "faces": A}, Taken(A, said="not used: 'x' float64 (4, 2)")),
    "labels without a split": ({"x_train": A, "labels": Y}, Taken(A, YS)),
    "one-hot": ({"x_train": A, "y_train": HOT[Y], "x_test": B, "y_test": HOT[Z]}, Taken(A, YS, B, ZS)),
    "names": ({"images": A, "labels": np.array(["eel", "cat", "dog", "cat"])}, Taken(A, ["eel", "cat", "dog", "cat"])),
    "bytes": ({"images": A, "labels": np.array([b"eel", b"cat", b"dog", b"cat"])}, Taken(A, ["eel", "cat", "dog", "cat"])),
    "whole floats": ({"images": A, "labels": Y.astype(float)}, Taken(A, YS)),
    "truths": ({"images": A, "labels": Y > 0}, Taken(A, ["True", "False", "True", "False"])),
    "from 1, with a gap": ({"images": A, "labels": np.array([1, 1000, 1, 20])}, Taken(A, ["1", "1000", "1", "20"])),
    "test images without labels": ({"x_train": A, "y_train": Y, "x_test": B}, Taken(A, YS, said="not used: 'x_test'")),
    "test labels alone": ({"x_train": A, "x_test": B, "y_test": Z}, Taken(A, None, B, said="not used: 'y_test'")),
    "test images alone": ({"x_test": B, "y_test": Z}, Taken(B, ZS, said="images from 'x_test'")),
    "channels first": ({"x_train": A.transpose(0, 3, 1, 2), "x_test": B},
                       Taken(A, None, B, said="has the shape (4, 3, 8, 8), read as channels first")),
    "grey, channels first": ({"images": GREY[:, None]}, Taken(GREY[..., None], said="read as channels first")),
    "bool": ({"images": GREY > 99}, Taken(255 * (GREY > 99).astype("u1")[..., None])),
    "Fortran's order": ({"images": np.asfortranarray(A)}, Taken(A)),
}  # fmt: skip


def save(path: Path, arrays: dict[str, Any]) -> Array:
    np.savez(path, **arrays)
    return Array(str(path))


def named(labels: np.ndarray | None, classes: tuple[str, ...]) -> list[str] | None:
    return None if labels is None else [classes[k] for k in labels]


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("compressed", [False, True])
def test_the_usual_names(tmp_path: Path, kind: str, compressed: bool) -> None:
    arrays, taken = KNOWN[kind]
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", **arrays)
    source = Array(str(tmp_path / "a.npz"))
    images = source.read(Fit())
    test = images.test if images.test is not None else np.zeros(len(images), bool)
    parts = [(images.pixels[~test], named(images.labels, images.classes))]
    assert np.array_equal(parts[0][0], taken.train)
    assert (images.test is None) == (taken.held_out is None)
    held = [] if taken.held_out is None else list(taken.held_out)
    assert np.array_equal(images.pixels, np.stack([*taken.train, *held]))
    expected = None if taken.labels is None else [*taken.labels, *(taken.held_labels or [])]
    assert named(images.labels, images.classes) == expected and list(images.classes) == sorted(set(expected or []), key=_order)
    assert taken.said in " | ".join(images.notes) and all(" | " not in note for note in images.notes)
    assert source.own_size() == images.shape[1:]
    if taken.held_out is not None:
        assert len(split(images, 0.1).held_out) == len(taken.held_out)
    without = DataConfig(source, labels=False).load()
    assert without.labels is None and without.classes == ()


def _order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (0, name)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two unknown": ({"photos_a": A, "photos_b": B}, r"2 arrays that may be the images, 'photos_a' uint8 \(4, .*"
                    "'photos_b'.*rename the one to train on to 'images'"),
    "two of one meaning": ({"x": A, "data": B}, "2 arrays that may be the images"),
    "numpy's defaults of train and test": ({"arr_0": A, "arr_1": Y, "arr_2": B, "arr_3": Z}, "'arr_0' .*'arr_2' .*'test_images'"),
    "none": ({"mean": np.zeros(3), "y": Y}, r"none of the arrays .*'mean' float64 \(3,\), 'y' int64 \(4,\).*as 'images'"),
    "no array": ({}, "holds no array"),
    "known floats": ({"x_train": A / 255, "y_train": Y}, r"'x_train' of '.*' holds float64 .*save \(255 \* images\)\.round"),
    "test floats": ({"x_train": A, "x_test": B / 255}, r"'x_test' of .*save \(255 \* images\)"),
    "known but flat": ({"data": A.reshape(4, -1)[:, :48], "labels": Y, "mean": np.zeros(48)},
                       r"'data' of .*reshape\(-1, 3, 4, 4\)"),  # PatrykChrabaszcz/Imagenet32_Scripts
    "single image": ({"images": np.zeros((64, 64, 3), np.uint8)}, r"'images' of .* one image or 64 grey ones of 64x3"),
    "pickled images": ({"images": OBJECTS, "labels": Y}, r"'images' would have to be unpickled.*numpy\.savez"),
    "pickled strokes": ({"train": OBJECTS, "valid": OBJECTS, "test": OBJECTS},
                        "'train' would have to be unpickled"),  # eyalzk/sketch_rnn_keras 1
    "other sizes": ({"x_train": A, "x_test": np.zeros((5, 9, 8, 3), np.uint8)},
                    r"'x_test' of .* \(9, 8, 3\).*'x_train' \(8, 8, 3\)"),
    "other channels": ({"x_train": A, "x_test": GREY}, r"\(8, 8, 1\).*\(8, 8, 3\)"),
}  # fmt: skip

NOT_LABELS: dict[str, tuple[dict[str, Any], str]] = {  # refused; without labels the images are read
    "pickled labels": ({"images": B, "labels": OBJECTS}, r"'labels', the labels of 'images', .*labels\.astype\(str\)"),
    "labels of another length": ({"images": A, "labels": Z}, r"'labels' of .* has the shape \(2,\) for 4 images"),
    "labels of test alone wrong": ({"x_train": A, "y_train": Y, "x_test": B, "y_test": Y}, r"'y_test' of .* \(4,\) for 2 images"),
    "several classes at once": ({"train_images": A, "train_labels": np.eye(4, 14) + np.eye(4, 14, 1)},
                                "'train_labels' of .* for image 0 a row that marks 2 of 14 .*data.labels"),  # MedMNIST 53
    "no class at all": ({"images": A, "labels": np.eye(4)[:, :3]}, "for image 3 a row that marks 0 of 3"),
    "values": ({"images": A, "labels": np.array([0.5, 1, 2, 3])}, r"for image 0 0\.5: give one class"),
    "gaps": ({"images": A, "labels": np.array([0, 1, np.nan, 3])}, "for image 2 nan"),
    "negative": ({"images": A, "labels": np.array([0, 1, 2, -1])}, "for image 3 -1"),
    "masks": ({"images": A, "labels": A[..., 0]}, r"'labels' of .* for image 0 uint8 of shape"),
    "names and numbers": ({"x_train": A, "y_train": Y, "x_test": B, "y_test": np.array(["a", "b"])},
                          "the label of image 4 is 'a'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", [*REFUSED, *NOT_LABELS])
def test_what_is_refused(tmp_path: Path, kind: str) -> None:
    arrays, words = (REFUSED | NOT_LABELS)[kind]
    source = save(tmp_path / "a.npz", arrays)
    with pytest.raises(UserError, match=words):
        source.read(Fit())
    if kind in NOT_LABELS:
        images = DataConfig(source, labels=False).load()
        assert images.labels is None and np.array_equal(
            images.pixels, np.concatenate([v for v in arrays.values() if v.ndim == 4])
        )


def test_sizes_of_all_arrays_are_fitted(tmp_path: Path) -> None:
    source = save(tmp_path / "a.npz", {"x_train": A, "x_test": np.zeros((5, 9, 8, 3), np.uint8)})
    images = source.read(Fit((4, 4)))
    assert images.shape == (3, 4, 4) and images.test is not None and images.test.sum() == 5
    assert np.array_equal(images.pixels[:4], Fit((4, 4)).array(A))


def test_the_size_is_read_from_headers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No array is loaded, and no more than the first kilobytes of any are read."""
    np.savez(tmp_path / "a.npz", x_train=np.zeros((999, 32, 48, 3), np.uint8), y_train=np.zeros(999))
    np.save(tmp_path / "b.npy", np.zeros((999, 3, 32, 48), np.uint8))
    monkeypatch.setattr(np, "load", lambda *a, **k: pytest.fail("an array was loaded"))
    assert Array(str(tmp_path / "a.npz")).own_size() == (32, 48) == Array(str(tmp_path / "b.npy")).own_size()
    whole = (tmp_path / "b.npy").read_bytes()
    (tmp_path / "b.npy").write_bytes(whole[:200])  # the header of an array that is not there
    assert Array(str(tmp_path / "b.npy")).own_size() == (32, 48)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PIXELS)  # as of a download cut short
    whole = (tmp_path / "a.npy").read_bytes()
    for name, content in (("a.npy", whole[:-9]), ("b.npz", b"PK\3\4 broken"), ("c.npz", b""), ("d.npy", b"text")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}' can't be read as plain arrays .*numpy\.savez"):
            Array(str(tmp_path / name)).read(Fit())
