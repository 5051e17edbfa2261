"""Published sets, in trees that are made here in the layout of the real ones."""

import gzip
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image

from tests.data.files import idx
from unnoise.data.arrays import Idx
from unnoise.data.dataset import split
from unnoise.data.fit import Fit
from unnoise.data.sources import DataConfig
from unnoise.data.torchvision_sets import Cifar10, FashionMnist, FgvcAircraft, Mnist
from unnoise.utils.errors import UserError

SIZE = (60, 100)  # of every image: height (with 20 pixels of banner) and width
NAMES = [("F-16A/B", "F-16", "Lockheed Martin"), ("707-320", "Boeing 707", "Boeing")]  # one a level


@pytest.fixture
def fgvc(tmp_path: Path) -> Path:
    """Eight images: body of one colour, in it a box of another, below them a white banner."""
    data = tmp_path / "fgvc-aircraft-2013b" / "data"
    (data / "images").mkdir(parents=True)
    lines: dict[str, list[str]] = {}
    boxes = []
    for k in range(8):
        name = f"{k:07d}"
        image = np.full((*SIZE, 3), 255, dtype=np.uint8)
        image[:40] = (10 * k, 0, 100)
        image[10:30, 0:50] = (200, 10 * k, 0)
        Image.fromarray(image).save(data / "images" / f"{name}.jpg", quality=100, subsampling=0)
        boxes.append(f"{name} {0 if k == 0 else 1} 11 50 30")  # called 1-based, yet 0 occurs
        part = "trainval" if k < 5 else "test"
        lines.setdefault(f"images_{part}", []).append(name)
        for level, label in zip(FgvcAircraft.levels, NAMES[k % 2], strict=True):
            lines.setdefault(f"images_{level}_{part}", []).append(f"{name} {label}")
    for column, file in enumerate(("variants", "families", "manufacturers")):
        lines[file] = [row[column] for row in NAMES]
    lines["images_box"] = boxes
    for file, rows in lines.items():
        (data / f"{file}.txt").write_text("\n".join(rows))  # no final newline
    return tmp_path


def test_fgvc_splits_labels_and_banner(fgvc: Path) -> None:
    images = DataConfig(FgvcAircraft(str(fgvc)), size=(20, 50), resize="squash").load()
    parts = split(images, 0.1)
    assert len(parts.train) == 5 and len(parts.held_out) == 3
    assert images.classes == ("F-16A/B", "707-320")
    assert images.labels is not None and list(images.labels) == [0, 1] * 4
    bottom = images.pixels[:, -1, 40].astype(int)
    assert np.abs(bottom - [[10 * k, 0, 100] for k in range(8)]).max() < 12  # the body, not the banner
    kept = FgvcAircraft(str(fgvc), cut_banner=False).read(Fit((60, 100)))
    assert kept.pixels[:, -1].min() > 240
    assert FgvcAircraft(str(fgvc)).read(Fit()).shape == (3, 40, 100)


@pytest.mark.parametrize(
    ("level", "classes"), [("family", ("F-16", "Boeing 707")), ("manufacturer", ("Lockheed Martin", "Boeing"))]
)
def test_fgvc_levels(fgvc: Path, level: str, classes: tuple[str, ...]) -> None:
    assert FgvcAircraft(str(fgvc), level=level).read(Fit()).classes == classes


def test_fgvc_boxes(fgvc: Path) -> None:
    """Columns 1..50 and rows 11..30, both ends inside, and nothing of the body around."""
    images = FgvcAircraft(str(fgvc), crop_to_box=True).read(Fit((20, 50)))
    whole = np.array([[200, 10 * k, 0] for k in range(8)])[:, None, None, :]
    assert np.abs(images.pixels.astype(int)[:, 2:-2, 2:-2] - whole).max() < 12
    assert images.shape == (3, 20, 50)


def test_fgvc_union_holds_nothing_out(fgvc: Path) -> None:
    parts = split(DataConfig(FgvcAircraft(str(fgvc), union=True)).load(), 0.1)
    assert len(parts.train) == 8 and len(parts.held_out) == 0


def test_fgvc_skips_a_broken_image_with_its_reason(fgvc: Path) -> None:
    path = fgvc / "fgvc-aircraft-2013b" / "data" / "images" / "0000001.jpg"
    path.write_bytes(path.read_bytes()[:400])
    images = FgvcAircraft(str(fgvc)).read(Fit((16, 16)))
    assert len(images) == 7 and "0000001.jpg" in images.skipped[0]
    assert images.labels is not None and list(images.labels) == [0, 0, 1, 0, 1, 0, 1]
    assert images.test is not None and list(images.test) == [False] * 4 + [True] * 3


