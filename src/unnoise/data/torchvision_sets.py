"""Published data sets, read through torchvision. Their own test images are held out."""

import functools
import shutil
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from unnoise.data.cache import Listing, read_listing
from unnoise.data.dataset import ImageDataset, Source
from unnoise.data.fit import Fit
from unnoise.utils.errors import UserError, nearest

Box = tuple[int, int, int, int]  # left, top, right, bottom
BANNER = 20  # pixels: of the copyright line below every FGVC image


@dataclass(frozen=True)
class _Published(Source):
    """`root` is the folder that holds (or, with `download`, will hold) the set as torchvision lays it out."""

    root: str = "data"
    download: bool = False

    folder: ClassVar[str]  # below the root
    archive: ClassVar[str]  # where people can fetch it themselves

    def _open(self, make: Callable[[], Any]) -> Any:
        """Let torchvision open (and fetch) the set; whatever stands in the way is said in one sentence."""
        root, there = Path(self.root), (Path(self.root) / self.folder).exists()
        if not there and not self.download:
            if any(root.glob("train-images-idx3-ubyte*")):
                raise UserError(f"no '{self.folder}' in '{root}', but idx files: `data` {root} trains on these as they are")
            raise UserError(
                f"no '{self.folder}' in '{root}': give data.source.root, the folder that holds it, or set "
                f"data.source.download; it is {self.archive}"
            )
        try:
            return make()
        except BaseException as e:  # URLError, OSError, RuntimeError, EOFError, KeyError, ...: each library has its own
            if not there:  # unpacked only in part, it would look whole the next time
                shutil.rmtree(root / self.folder, ignore_errors=True)
            if not isinstance(e, Exception):  # Ctrl-C
                raise
            archive = root / Path(self.archive).name
            first = f"remove '{archive}' if it is incomplete, or " if archive.is_file() else ""
            wrong = f"{type(e).__name__}: {e}".splitlines()[0]
            raise UserError(f"can't read '{self.folder}' in '{root}' ({wrong}): {first}fetch {self.archive} yourself and "
                            f"unpack it so that '{root / self.folder}' is whole")  from e  # fmt: skip


@dataclass(frozen=True)
class FgvcAircraft(_Published):
    """FGVC-Aircraft 2013b (Maji et al. 2013): 6,667 images to train on, 3,333 held out; labels at three levels.

    `level` is variant, family or manufacturer. `cut_banner` cuts the copyright line, `crop_to_box` all outside of the
    official box. `union` trains on both splits together, as the notebook does, and holds nothing out.
    """

    level: str = "variant"
    cut_banner: bool = True
    crop_to_box: bool = False
    union: bool = False

    folder: ClassVar[str] = "fgvc-aircraft-2013b"
    archive: ClassVar[str] = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz"
    levels: ClassVar[tuple[str, ...]] = ("variant", "family", "manufacturer")

    def __post_init__(self) -> None:
        if self.level not in self.levels:
            raise UserError(f"unknown level '{self.level}': {nearest(self.level, self.levels)}")

    def read(self, fit: Fit, cache: Path | None = None) -> ImageDataset:
        from torchvision.datasets import FGVCAircraft

        if self.crop_to_box and fit.size is None:
            raise UserError("the boxes have many sizes: say which to train at, e.g. data.size 64")

        def split(name: str) -> Any:
            # The loader only hands the path on: decoding is ours.
            return FGVCAircraft(self.root, name, self.level, download=self.download, loader=Path)

        trainval, test = self._open(lambda: (split("trainval"), split("test")))
        entries = [entry for part in (trainval, test) for entry in (part[k] for k in range(len(part)))]
        files = [path for path, _ in entries]
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise UserError(f"the annotations name {len(missing)} of {len(files)} images that are missing, the first "
                            f"'{missing[0]}': unpack {self.archive} again")  # fmt: skip
        boxes: dict[str, Box] = {}
        crop: Callable[[int, Image.Image], Image.Image] | None = None
        if self.crop_to_box:
            boxes = self._boxes(files)
            crop = functools.partial(_crop_box, [boxes[f.stem] for f in files])
        elif self.cut_banner:
            crop = _cut_banner
        stamps = [f"{f.stat().st_size} {f.stat().st_mtime_ns} {boxes.get(f.stem, self.cut_banner)}" for f in files]
        labels = np.array([label for _, label in entries], dtype=np.int64)
        is_test = (np.arange(len(files)) >= len(trainval)) & (not self.union)
        listing = Listing(self.root, [f.name for f in files], files.__getitem__, stamps, labels, tuple(trainval.classes),
                          is_test, crop)  # fmt: skip
        return read_listing(listing, fit, cache)

    def _boxes(self, files: list[Path]) -> dict[str, Box]:
        """Identifier to box, for all of the files."""
        path = Path(self.root) / self.folder / "data" / "images_box.txt"
        boxes = {}
        try:
            for line in path.read_text().splitlines():
                name, *corners = line.split()
                left, top, right, bottom = (int(c) for c in corners)
                boxes[name] = left, top, right, bottom
            if without := [file.name for file in files if file.stem not in boxes]:
                raise ValueError(f"none for {without[0]}")
        except (OSError, ValueError) as e:
            raise UserError(f"the boxes in '{path}' can't be read ({e}): train without data.source.crop_to_box") from e
        return boxes


