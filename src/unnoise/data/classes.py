"""Labels of any kind as classes: whole numbers, names, one-hot rows; of one item, or an array of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from unnoise.utils.errors import UserError

NO_LABELS = "train with data.labels false"
GIVE = f"give one class for each image, a whole number from 0 or a name, or {NO_LABELS}"

Value = int | str


def class_of(label: Any) -> Value:
    """The class that a label stands for: a whole number, a name, one of either in an array, or a one-hot row.

    Raises ValueError that says what it is instead.
    """
    if isinstance(label, torch.Tensor):
        label = label.detach().cpu()
        label = label.double() if label.is_floating_point() else label
    array = np.asarray(label)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind not in "biufU":
        raise ValueError(f"a {type(label).__name__}")
    if array.size == 1:
        return _whole(array.item())
    if array.ndim != 1 or array.dtype.kind == "U" or not np.isin(array, (0, 1)).all():
        raise ValueError(f"{array.dtype} of shape {array.shape}")
    if array.sum() != 1:
        raise ValueError(f"a row that marks {int(array.sum())} of {array.size} classes")
    return int(array.argmax())


def _whole(value: Any) -> Value:
    if isinstance(value, str):
        return value
    if value < 0 or value != value // 1:  # the latter also for NaN
        raise ValueError(f"{value:.6g}")
    return value if isinstance(value, bool) else int(value)


def classes_of(labels: np.ndarray, count: int, where: str) -> list[Value]:
    """The class of each image, from an array (count,), (count, 1) or one-hot (count, K). Raises UserError, naming `where`."""
    if labels.ndim == 0 or len(labels) != count:
        raise UserError(f"{where} has the shape {labels.shape} for {count} images: {GIVE}")
    rows, first, of = np.unique(labels.reshape(count, -1), axis=0, return_index=True, return_inverse=True)
    values = {}
    for k in np.argsort(first):
        try:
            values[k] = class_of(rows[k])
        except ValueError as e:
            raise UserError(f"{where} has for image {first[k]} {e}: {GIVE}") from e
    return [values[k] for k in of.reshape(-1)]


def encode(values: Sequence[Value], names: Sequence[str] = ()) -> tuple[np.ndarray, tuple[str, ...]]:
    """The index of each value among the classes that occur, int64 (N,), and their names: those of `names` where they fit.

    Raises UserError for names and numbers together.
    """
    other = next((k for k, v in enumerate(values) if isinstance(v, str) != isinstance(values[0], str)), None)
    if other is not None:
        raise UserError(f"the label of image {other} is {values[other]!r} and that of image 0 {values[0]!r}: "
                        "give names to all or numbers to all")  # fmt: skip
    found = sorted(set(values))
    known = len(set(names)) == len(names) and all(not isinstance(v, str) and 0 <= v < len(names) for v in found)
    index = {value: k for k, value in enumerate(found)}
    classes = tuple(names[v] if known and not isinstance(v, str) else str(v) for v in found)
    return np.array([index[v] for v in values], dtype=np.int64), classes
