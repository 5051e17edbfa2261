"""The rule of labels: a class is asked for by name, and drawn at random where nobody asks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unnoise.utils.errors import UserError, nearest
from unnoise.utils.rng import stream

EVERY = "all"  # each class in turn


def class_index(name: str, classes: Sequence[str]) -> int:
    """The index of a class. Raises UserError naming the nearest one, or where there are no classes."""
    if not classes:
        raise UserError("this run was trained without labels: leave `label` away, or train one with labels")
    if not isinstance(name, str):
        raise UserError(f"a label is the name of a class, such as '{classes[0]}', not {name!r}")
    if name not in classes:
        raise UserError(f"unknown label '{name}': {nearest(name, classes)}")
    return list(classes).index(name)


def check_label(label: str | None, classes: Sequence[str]) -> None:
    """Raises UserError for a label that `labels_for` does not know."""
    if label is not None and not (label == EVERY and classes):
        class_index(label, classes)


def labels_for(label: str | None, classes: Sequence[str], indices: Sequence[int], seed: int = 0) -> Tensor | None:
    """The class of each sample, (B,) int64; None where there are no classes.

    `label` is a class's name for all, `all` for each in turn, or None for classes drawn evenly, a function of (seed, index).
    """
    check_label(label, classes)
    if not classes:
        return None
    if label is None:
        return torch.tensor([int(stream(seed, "label", k).integers(len(classes))) for k in indices])
    if label == EVERY and EVERY not in classes:  # a class of that name goes before
        return torch.tensor(list(indices)) % len(classes)
    return torch.full((len(indices),), class_index(label, classes))
