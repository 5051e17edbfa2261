"""A user's own parts: registered or by path, they train, resume, reopen and sample; what is missing is named."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import SMALL, quiet, small
from unnoise.diffusion.schedules import Linear, Schedule
from unnoise.model import Model
from unnoise.networks.base import ModuleConfig, NetworkConfig
from unnoise.presets import PRESETS
from unnoise.recipe import Recipe, override
from unnoise.registry import TABLES, find_part, from_json, kind_of, path_of, register, to_json
from unnoise.runs.resume import resume
from unnoise.runs.start import begin
from unnoise.utils.errors import UserError

PARTS = '''
"""One part of each kind."""
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import unnoise as un
from unnoise.diffusion.denoiser import Coefficients


@un.register("quadratic")
@dataclass(frozen=True)
class Quadratic(un.Schedule):
    power: float = 2.0

    def alpha(self, t):
        return 1 - t**self.power

    def sigma(self, t):
        return t


@dataclass(frozen=True)
class Blobs(un.Source):
    count: int = 64

    def read(self, fit, cache=None):
        rng = np.random.default_rng(0)
        return un.ImageDataset(rng.integers(0, 256, (self.count, 8, 8, 1), dtype=np.uint8), np.arange(self.count) % 2, ("a", "b"))


@dataclass(frozen=True)
class Target(un.Target):
    def coefficients(self, alpha, sigma):
        total = alpha.square() + sigma.square()
        return Coefficients(total.rsqrt(), alpha / total, -sigma / total)


@dataclass(frozen=True)
class Quartic(un.Loss):
    def __call__(self, error):
        return error.square().square()


@dataclass(frozen=True)
class Middle(un.TrainingTimes):
    def __call__(self, u, schedule):
        return 0.25 + u / 2


@dataclass(frozen=True)
class Straight(un.SamplingTimes):
    def levels(self, schedule, steps):
        return 1 - torch.arange(steps, dtype=torch.float64) / steps


@dataclass(frozen=True)
class MyDDIM(un.Sampler):
    def step(self, denoise, x_t, t, s, state, rng):
        x_hat = denoise(x_t, t)
        return s.alpha * x_hat + s.sigma * (x_t - t.alpha * x_hat) / t.sigma, x_hat, None


@dataclass(frozen=True)
class Half(un.Guidance):
    def wrap(self, denoiser, guide=None):
        return denoiser


class MyNet(nn.Module):
    def __init__(self, channels, classes, width=8):
        super().__init__()
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)
        self.label = nn.Embedding(classes + 1, width)
        self.conv_out = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x, c_noise, label=None):
        label = torch.full_like(c_noise, -1, dtype=torch.long) if label is None else label
        embedding = self.label(label % self.label.num_embeddings) + c_noise[:, None]
        return self.conv_out(torch.relu(self.conv_in(x) + embedding[:, :, None, None]))
'''

OWN = {
    "schedule": "ownparts:Quadratic", "schedule.power": 3.0, "target": "ownparts:Target", "network": "ownparts:MyNet",
    "network.width": 12, "data.source": "ownparts:Blobs", "training.loss": "ownparts:Quartic",
    "training.times": "ownparts:Middle",
    "sampling.times": "ownparts:Straight", "sampling.sampler": "ownparts:MyDDIM", "sampling.guidance": "ownparts:Half",
    "sampling.start": "noise",
}  # fmt: skip
PLAIN = {k: v for k, v in SMALL.items() if not k.startswith("network")} | {
    "training.steps": 6, "training.batch": 16, "data.augment": 0.0,
}  # fmt: skip


@pytest.fixture
def own_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with ownparts.py, importable in this test alone."""
    (tmp_path / "ownparts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ownparts", raising=False)
    before = {kind: dict(table) for kind, table in TABLES.items()}
    yield tmp_path
    sys.modules.pop("ownparts", None)
    for kind, table in TABLES.items():
        table.clear()
        table.update(before[kind])


def test_a_run_of_own_parts_lives(own_parts: Path) -> None:
    """Every kind of part at once: stopped after 3 steps, resumed to the end, and sampled in a process of its own, to the bit."""
    recipe = override(PRESETS["digits"], PLAIN | OWN)
    folder = own_parts / "run"
    records = begin(folder, recipe, quiet).train()
    for record in records:
        if record.step == 3:
            break
    records.close()
    text = (folder / "recipe.json").read_text()
    assert '"name": "quadratic"' in text and '"module": "ownparts"' in text and '"name": "ownparts:MyNet"' in text
    again = resume(folder, quiet)
    assert again.state.step == 3 and again.info.recipe == recipe and [r.step for r in again.train()] == [4, 5, 6]
    here = Model.load(folder).sample(4, steps=5)
    code = (
        "import sys, numpy as np, torch, unnoise as un\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        f"np.save({str(own_parts / 'there.npy')!r}, un.load({str(folder)!r}).sample(4, steps=5))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=own_parts)
    assert np.array_equal(here, np.load(own_parts / "there.npy"))