def test_fgvc_mistakes(fgvc: Path, tmp_path: Path) -> None:
    data = fgvc / "fgvc-aircraft-2013b" / "data"
    source = FgvcAircraft(str(fgvc))
    with pytest.raises(UserError, match=r"data\.source\.root, the folder that holds it, or set data\.source\.download.*tar\.gz"):
        FgvcAircraft(str(tmp_path / "elsewhere")).read(Fit())
    with pytest.raises(UserError, match="did you mean 'family'"):
        replace(source, level="famly")
    boxes = (data / "images_box.txt").read_text()
    for wrong in ("0000001 1 2 three 4", boxes.replace("0000003", "9999999")):
        (data / "images_box.txt").write_text(wrong)
        with pytest.raises(UserError, match=r"without data\.source\.crop_to_box"):
            replace(source, crop_to_box=True).read(Fit((8, 8)))
    (data / "images" / "0000006.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 8 images that are missing, the first '.*0000006\.jpg'"):
        source.read(Fit())
    (data / "manufacturers.txt").unlink()
    with pytest.raises(UserError, match=r"manufacturers\.txt"):
        replace(source, level="manufacturer").read(Fit())


def test_a_half_downloaded_archive(tmp_path: Path) -> None:
    """It is named, nothing half unpacked is left, and the file itself is not ours to remove."""
    archive = tmp_path / "fgvc-aircraft-2013b.tar.gz"
    archive.write_bytes(gzip.compress(b"x" * 10_000)[:20])
    with pytest.raises(UserError, match=r"remove '.*tar\.gz' if it is incomplete"):
        FgvcAircraft(str(tmp_path), download=True).read(Fit())
    assert [p.name for p in tmp_path.iterdir()] == [archive.name]


@pytest.mark.parametrize("source", [FgvcAircraft, FashionMnist, Mnist, Cifar10])
def test_a_download_that_fails(source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(UserError, match=r"(no route to host|Error downloading).*fetch http"):
        source(str(tmp_path), download=True).read(Fit())
    assert not (tmp_path / source.folder).exists()


@pytest.mark.parametrize("source", [FashionMnist, Mnist])
def test_mnist_layout(source: Any, tmp_path: Path) -> None:
    raw = tmp_path / source.folder / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 28, 28), dtype=np.uint8)
    for name, part in (("train", slice(0, 6)), ("t10k", slice(6, 9))):
        (raw / f"{name}-images-idx3-ubyte").write_bytes(idx(pixels[part]))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(idx(np.arange(9)[part]))
    images = source(str(tmp_path)).read(Fit())
    assert np.array_equal(images.pixels[..., 0], pixels)
    assert images.labels is not None and list(images.labels) == list(range(9)) and len(images.classes) == 10
    assert len(split(images, 0.5).held_out) == 3
    with pytest.raises(UserError, match=f"but idx files: `data` {raw} trains on these"):  # the folder of the files themselves
        source(str(raw)).read(Fit())
    assert sorted(Idx(str(raw)).read(Fit()).pixels.sum((1, 2, 3))) == sorted(images.pixels.sum((1, 2, 3)))


def write_cifar(root: Path) -> np.ndarray:
    """Three images to train on and one held out; gives their pixels (N, C, H, W)."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    (folder / "data_batch_1").write_bytes(pickle.dumps({"data": pixels[:3].reshape(3, -1), "labels": [3, 1, 4]}))
    (folder / "test_batch").write_bytes(pickle.dumps({"data": pixels[3:].reshape(1, -1), "labels": [9]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    return pixels


def declare_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pickles are opened only where their checksums fit: declare the sums of those in `root`."""

    def digest(name: str) -> str:
        from torchvision.datasets.utils import calculate_md5

        return str(calculate_md5(root / "cifar-10-batches-py" / name))

    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [("data_batch_1", digest("data_batch_1"))])
    monkeypatch.setattr(cifar, "test_list", [("test_batch", digest("test_batch"))])
    monkeypatch.setattr(cifar, "meta", {"filename": "batches.meta", "key": "label_names", "md5": digest("batches.meta")})


def test_cifar_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_cifar(tmp_path)
    with pytest.raises(UserError, match="corrupted"):
        Cifar10(str(tmp_path)).read(Fit())
    declare_cifar(tmp_path, monkeypatch)
    images = Cifar10(str(tmp_path)).read(Fit())
    assert np.array_equal(images.pixels, pixels.transpose(0, 2, 3, 1))
    assert images.labels is not None and list(images.labels) == [3, 1, 4, 9]
    assert images.test is not None and list(images.test) == [False, False, False, True]
