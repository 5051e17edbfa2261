"""Decoded images on disk: made once, by one process, resumable, and read from there."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.files import write_pngs
from unnoise.data import cache
from unnoise.data.cache import clear_cache, list_cache
from unnoise.data.dataset import OnDisk
from unnoise.data.decode import decode
from unnoise.data.fit import Fit
from unnoise.data.folder import ImageFolder
from unnoise.utils.errors import UserError


def test_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, store = write_pngs(tmp_path / "p", 12), tmp_path / "cache"
    first = ImageFolder(str(folder)).read(Fit((8, 8)), store)
    monkeypatch.setattr(cache, "decode", lambda *_: pytest.fail("decoded again"))
    again = ImageFolder(str(folder)).read(Fit((8, 8)), store)
    assert np.array_equal(first.pixels, again.pixels) and first.fingerprint() == again.fingerprint()
    assert [(entry.images, entry.complete) for entry in list_cache(store)] == [(12, True)] and not list(store.glob("*.tmp"))
    monkeypatch.undo()
    monkeypatch.setenv("UNNOISE_CACHE", str(store))
    other = ImageFolder(str(folder)).read(Fit((8, 10)))  # other settings, another array
    assert other.shape == (3, 8, 10) and len(list_cache(store)) == 2
    Image.new("RGB", (20, 20)).save(folder / "0003.png")  # a file that changed is seen
    assert not np.array_equal(ImageFolder(str(folder)).read(Fit((8, 8))).pixels, first.pixels)


def test_clearing_removes_what_the_cache_made_and_nothing_else(tmp_path: Path) -> None:
    folder, store = write_pngs(tmp_path / "p", 3), tmp_path / "cache"
    ImageFolder(str(folder)).read(Fit((8, 8)), store)
    (store / "mine").mkdir()
    (store / "mine" / "file").write_text("keep")
    assert clear_cache(store) > 0
    assert [p.name for p in store.iterdir()] == ["mine"] and (store / "mine" / "file").read_text() == "keep"
    assert list_cache(store) == []


@pytest.mark.slow
def test_two_processes_decode_once(tmp_path: Path) -> None:
    """Both start at once on an empty cache: one builds, the other waits, both see the same."""
    folder, store = write_pngs(tmp_path / "p", 60, (200, 200)), tmp_path / "cache"
    code = (
        "import sys\nfrom pathlib import Path\nfrom unnoise.data import cache\nfrom unnoise.data.fit import Fit\n"
        "from unnoise.data.folder import ImageFolder\ncount = [0]\nreal = cache.decode\n"
        "def counted(*a):\n    count[0] += 1\n    return real(*a)\n"
        "cache.decode = counted\n"
        "images = ImageFolder(sys.argv[1]).read(Fit((16, 16)), Path(sys.argv[2]))\n"
        "print(count[0], images.fingerprint())"
    )
    words = [sys.executable, "-c", code, str(folder), str(store)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].split() for process in running]
    assert sorted(int(count) for count, _ in outputs) == [0, 60]
    assert outputs[0][1] == outputs[1][1] == ImageFolder(str(folder)).read(Fit((16, 16)), store).fingerprint()


def test_an_interrupted_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, store = write_pngs(tmp_path / "p", 40), tmp_path / "cache"
    (folder / "broken.png").write_bytes(b"no")
    monkeypatch.setattr(cache, "CHUNK", 10)
    calls: list[str] = []

    def stop_after_25(file: Path, *rest: Any) -> Image.Image:
        calls.append(file.name)
        if len(calls) > 25:
            raise KeyboardInterrupt
        return decode(file, *rest)

    monkeypatch.setattr(cache, "decode", stop_after_25)
    with pytest.raises(KeyboardInterrupt):
        ImageFolder(str(folder)).read(Fit((8, 8)), store)
    assert len(list(store.glob("*.tmp"))) == 1 and not any(entry.complete for entry in list_cache(store))
    later: list[str] = []

    def count(file: Path, *rest: Any) -> Image.Image:
        later.append(file.name)
        return decode(file, *rest)

    monkeypatch.setattr(cache, "decode", count)
    images = ImageFolder(str(folder)).read(Fit((8, 8)), store)
    assert len(images) == 40 and len(later) == 20, "two chunks of ten were done before"
    assert "broken.png" in images.skipped[0]
    fresh = ImageFolder(str(folder)).read(Fit((8, 8)), tmp_path / "fresh")
    assert np.array_equal(images.pixels, fresh.pixels) and np.array_equal(images.hashes, fresh.hashes)


def test_large_sets_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pngs(tmp_path / "p", 12)
    small = ImageFolder(str(folder)).read(Fit((8, 8)))
    monkeypatch.setattr(cache, "IN_MEMORY", 100)
    large = ImageFolder(str(folder)).read(Fit((8, 8)))
    assert isinstance(large.store, OnDisk) and isinstance(small.store, np.ndarray)
    assert np.array_equal(large.pixels, small.pixels)
    chosen = np.array([7, 2, 2, 11])
    assert np.array_equal(large.read(chosen), small.read(chosen))
    half = large.subset(np.arange(12) % 2 == 1)
    assert np.array_equal(half.read(np.array([0, 5])), small.pixels[[1, 11]]) and len(half) == 6


def test_a_cache_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another `cache`"):
        ImageFolder(str(write_pngs(tmp_path / "p", 2))).read(Fit((8, 8)), tmp_path / "file" / "x")


def entry(store: Path) -> Path:
    (found,) = (e.folder for e in list_cache(store))
    return found


def spoil_shape(folder: Path) -> None:
    np.save(folder / "pixels.npy", np.zeros((12, 8, 8, 1), np.uint8))


def spoil_pixels(folder: Path) -> None:
    pixels = np.load(folder / "pixels.npy")
    pixels[5] ^= 255
    np.save(folder / "pixels.npy", pixels)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "other shape": spoil_shape,
    "other pixels": spoil_pixels,
    "no hashes": lambda folder: (folder / "hashes.npy").unlink(),
    "cut short": lambda folder: os.truncate(folder / "pixels.npy", 200),
    "half a description": lambda folder: (folder / "about.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_decoded_again(tmp_path: Path, damage: str) -> None:
    store, source = tmp_path / "cache", ImageFolder(str(write_pngs(tmp_path / "p", 12)))
    whole = source.read(Fit((8, 8)), store).pixels
    DAMAGES[damage](entry(store))
    assert np.array_equal(source.read(Fit((8, 8)), store).pixels, whole)
    assert len(list_cache(store)) == 1


def test_a_build_of_another_shape_is_not_gone_on_with(tmp_path: Path) -> None:
    """As a part left by a build that took the images for grey."""
    store, source = tmp_path / "cache", ImageFolder(str(write_pngs(tmp_path / "p", 12)))
    whole = source.read(Fit((8, 8)), store).pixels
    folder = entry(store)
    (folder / "about.json").unlink()
    spoil_shape(folder)
    folder.rename(folder.with_suffix(".tmp"))
    assert np.array_equal(source.read(Fit((8, 8)), store).pixels, whole)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_can_only_be_read(tmp_path: Path) -> None:
    store, source = tmp_path / "cache", ImageFolder(str(write_pngs(tmp_path / "p", 12)))
    whole = source.read(Fit((8, 8)), store).pixels
    for path in (entry(store), store):
        path.chmod(0o500)
    assert np.array_equal(source.read(Fit((8, 8)), store).pixels, whole)


def test_it_is_ones_own(tmp_path: Path) -> None:
    ImageFolder(str(write_pngs(tmp_path / "p", 12))).read(Fit((8, 8)), tmp_path / "cache")
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0
