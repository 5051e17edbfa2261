import json

import pytest

from unnoise.presets import PRESETS
from unnoise.recipe import Recipe, override
from unnoise.registry import TABLES, from_json, to_json
from unnoise.utils.errors import UserError


@pytest.mark.parametrize("name", PRESETS)
def test_json_and_back(name: str) -> None:
    assert from_json(Recipe, json.loads(json.dumps(to_json(PRESETS[name])))) == PRESETS[name]


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, table in TABLES.items() for n in table])
def test_every_named_part_survives(kind: type, name: str) -> None:
    part = TABLES[kind][name]()
    assert from_json(kind, to_json(part)) == part
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
        ({"schedule": "flow", "target": "noise"}, "velocity"),
        ({"training.times": "discrete"}, "schedule linear"),
        ({"schedule": "linear", "schedule.timesteps": 10}, "at most 10"),
    ],
)
def test_mistakes_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        override(PRESETS["digits"], changes)


def test_a_part_is_replaced_before_its_fields() -> None:
    recipe = override(PRESETS["digits"], {"sampling.sampler.eta": 0.5, "sampling.sampler": "ddim"})
    assert to_json(recipe.sampling.sampler) == {"name": "ddim", "eta": 0.5}
