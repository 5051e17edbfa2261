"""What a recipe leaves open, settled when a run begins."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import quiet
from unnoise.data.arrays import InMemory
from unnoise.diffusion.guidance import ClassGuidance, NoGuidance
from unnoise.networks.unet import AutoUNet, UNetConfig
from unnoise.presets import PRESETS, fit_size, recipe_for
from unnoise.recipe import Recipe, override
from unnoise.registry import source_of
from unnoise.runs.resume import resume
from unnoise.runs.start import begin

FAST = {"training.precision": "fp32", "sampling.steps": 2, "training.sample_count": 4}


def settled(folder: Path, name: str = "digits", /, **changes: object) -> tuple[Recipe, list[str]]:
    said: list[str] = []
    asked = FAST | {k.replace("__", "."): v for k, v in changes.items()}
    return begin(folder, override(PRESETS[name], asked), said.append).info.recipe, said


def test_all_is_plain_numbers_in_the_run(tmp_path: Path) -> None:
    """Chosen, said, written down, and the same when the run is resumed."""
    recipe, said = settled(tmp_path / "run", training__minutes=0.1)
    assert type(recipe.network) is UNetConfig and recipe.network.widths[0] >= 16 and recipe.network.patch == 1
    assert recipe.training.learning_rate > 0 and recipe.training.batch == 32
    assert recipe.target.sigma_data == pytest.approx(0.75, abs=0.01)  # type: ignore[attr-defined]
    assert any("network: widths" in line and "images/s by first width" in line for line in said)
    run = begin(tmp_path / "short", override(PRESETS["digits"], FAST | {"training.steps": 2, "training.minutes": None}), quiet)
    list(run.train())
    assert resume(tmp_path / "short", quiet).info.recipe == run.info.recipe


def test_what_is_asked_for_stays(tmp_path: Path) -> None:
    steps = {"training__steps": 1, "training__minutes": None}
    recipe, _ = settled(tmp_path / "a", **steps, network__widths=[16], training__learning_rate=5e-4, training__batch=7)
    assert recipe.network == UNetConfig((16,), 1, 1, attention_tokens=0)
    assert (recipe.training.learning_rate, recipe.training.batch) == (5e-4, 7)
    recipe, said = settled(tmp_path / "b", **steps, network="simple-unet", network__widths=[4, 8], training__optimizer="adam",
                           training__batch=8, target__sigma_data=0.3)  # fmt: skip
    assert recipe.training.learning_rate == 1e-3 and any("was never measured" in line for line in said)
    assert recipe.target.sigma_data == 0.3  # type: ignore[attr-defined]


@pytest.mark.parametrize(("without", "why"), [
    ({"data.labels": False}, "the images have no labels"),
    ({"training.label_dropout": 0.0}, "training.label_dropout is 0"),
])  # fmt: skip
def test_class_guidance_needs_what_it_is_made_of(tmp_path: Path, without: dict[str, object], why: str) -> None:
    """A preset that is guided by class is not, where that can't be."""
    said: list[str] = []
    asked = override(PRESETS["digits"], FAST | {"training.steps": 1, "training.minutes": None, "sampling.guidance": "class"})
    assert begin(tmp_path / "a", asked, quiet).info.recipe.sampling.guidance == ClassGuidance()
    recipe = begin(tmp_path / "b", override(asked, without), said.append).info.recipe
    assert recipe.sampling.guidance == NoGuidance() and any(f"sampling without guidance: {why}" in line for line in said)


def test_too_little_time_is_said(tmp_path: Path) -> None:
    recipe, said = settled(tmp_path, training__minutes=0.001)
    assert recipe.network.widths[0] == 16  # type: ignore[attr-defined]
    assert any("too little to learn from: 100 steps, " in line for line in said)


def test_previews_leave_the_time_to_training(tmp_path: Path) -> None:
    recipe, said = settled(tmp_path, training__minutes=0.01, training__sample_count=36)
    count, held_out = recipe.training.sample_count, recipe.training.held_out_count
    assert 4 <= count < 36 and 4 <= held_out < 256
    assert any(f"previews: {count} samples, the held-out loss on {held_out} images" in s for s in said)


def test_a_size_never_measured_is_said(tmp_path: Path) -> None:
    images = InMemory(np.zeros((12, 4, 80), np.uint8))
    _, said = settled(tmp_path, "images", data__source=images, training__steps=1, network__widths=[16])
    assert any("4x80 lie outside of what the choice was measured on" in line for line in said)


@pytest.mark.parametrize(
    ("own", "fitted"),
    [((8, 8), (8, 8)), ((28, 28), (28, 28)), ((30, 31), (28, 28)), ((64, 64), (64, 64)), ((48, 64), (48, 64)),
     ((100, 200), (32, 64)), ((3000, 4000), (48, 64)), ((33, 65), (32, 64)), ((2, 2), (4, 4))],
)  # fmt: skip
def test_images_keep_their_size_up_to_64(own: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert fit_size(own) == fitted


def test_the_preset_follows_the_size() -> None:
    for side, name in ((8, "digits"), (28, "fashion-mnist"), (64, "images")):
        found, recipe = recipe_for(InMemory(np.zeros((2, side, side), np.uint8)))
        assert found == name and recipe.data.size == (side, side) and type(recipe.network) is AutoUNet
        assert recipe.training.minutes is None  # the end is open for all images of one's own
    assert recipe_for(source_of("digits"))[1].training.minutes == 1
    assert recipe_for(InMemory(np.zeros((2, 90, 90), np.uint8)), size=(16, 24))[1].data.size == (16, 24)
    assert recipe_for(InMemory(np.zeros((2, 90, 90), np.uint8)), "notebook")[1].data.size == (64, 64)


@pytest.mark.parametrize(("steps", "given", "chosen"), [(100, None, 0.15), (10, None, 0.0), (100, 0.0, 0.0), (10, 0.3, 0.3)])
def test_few_images_seen_often_are_augmented(tmp_path: Path, steps: int, given: float | None, chosen: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    changes = {"training.steps": steps, "training.minutes": None, "training.batch": 32, "network.widths": [16]}
    recipe = override(recipe_for(InMemory(pixels))[1], FAST | changes | ({} if given is None else {"data.augment": given}))
    said: list[str] = []
    assert begin(tmp_path / "run", recipe, said.append).info.recipe.data.augment == chosen
    assert any("augmentation" in line for line in said) == (given is None and chosen > 0)
    if given is None:
        unable = override(recipe, {"network": "simple-unet", "network.widths": [4, 8]})
        assert begin(tmp_path / "unable", unable, quiet).info.recipe.data.augment == 0.0
