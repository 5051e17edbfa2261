"""`unnoise sample`."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.conftest import Command
from unnoise.data.fit import Fit


def test_folders_and_arrays_hold_the_same_images(trained: Path, tmp_path: Path, command: Command) -> None:
    assert command("sample", trained, "-n", 5, "--seed", 7, "--out", tmp_path / "s") == 0
    assert sorted(p.name for p in (tmp_path / "s").glob("*.png")) == [f"{k:06d}.png" for k in range(5)]
    assert Image.open(tmp_path / "s-grid.png").size[0] > 8
    assert command("sample", trained, "-n", 5, "--seed", 7, "--out", tmp_path / "s.npz", "--batch", 5) == 0
    pixels = np.load(tmp_path / "s.npz")["images"]
    assert pixels.shape == (5, 8, 8, 1) and pixels.dtype == np.uint8
    for k in range(5):
        assert np.array_equal(pixels[k, :, :, 0], np.asarray(Image.open(tmp_path / "s" / f"{k:06d}.png")))


def test_image_to_image(trained: Path, tmp_path: Path, command: Command) -> None:
    """The less strength, the more the images are like the one that they start from, which is fitted to the run's size."""
    image = tmp_path / "p.png"
    pixels = np.random.default_rng(0).integers(0, 255, (12, 20, 1), dtype=np.uint8)
    Image.fromarray(pixels[..., 0]).save(image)
    fitted = Fit((8, 8)).array(pixels[None])[0, :, :, 0].astype(float)
    errors = []
    for strength in (0.2, 0.9):
        out = tmp_path / f"{strength}"
        assert command("sample", trained, "--from", image, "--strength", strength, "-n", 3, "--out", tmp_path / "v") == 0
        assert sorted(p.name for p in (tmp_path / "v").iterdir()) == [f"{k:06d}.png" for k in range(3)]
        (tmp_path / "v").rename(out)
        found = np.stack([np.asarray(Image.open(p)) for p in out.iterdir()]).astype(float)
        errors.append(np.square(found - fitted).mean())
    assert errors[0] < errors[1] and (tmp_path / "v-grid.png").is_file()


def test_each_class_and_regenerating_one_image(trained: Path, tmp_path: Path, command: Command) -> None:
    assert command("sample", trained, "--label", "all", "--guidance", 2, "--out", tmp_path / "all") == 0
    assert len(list((tmp_path / "all").glob("*.png"))) == 10
    again = tmp_path / "again.png"
    assert command("sample", trained, "--regenerate", tmp_path / "all" / "000007.png", "--out", again) == 0
    assert np.array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(tmp_path / "all" / "000007.png")))


def test_the_default_folder_is_in_the_run(trained: Path, tmp_path: Path, command: Command) -> None:
    for name in ("recipe.json", "model.safetensors"):  # sampling needs no more
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    assert command("sample", tmp_path, "-n", 2) == 0
    assert {p.name for p in (tmp_path / "generated").iterdir()} == {"000000.png", "000001.png", "generation.json"}
    assert (tmp_path / "generated-grid.png").is_file()