def _cut_banner(k: int, image: Image.Image) -> Image.Image:
    return image.crop((0, 0, image.width, max(1, image.height - BANNER)))


def _crop_box(boxes: list[Box], k: int, image: Image.Image) -> Image.Image:
    """To box k: said to be 1-based with both ends inside, yet 0 occurs, and some reach beyond the image."""
    left, top, right, bottom = boxes[k]
    return image.crop((max(0, left - 1), max(0, top - 1), min(right, image.width), min(bottom, image.height)))


@dataclass(frozen=True)
class _Arrays(_Published):
    """A set that torchvision holds as arrays."""

    side: ClassVar[int]

    def own_size(self) -> tuple[int, int] | None:
        return self.side, self.side

    @abstractmethod
    def _make(self, train: bool) -> Any:
        """torchvision's own object for one of the two splits."""

    def read(self, fit: Fit, cache: Path | None = None) -> ImageDataset:
        train, test = self._open(lambda: (self._make(True), self._make(False)))
        pixels = np.concatenate([np.asarray(part.data) for part in (train, test)])
        pixels = pixels[..., None] if pixels.ndim == 3 else pixels
        labels = np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in (train, test)])
        return ImageDataset(fit.array(pixels), labels, tuple(train.classes), test=np.arange(len(pixels)) >= len(train))


@dataclass(frozen=True)
class FashionMnist(_Arrays):
    """Fashion-MNIST (Xiao et al. 2017): 60,000 grey 28x28 images of clothes in 10 classes, 10,000 held out."""

    folder: ClassVar[str] = "FashionMNIST"
    side: ClassVar[int] = 28
    archive: ClassVar[str] = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com (four .gz files, to unpack into FashionMNIST/raw)"
    )

    def _make(self, train: bool) -> Any:
        from torchvision.datasets import FashionMNIST

        return FashionMNIST(self.root, train, download=self.download)


@dataclass(frozen=True)
class Mnist(_Arrays):
    """MNIST (LeCun et al. 1998): 60,000 grey 28x28 handwritten digits, 10,000 held out."""

    folder: ClassVar[str] = "MNIST"
    side: ClassVar[int] = 28
    archive: ClassVar[str] = "https://ossci-datasets.s3.amazonaws.com/mnist (four .gz files, to unpack into MNIST/raw)"

    def _make(self, train: bool) -> Any:
        from torchvision.datasets import MNIST

        return MNIST(self.root, train, download=self.download)


@dataclass(frozen=True)
class Cifar10(_Arrays):
    """CIFAR-10 (Krizhevsky 2009): 50,000 colour 32x32 images in 10 classes, 10,000 held out.

    Its files are pickles: torchvision opens them only if their published checksums fit.
    """

    folder: ClassVar[str] = "cifar-10-batches-py"
    side: ClassVar[int] = 32
    archive: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"

    def _make(self, train: bool) -> Any:
        from torchvision.datasets import CIFAR10

        return CIFAR10(self.root, train, download=self.download)
