"""What is data in a folder and what is not: hidden and system folders, links, splits, classes, and what this program wrote."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import quiet, small
from tests.data.files import encoded, tiled, write_tar
from unnoise import figures
from unnoise.data.cache import list_cache
from unnoise.data.dataset import ImageDataset, split
from unnoise.data.fit import Fit
from unnoise.data.folder import ImageFolder
from unnoise.data.pixels import to_pil
from unnoise.data.tar import TarShards
from unnoise.runs.resume import resume
from unnoise.runs.start import begin
from unnoise.utils.errors import UserError

SIDE = 16


def lay_out(root: Path, names: str) -> None:
    """An image at each of these names, different by name."""
    for name in names.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(tiled(sum(name.encode()), (SIDE, SIDE)), "PNG"))


def read(root: Path, **options: bool) -> tuple[ImageDataset, list[str]]:
    """The images, and the names of those that are used, found by their content."""
    images = ImageFolder(str(root), **options).read(Fit())
    return images, list(ImageFolder(str(root), **options).listing().names)


HIDDEN = [".ipynb_checkpoints/a-checkpoint.png", ".git/a.png", "cat/.thumbnails/b.png", "__MACOSX/cat/a.png", "@eaDir/a.png",
          "$RECYCLE.BIN/a.png", "cat/._a.png", ".hidden.png", ".Trash-1000/files/a.png", "#recycle/a.png",
          "System Volume Information/a.png", "lost+found/a.png", "__pycache__/a.png", ".@__thumb/a.png"]  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_and_system_files_are_left_out_and_said(tmp_path: Path, name: str) -> None:
    lay_out(tmp_path, "cat/a.png dog/b.png")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(encoded(tiled(99), "PNG"))
    images, names = read(tmp_path, subfolders=True)
    assert names == ["cat/a.png", "dog/b.png"] and images.classes == ("cat", "dog")
    hidden = name if name.startswith("cat/._") else "cat/.thumbnails" if name.startswith("cat") else name.split("/")[0]
    assert any("hidden or system" in note and repr(hidden) in note for note in images.notes), (hidden, images.notes)
    write_tar(tmp_path / "x.tar", [("a.png", encoded(tiled(1), "PNG")), (name, encoded(tiled(99), "PNG"))])
    shards = TarShards(str(tmp_path / "x.tar")).read(Fit())
    assert len(shards) == 1 and any("hidden or system" in note and name in note for note in shards.notes)


LAYOUTS = [  # what lies there, the images held out, the classes, words of the notes
    ("train/cat/a train/dog/b test/cat/c test/dog/d", "c d", "cat dog", "2 in 'train' to train on, 2 in 'test' held out"),
    ("train/cat/a val/cat/b test/cat/c", "b c", "cat", "1 in 'test' held out"),
    ("Train/cat/a Valid/cat/b", "b", "cat", "in 'Valid' held out"),
    ("training/cat/a validation/dog/b", "b", "cat dog", "in 'validation' held out"),
    ("train/cat/a train/dog/b", None, "cat dog", None),
    ("cat/a dog/b", None, "cat dog", None),
    ("train/a bus/b car/c", None, "bus car train", None),  # vehicles
    ("valid/a invalid/b", None, "invalid valid", "no folder 'train' beside 'valid'"),
    ("train/cat/x/a test/cat/y/b", "b", "cat", "held out"),
    ("train/cat/a test/cat/b extra/c", "b", None, r"beside these 1 images, e\.g\. in 'extra'"),
    ("train/a test/b", "b", None, "held out"),
    ("train/a test/b c", "b", None, "beside these 1 images"),
]


@pytest.mark.parametrize(("layout", "held_out", "classes", "words"), LAYOUTS, ids=[row[0] for row in LAYOUTS])
def test_train_and_test_folders_are_a_split(
    tmp_path: Path, layout: str, held_out: str | None, classes: str | None, words: str | None
) -> None:
    """And no classes: these are the folders below."""
    lay_out(tmp_path, " ".join(f"{name}.png" for name in layout.split()))
    images, names = read(tmp_path, subfolders=classes is not None)
    assert images.classes == tuple((classes or "").split())
    if held_out is None:
        assert images.test is None
    else:
        assert images.test is not None
        assert {Path(n).stem for n, t in zip(names, images.test, strict=True) if t} == set(held_out.split())
        assert len(split(images, 0.5).held_out) == len(held_out.split())
        assert read(tmp_path, subfolders=classes is not None, union=True)[0].test is None
    if classes is not None and "train/a" not in layout and "valid/a" not in layout:
        labels = [images.classes[k] for k in (images.labels if images.labels is not None else [])]
        assert labels == [next(part for part in Path(n).parts if part in images.classes) for n in names]
    assert words is None or any(re.search(words, note) for note in images.notes), images.notes


def test_an_image_beside_the_classes_of_a_split_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, "train/cat/a.png test/b.png")
    with pytest.raises(UserError, match=r"'test.b\.png' lies in no sub-folder"):
        read(tmp_path, subfolders=True)


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_a_class_without_images_is_said(tmp_path: Path, prefix: str) -> None:
    """As where all its images are of a kind that is not read."""
    lay_out(tmp_path, f"{prefix}cat/a.png {prefix}dog/deep/b.png")
    (tmp_path / prefix / "eel").mkdir()
    (tmp_path / prefix / "eel" / "a.psd").write_bytes(b"8BPS")
    images, _ = read(tmp_path, subfolders=True)
    assert images.classes == ("cat", "dog") and "classes without an image that is used: 'eel'" in images.notes
    assert not any("classes" in note for note in read(tmp_path)[0].notes)


LINKS = [  # the link, where it leads, the images that are found, words of a note or of what is skipped
    ("dog", "../outside", ["cat/a.png", "dog/z.png"], None),
    ("alias", "cat", ["cat/a.png"], "links to folders that are read already .* 'alias'"),
    ("aa", "cat", ["cat/a.png"], "'aa'"),  # the real folder keeps its name
    ("cat/loop", "..", ["cat/a.png"], "'cat.loop'"),
    ("up", "../..", ["cat/a.png"], "'up'"),
    ("gone", "nowhere", ["cat/a.png"], "'gone': No such file"),
    ("gone.png", "nowhere", ["cat/a.png"], "'gone.png': No such file"),
    ("b.png", "../outside/z.png", ["b.png", "cat/a.png"], None),
    ("hidden", ".cache", ["cat/a.png", "hidden/h.png"], None),
]


@pytest.mark.parametrize(("name", "to", "expected", "words"), LINKS, ids=[row[0] for row in LINKS])
def test_links_are_followed_once(tmp_path: Path, name: str, to: str, expected: list[str], words: str | None) -> None:
    root = tmp_path / "photos"
    lay_out(root, "cat/a.png .cache/h.png")
    lay_out(tmp_path, "outside/z.png")
    (tmp_path / "outside" / "back").symlink_to(root)
    (root / name).symlink_to(to)
    images, names = read(root)
    assert names == [n.replace("/", os.sep) for n in expected]
    assert words is None or re.search(words, "\n".join([*images.notes, *images.skipped])), (images.notes, images.skipped)


def test_a_run_in_its_data_folder_is_no_data(tmp_path: Path) -> None:
    """Not its grids, nor images sampled, restored or drawn beside it: not to the resumed run, to others, or to the cache."""
    root, cache = tmp_path / "photos", tmp_path / "cache"
    lay_out(root, " ".join(f"{k}.png" for k in range(12)))
    recipe = small(data__source=ImageFolder(str(root)), training__steps=3, training__sample_every=0.001)
    run = begin(root / "runs" / "r", recipe, quiet, cache=cache)
    list(run.train())
    run.finish()
    assert list((root / "runs" / "r" / "samples").glob("*.png"))
    sheet = to_pil(tiled(5))
    for name in ("sheet.png", "deep/restored.png", "runs/figure.png"):
        figures.save(sheet, root / name)
    figures.film([sheet, to_pil(tiled(6))], root / "film.gif")
    images = ImageFolder(str(root)).read(Fit(), cache)
    assert images.fingerprint() == run.info.fingerprint and len(list_cache(cache)) == 1
    left_out = "\n".join(note for note in images.notes if "left out" in note)
    assert re.search(r"that this program wrote \(4, .*data\.source\.generated true", left_out)
    assert re.search(r"run folders \(1, e\.g\. 'runs.r'\)", left_out)
    resume(root / "runs" / "r", quiet, cache)
    assert len(ImageFolder(str(root), generated=True).read(Fit((SIDE, SIDE)), cache)) >= 12 + 4 + 1
    with pytest.raises(UserError, match=r"no images in .*this program wrote.*data\.source\.generated true takes them"):
        ImageFolder(str(root / "runs" / "r" / "samples")).read(Fit((8, 8)))


def test_a_recipe_of_others_is_no_run(tmp_path: Path) -> None:
    lay_out(tmp_path, "pies/a.png pies/b.png")
    for text in ('{"flour": 500}', "[]", "not json"):
        (tmp_path / "pies" / "recipe.json").write_text(text)
        assert len(read(tmp_path)[1]) == 2


def test_what_is_left_out_does_not_change_the_cache(tmp_path: Path) -> None:
    """And is said anew each time."""
    root, cache = tmp_path / "p", tmp_path / "cache"
    lay_out(root, "a.png b.png")
    first = ImageFolder(str(root)).read(Fit(), cache)
    (root / "c.psd").write_bytes(b"8BPS")
    second = ImageFolder(str(root)).read(Fit(), cache)
    assert len(list_cache(cache)) == 1 and first.fingerprint() == second.fingerprint()
    assert not any("Photoshop" in note for note in first.notes) and any("Photoshop" in note for note in second.notes)


def test_names_are_in_the_order_of_their_parts(tmp_path: Path) -> None:
    """As paths sort, whatever the file system gives, so that a run resumes on the same order."""
    lay_out(tmp_path, "a/b.png a-b.png a.png b/c/d.png b.png Z.png ü.png")
    _, names = read(tmp_path)
    assert names == [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*.png"))]


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path, "a.png private/b.png")
    scan = os.scandir

    def guard(path: Path) -> object:
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("unnoise.data.walk.os.scandir", guard)
    images, names = read(tmp_path)
    assert names == ["a.png"] and images.skipped == ("'private': Permission denied",)


def test_large_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JPEG is decoded at a scale that fits, whatever Pillow's own limit; other formats are refused with what to do."""
    monkeypatch.setattr("unnoise.data.decode.MAX_PIXELS", 30_000)
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 15_000)
    pixels = tiled(3, (240, 240))
    for name, format in (("a.jpg", "JPEG"), ("b.png", "PNG")):
        (tmp_path / name).write_bytes(encoded(pixels, format))
    images = ImageFolder(str(tmp_path)).read(Fit((40, 40)))
    truth = Fit((40, 40)).array(pixels[None])[0]
    assert len(images) == 1 and np.abs(images.pixels[0].astype(int) - truth).mean() < 3
    assert re.search(r"'b\.png': .*57600 pixels is more than 0 megapixels: save it smaller, or as a JPEG", images.skipped[0])
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", None)
    with pytest.raises(UserError, match=r"240x240 is more than 0 megapixels: save it smaller, or as a JPEG"):
        ImageFolder(str(tmp_path)).read(Fit())
