"""Where pictures come from, by name or path, and how they are taken."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from unnoise.data.local import Digits, Folder, Npz
from unnoise.data.pictures import Fit, Pictures, Source
from unnoise.data.torchvision_sets import Cifar10, FashionMnist, FgvcAircraft, Mnist
from unnoise.errors import UserError, nearest

SOURCES: dict[str, type[Source]] = {
    "digits": Digits,
    "fgvc-aircraft": FgvcAircraft,
    "fashion-mnist": FashionMnist,
    "mnist": Mnist,
    "cifar10": Cifar10,
    "folder": Folder,
    "npz": Npz,
}


@dataclass(frozen=True)
class DataPlan:
    """Which pictures, in which shape. `size` is (height, width) or None: as they are.

    `labels` uses the source's classes where it has them. `flip` mirrors half of the pictures in training.
    `held_out` is the share kept away from training where the source has no test split of its own.
    """

    source: Source = field(default_factory=Digits)
    size: tuple[int, int] | None = None
    resize: str = "crop"
    labels: bool = True
    flip: bool = False
    held_out: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise UserError(f"the held-out share must be in [0, 1), not {self.held_out}")
        Fit(self.size, self.resize)  # refuses what it can't do

    def load(self) -> Pictures:
        """Read the source. Raises UserError where there is nothing usable."""
        pictures = self.source.read(Fit(self.size, self.resize))
        if len(pictures) == 0:
            raise UserError(f"{self.source} holds no pictures")
        return pictures if self.labels else replace(pictures, labels=None, classes=())


def find_source(text: str) -> Source:
    """The source of this name, or the folder or .npz at this path. Raises UserError naming what comes nearest."""
    if text in SOURCES and SOURCES[text] not in (Folder, Npz):
        return SOURCES[text]()
    path = Path(text)
    if path.is_dir():
        return Folder(text)
    if path.is_file() and path.suffix.lower() == ".npz":
        return Npz(text)
    if path.exists():
        raise UserError(f"'{text}' is neither a folder nor an .npz file: give the folder that holds your pictures")
    hint = "check the path" if "/" in text or path.suffix else nearest(text, SOURCES)
    raise UserError(f"no data at '{text}' (neither a known set, a folder, nor an .npz file): {hint}")
