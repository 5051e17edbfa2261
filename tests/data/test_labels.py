"""The rule of labels: a class by name, each in turn, or drawn."""

from collections import Counter

import pytest

from unnoise.data.labels import check_label, class_index, labels_for
from unnoise.utils.errors import UserError

CLASSES = ("cat", "dog", "eel")


def labels(label: str | None, indices: range, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> list[int]:
    found = labels_for(label, classes, indices, seed)
    assert found is not None
    return found.tolist()


def test_a_name_is_for_all_and_all_is_each_in_turn() -> None:
    assert labels("dog", range(4, 8)) == [1, 1, 1, 1]
    assert labels("all", range(4, 9)) == [1, 2, 0, 1, 2]
    assert labels("all", range(3), classes=("all", "none")) == [0, 0, 0]  # a class of that name


def test_none_draws_every_class_about_as_often() -> None:
    counts = Counter(labels(None, range(3000)))
    assert sorted(counts) == [0, 1, 2] and all(abs(n - 1000) < 100 for n in counts.values())  # 4 standard deviations
    assert labels(None, range(50)) != labels(None, range(50), seed=1)


@pytest.mark.parametrize("label", [None, "all", "eel"])
def test_a_label_does_not_depend_on_the_batch(label: str | None) -> None:
    whole = labels(label, range(40), seed=5)
    assert [found for first in range(0, 40, 7) for found in labels(label, range(first, min(first + 7, 40)), seed=5)] == whole
    assert [labels(label, range(k, k + 1), seed=5)[0] for k in range(40)] == whole


def test_what_does_not_exist_is_answered_with_what_does() -> None:
    for wrong in (
        lambda: labels_for("dgo", CLASSES, range(2)),
        lambda: check_label("dgo", CLASSES),
        lambda: class_index("dgo", CLASSES),
    ):
        with pytest.raises(UserError, match="unknown label 'dgo': did you mean 'dog'"):
            wrong()
    assert class_index("eel", CLASSES) == 2


def test_a_run_without_classes() -> None:
    assert labels_for(None, (), range(3)) is None
    check_label(None, ())
    for label in ("cat", "all"):
        with pytest.raises(UserError, match="trained without labels"):
            labels_for(label, (), range(3))
        with pytest.raises(UserError, match="trained without labels"):
            check_label(label, ())
