"""Sources by name or path, and what a recipe says of its data."""

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unnoise.data.arrays import Array, Digits, Idx, InMemory
from unnoise.data.dataset import ImageDataset, Source
from unnoise.data.fit import Fit
from unnoise.data.folder import ImageFolder
from unnoise.data.hub import Hub
from unnoise.data.kinds import ARCHIVES
from unnoise.data.levels import Range
from unnoise.data.tar import TarShards, expand
from unnoise.data.torchvision_sets import Cifar10, FashionMnist, FgvcAircraft, Mnist
from unnoise.utils.errors import AmbiguousName, UserError, nearest

SOURCES: dict[str, type[Source]] = {
    "digits": Digits,
    "fgvc-aircraft": FgvcAircraft,
    "fashion-mnist": FashionMnist,
    "mnist": Mnist,
    "cifar10": Cifar10,
    "folder": ImageFolder,
    "array": Array,
    "idx": Idx,
    "shards": TarShards,
    "hub": Hub,
    "memory": InMemory,
}


@dataclass(frozen=True)
class DataConfig:
    """Which images, at which size. `size` is (height, width) or None: the source's own, or as they are.

    `labels` uses the source's classes where it has them. `flip` mirrors half of the images in training; `augment` is the
    probability of each kind of augmentation that does not leak into samples (`unnoise.data.augment`), None: chosen when a run
    begins.
    `held_out` is the fraction held out of training where the source has no test split of its own. `range` are the values that
    become black and white, by default all that 8 or 16 bits hold; `bands`, counted from 1, those taken as red, green and blue,
    or as grey.
    """

    source: Source = field(default_factory=Digits)
    size: tuple[int, int] | None = None
    resize: str = "crop"
    background: str = "white"
    range: Range | None = None
    bands: tuple[int, ...] | None = None
    labels: bool = True
    flip: bool = False
    augment: float | None = 0.0
    held_out: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise UserError(f"the held-out fraction must be in [0, 1), not {self.held_out}")
        if not 0 <= (self.augment or 0.0) <= 1:
            raise UserError(f"augment is a probability between 0 and 1, not {self.augment}")
        self.fit  # noqa: B018  (refuses what it can't do)

    @property
    def fit(self) -> Fit:
        """How images are brought to one size."""
        own = self.source.size
        size = self.size or ((own, own) if isinstance(own, int) else own)
        return Fit(size, self.resize, self.background, self.range, self.bands)

    def load(self, cache: Path | None = None, rank: int = 0, world_size: int = 1) -> ImageDataset:
        """Read the source; files are decoded once into the folder `cache` (None: the user's own cache folder).

        Of shards `per_process`, only those of process `rank`. Raises UserError where there is nothing usable.
        """
        source, per_process = self.source if self.labels else self.source.without_labels(), False
        if isinstance(source, TarShards) and source.per_process and world_size > 1:
            source, per_process = replace(source, split=rank, splits=world_size), True
        images = replace(source.read(self.fit, cache), per_process=per_process)
        return images if self.labels else replace(images, labels=None, classes=())


NOT_BY_NAME = (ImageFolder, Array, Idx, TarShards, Hub, InMemory)


def as_source(data: Any) -> Source:
    """The source of whatever images a user gives in Python: a source, a name or path, a uint8 array, a Dataset or DataLoader.

    Raises UserError for anything else, and for what can be read only once.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, str | Path):
        return find_source(str(data))
    again = hasattr(data, "__iter__") and not hasattr(data, "__next__")
    sized = isinstance(data, ImageDataset) or (hasattr(data, "__len__") and hasattr(data, "__getitem__"))
    if isinstance(data, type | dict) or not (again or sized):
        kind = f"a {type(data).__name__}" if not isinstance(data, type) else f"the class {data.__name__}: give one of its objects"
        keys = f" of {', '.join(map(repr, data))}: give one of these" if isinstance(data, dict) else ""
        raise UserError(f"images are a path, a uint8 array, a source, or a Dataset or DataLoader of PyTorch, not {kind}{keys}")
    return InMemory(data)


def names() -> list[str]:
    """The sources that a name alone says all about."""
    return [name for name, source in SOURCES.items() if source not in NOT_BY_NAME]


def find_source(text: str) -> Source:
    """The source of this name, the folder or file at this path, or `hf:` and a data set of the hub.

    Warns with `AmbiguousName` where a file or folder is called as a data set. Raises UserError naming what comes nearest.
    """
    if text in names():
        if Path(text).exists():
            warnings.warn(AmbiguousName(f"'{text}' is the data set of that name, not the folder: ./{text} takes that"),
                          stacklevel=2)  # fmt: skip
        return SOURCES[text]()
    if text.startswith("hf:"):
        return Hub(text.removeprefix("hf:"))
    path = Path(text)
    if path.is_dir():
        return Idx(text) if any("idx3-ubyte" in p.name for p in path.iterdir()) else ImageFolder(text)
    if path.suffix.lower() in (".npz", ".npy") and path.is_file():
        return Array(text)
    if path.suffix.lower() == ".tar" and expand(text):
        return TarShards(text)
    if "idx3" in path.name and path.is_file():
        return Idx(text)
    if path.exists():
        packed = path.suffix.lower() in ARCHIVES
        raise UserError(f"'{text}' is no folder, .npz, .npy, .tar nor idx file: "
                        + ("unpack it and give that folder" if packed else "give the folder that holds your images"))  # fmt: skip
    hint = "check the path" if "/" in text or path.suffix else nearest(text, names())
    raise UserError(f"no data at '{text}' (neither a known data set nor a path): {hint}")
