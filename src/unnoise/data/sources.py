"""Where pictures come from, by name or path, and how they are taken."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from unnoise.data.decode import Fit
from unnoise.data.hub import Hub
from unnoise.data.local import Array, Digits, Folder, Idx
from unnoise.data.pictures import Pictures, Source
from unnoise.data.shards import Shards, expand
from unnoise.data.torchvision_sets import Cifar10, FashionMnist, FgvcAircraft, Mnist
from unnoise.errors import UserError, nearest

SOURCES: dict[str, type[Source]] = {
    "digits": Digits,
    "fgvc-aircraft": FgvcAircraft,
    "fashion-mnist": FashionMnist,
    "mnist": Mnist,
    "cifar10": Cifar10,
    "folder": Folder,
    "array": Array,
    "idx": Idx,
    "shards": Shards,
    "hub": Hub,
}


@dataclass(frozen=True)
class DataPlan:
    """Which pictures, in which shape. `size` is (height, width) or None: as they are.

    `labels` uses the source's classes where it has them. `flip` mirrors half of the pictures in training; `augment` is the
    probability of each kind of change that does not leak into samples (`unnoise.data.augment`).
    `held_out` is the share kept away from training where the source has no test split of its own.
    """

    source: Source = field(default_factory=Digits)
    size: tuple[int, int] | None = None
    resize: str = "crop"
    background: str = "white"
    labels: bool = True
    flip: bool = False
    augment: float = 0.0
    held_out: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise UserError(f"the held-out share must be in [0, 1), not {self.held_out}")
        if not 0 <= self.augment <= 1:
            raise UserError(f"augment is a probability between 0 and 1, not {self.augment}")
        self.fit  # noqa: B018  (refuses what it can't do)

    @property
    def fit(self) -> Fit:
        """How pictures come to one size."""
        return Fit(self.size, self.resize, self.background)

    def load(self, cache: Path | None = None, part: int = 0, parts: int = 1) -> Pictures:
        """Read the source; files are decoded once into the folder `cache` (None: the user's own cache folder).

        Of shards to `divide`, only this part of so many. Raises UserError where there is nothing usable.
        """
        source, divided = self.source, False
        if isinstance(source, Shards) and source.divide and parts > 1:
            source, divided = replace(source, part=part, parts=parts), True
        pictures = replace(source.read(self.fit, cache), divided=divided)
        return pictures if self.labels else replace(pictures, labels=None, classes=())


NEED_A_PATH = (Folder, Array, Idx, Shards, Hub)


def find_source(text: str) -> Source:
    """The source of this name, the folder or file at this path, or `hf:` and a set of the hub.

    Raises UserError naming what comes nearest.
    """
    if text in SOURCES and SOURCES[text] not in NEED_A_PATH:
        return SOURCES[text]()
    if text.startswith("hf:"):
        return Hub(text.removeprefix("hf:"))
    path = Path(text)
    if path.is_dir():
        return Idx(text) if any("idx3-ubyte" in p.name for p in path.iterdir()) else Folder(text)
    if path.suffix.lower() in (".npz", ".npy") and path.is_file():
        return Array(text)
    if path.suffix.lower() == ".tar" and expand(text):
        return Shards(text)
    if "idx3" in path.name and path.is_file():
        return Idx(text)
    if path.exists():
        raise UserError(f"'{text}' is no folder, .npz, .npy, .tar nor idx file: give the folder that holds your pictures")
    hint = (
        "check the path" if "/" in text or path.suffix else nearest(text, [n for n, s in SOURCES.items() if s not in NEED_A_PATH])
    )
    raise UserError(f"no data at '{text}' (neither a known set nor a path): {hint}")