def test_what_can_not_be_imported_is_named(own_parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(own_parts / "run", override(PRESETS["digits"], PLAIN | OWN), quiet)
    sys.modules.pop("ownparts")
    TABLES[Schedule].pop("quadratic")
    (own_parts / "ownparts.py").rename(own_parts / "elsewhere.txt")
    with pytest.raises(UserError, match=r"is defined in the module 'ownparts', which can't be imported.*PYTHONPATH"):
        Model.load(own_parts / "run")
    (own_parts / "ownparts.py").write_text("x = 1 / 0")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        Model.load(own_parts / "run")
    (own_parts / "ownparts.py").write_text("")
    with pytest.raises(UserError, match=r"(no more|not there any more)"):
        Model.load(own_parts / "run")


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        (Schedule, "unnoise.diffusion.loss:L2", "is no Schedule"),
        (NetworkConfig, "subprocess:Popen", "one of Python's own"),
        (Schedule, "unnoise.diffusion.schedules:Nothing", "has no 'Nothing'"),
        (Schedule, "__main__:Gone", "script or notebook"),
        (Schedule, "nowhere.at.all:X", "can't be imported"),
        (Schedule, "lineer", "did you mean 'linear'"),
    ],
)
def test_paths_are_checked(kind: type, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        find_part(kind, name)


def test_a_path_is_the_part_itself() -> None:
    assert from_json(Schedule, "unnoise.diffusion.schedules:Linear") == Linear()
    assert to_json(Linear(300))["name"] == "linear" and "module" not in to_json(Linear(300))


def test_registering() -> None:
    """A name once; the same class again, as when a notebook's cell runs twice; never what no recipe could keep."""

    @dataclass(frozen=True)
    class Own(Linear):
        pass

    try:
        assert register("own-linear")(Own) is Own and register("own-linear")(Own) is Own
        assert from_json(Schedule, {"name": "own-linear", "timesteps": 7}) == Own(7)
        with pytest.raises(UserError, match="is taken by"):
            register("own-linear")(Linear)
    finally:
        TABLES[Schedule].pop("own-linear", None)

    class Plain(Schedule):
        def alpha(self, t: Tensor) -> Tensor:
            return 1 - t

        def sigma(self, t: Tensor) -> Tensor:
            return t

    @dataclass(frozen=True)
    class Named(Linear):
        name: str = "reserved"

    for part, words in ((Plain, "must be a dataclass"), (Named, "has a field 'name'"), (int, "is no part of a recipe")):
        with pytest.raises(UserError, match=words):
            register("something")(part)
    with pytest.raises(UserError, match="must be a dataclass"):
        to_json(override(Recipe(), {"schedule": Plain()}))


def test_kinds() -> None:
    for kind, table in TABLES.items():
        assert all(kind_of(part) is kind for part in table.values())
    assert kind_of(torch.nn.Linear) is NetworkConfig


def test_a_part_given_as_an_object_stays_that_object() -> None:
    """Also one that JSON could not bring back, such as images in memory."""
    part = Linear(300)
    assert override(Recipe(), {"schedule": part, "target": "velocity"}).schedule is part
    config = override(small(), {"network": torch.nn.Identity}).network
    assert config == ModuleConfig(torch.nn.Identity) and path_of(torch.nn.Identity) == to_json(config)["name"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule": Linear}, r"the class Linear: give Linear\(\)"),
        ({"network": torch.nn.Linear(1, 1)}, "built already: give its class"),
        ({"network": torch.nn.Identity, "network.style.norm": "group"}, "unknown field 'network.style"),
        ({"training.batch": {1, 2}}, "training.batch must be int"),
    ],
)
def test_mistakes_in_python_are_sentences(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        override(small(), changes)


def test_numbers_of_numpy_are_numbers() -> None:
    assert override(small(), {"training.seed": np.int64(3)}).training.seed == 3


@dataclass(frozen=True)
class Knots(Linear):
    """Fields of more kinds."""

    knots: list[float] = dataclasses.field(default_factory=lambda: [0.0, 1.0])
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Unkept(Linear):
    """A field that no JSON holds."""

    values: object = dataclasses.field(default_factory=object)


def test_what_would_not_reopen_does_not_begin(tmp_path: Path) -> None:
    """Before hours go into it: a field that JSON can't hold, a class that can't be found again."""
    assert from_json(Schedule, to_json(Knots(knots=[0.5], kind="b"))) == Knots(knots=[0.5], kind="b")

    @dataclass(frozen=True)
    class Local(Linear):
        pass

    for part, words in ((Unkept(), "JSON can't hold"), (Local(), "is not there any more")):
        with pytest.raises(UserError, match=words):
            begin(tmp_path / "run", override(small(training__steps=1), {"schedule": part, "target": "velocity"}), quiet)
    assert not (tmp_path / "run").exists()


def test_a_name_belongs_to_its_module() -> None:
    with pytest.raises(UserError, match=r"'linear' is that of the module 'other\.mod', and the name is taken by"):
        find_part(Schedule, "linear", "other.mod")
