"""Recipes: to JSON and back, changed by dotted names, strict in both."""

import json
from pathlib import Path

import pytest

from unnoise.data.arrays import InMemory
from unnoise.diffusion.schedules import Cosine
from unnoise.presets import PRESETS
from unnoise.recipe import Recipe, RunInfo, override
from unnoise.registry import TABLES, from_json, to_json
from unnoise.utils.errors import UserError


@pytest.mark.parametrize("name", PRESETS)
def test_json_and_back(name: str) -> None:
    assert from_json(Recipe, json.loads(json.dumps(to_json(PRESETS[name])))) == PRESETS[name]


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, table in TABLES.items() for n in table])
def test_every_named_part_survives(kind: type, name: str) -> None:
    part = TABLES[kind][name]()
    again = from_json(kind, json.loads(json.dumps(to_json(part))))
    assert again == part or (isinstance(part, InMemory) and type(again) is InMemory and again.data is None)
    assert type(from_json(kind, name)) is type(part)
    assert part.__doc__


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network.width": [32]}, "did you mean 'widths'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"sampling.sampler": "dmp++2m"}, r"did you mean 'dpm\+\+2m'"),
        ({"network.style.activation": "rellu"}, "did you mean 'relu'"),
        ({"network.style.norm": "groups"}, "did you mean 'group'"),
        ({"training.loss": 5, "training.loss.delta": 2}, "training.loss must be one of"),
        ({"sampling.times": "karras", "sampling.times.rho": 0}, "rho > 0"),
        ({"sampling.start": "dat"}, "did you mean 'data'"),
        ({"training.epochs": 0}, "epochs must be greater than 0"),
        ({"training.label_dropout": 2}, "between 0 and 1"),
        ({"network.blocks": "two"}, "network.blocks must be int"),
        ({"network.blocks": True}, "network.blocks must be int"),
        ({"training.steps": -5}, "steps must be greater than 0"),
        ({"training.minutes": 0}, "minutes must be greater than 0"),
        ({"sampling.steps": 0}, "at least 1"),
        ({"nothing.at.all": 1}, "unknown field"),
        ({"schedule": "flow", "target": "epsilon"}, "can't start from pure noise.*choose target velocity"),
        ({"training.times": "discrete"}, "schedule linear"),
        ({"schedule": "linear", "schedule.timesteps": 5}, "at most 5"),
    ],
)
def test_mistakes_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        override(PRESETS["digits"], changes)


def test_a_part_is_replaced_before_its_fields() -> None:
    recipe = override(PRESETS["digits"], {"sampling.sampler.eta": 0.5, "sampling.sampler": "ddim"})
    assert to_json(recipe.sampling.sampler) == {"name": "ddim", "eta": 0.5}


def test_changing_a_recipe_leaves_the_rest_and_the_original() -> None:
    before = to_json(PRESETS["digits"])
    recipe = override(PRESETS["digits"], {"training.extra-ema": [0.05, 0.2], "schedule": Cosine(), "data.size": [16, 8]})
    assert recipe.training.extra_ema == (0.05, 0.2) and recipe.schedule == Cosine() and recipe.data.size == (16, 8)
    assert to_json(PRESETS["digits"]) == before
    after = to_json(recipe)
    changed = {f"{part}.{name}" for part in ("data", "training", "sampling", "network", "target")
               for name in before[part] if before[part][name] != after[part][name]}  # fmt: skip
    assert changed == {"training.extra_ema", "data.size"}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("shedule", "cosine", r"unknown field 'shedule' in recipe: did you mean 'schedule'"),
        ("training.penalty", {"name": "l1"}, r"unknown field 'penalty' in recipe\.training: it is now 'loss'"),
        ("target", {"name": "karras"}, r"unknown recipe\.target 'karras': it is now 'edm'"),
        ("training.batch", "32", r"recipe\.training\.batch must be int"),
        ("training.batch", 32.5, r"recipe\.training\.batch must be int"),
        ("data.size", [1, 2, 3], r"recipe\.data\.size must be"),
        ("schedule", 7, r"recipe\.schedule must be one of"),
        ("sampling", [], r"recipe\.sampling must be an object"),
    ],
)
def test_json_that_does_not_fit_is_named(path: str, value: object, words: str) -> None:
    tree = to_json(PRESETS["digits"])
    *parents, name = path.split(".")
    node = tree
    for parent in parents:
        node = node[parent]
    node[name] = value
    with pytest.raises(UserError, match=words):
        from_json(Recipe, tree)


def test_what_a_run_folder_holds_survives(tmp_path: Path) -> None:
    info = RunInfo(PRESETS["digits"], (1, 8, 8), tuple("0123456789"), "abc", "cpu", True, False, 750, "unnoise 0", "unnoise é")
    info.save(tmp_path / "recipe.json")
    assert RunInfo.load(tmp_path / "recipe.json") == info
    for text in ("{", "[1]", ""):
        (tmp_path / "recipe.json").write_text(text)
        with pytest.raises(UserError, match=r"recipe\.json"):
            RunInfo.load(tmp_path / "recipe.json")
