"""What people call it: denoise, inpaint, upscale, deblur, colourise, dejpeg. Each says what was done to the picture.

A task gives, for what is seen, the operator, the values and the variance of their noise; and it can do the damage to a clean
picture, to try restoring out.
"""

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from unnoise import figures
from unnoise.data.pictures import Pictures
from unnoise.draws import PictureNoise
from unnoise.errors import UserError
from unnoise.restore.noise_level import GaussianNoise, Noise, salt_and_pepper, smoothed
from unnoise.restore.operators import BlockDCT, Blur, DecodedDCT, Downsample, Grey, Identity, Mask, Operator
from unnoise.restore.posterior import Observation

ORIENTATION = 0x0112  # the EXIF tag
ROUNDING = 0.5 / 127.5  # of 8 bits, generously: the least standard deviation that noise on [-1, 1] is given


@dataclass(frozen=True)
class Seen(Observation):
    """y (1, ...), and of what `size` (height, width) the picture behind it is."""

    size: tuple[int, int]


class Task(ABC):
    """One kind of damage. `noise` is what was added after it."""

    noise: Noise | None = None
    method: ClassVar[str] = "spectral"  # of POSTERIORS: the cheaper one, but where mmps was measured to be better

    @abstractmethod
    def operator(self) -> Operator:
        """What a clean picture went through."""

    def clean_size(self, seen: tuple[int, int]) -> tuple[int, int]:
        """Of the picture behind one of this (height, width)."""
        return seen

    def shown_size(self, seen: tuple[int, int]) -> tuple[int, int]:
        """What to show of it: all, but for what was only added to fill blocks."""
        return self.clean_size(seen)

    def damage(self, x: Tensor, noise: PictureNoise) -> Tensor:
        """A clean picture x (1, C, H, W), damaged; not clipped."""
        y = self.operator()(x)
        return y if self.noise is None else self.noise.add(y, noise)

    def see(self, y: Tensor) -> Seen:
        """A damaged picture y (1, C, h, w) as what it says of the clean one."""
        size = self.clean_size((y.shape[2], y.shape[3]))
        return Seen(y, self.operator(), self.variance(y), size)

    def variance(self, y: Tensor, kept: Tensor | None = None) -> Tensor:
        """Of the noise in what is seen, y, where `kept` says that anything is."""
        if self.noise is None:
            return torch.full_like(y, ROUNDING**2)
        rough = y if isinstance(self.noise, GaussianNoise) else smoothed(y, kept)
        return self.noise.variance(rough).clamp(min=ROUNDING**2)

    def check(self, y: Tensor) -> tuple[int, int]:
        """The size of the picture behind y (1, C, h, w). Raises UserError where y can't have come about like this."""
        seen = self.see(y)
        seen.operator(y.new_zeros(1, 3 if isinstance(self, Colourise) else y.shape[1], *seen.size))
        return seen.size


@dataclass(frozen=True)
class Denoise(Task):
    """Noise alone, of one of the kinds in `NOISES`."""

    noise: Noise | None = field(default_factory=GaussianNoise)

    def operator(self) -> Operator:
        return Identity()


@dataclass(frozen=True)
class SaltAndPepper(Task):
    """A `share` of all values is black or white instead; which ones is found, and they are filled in."""

    share: float = 0.1

    def operator(self) -> Operator:
        return Identity()

    def damage(self, x: Tensor, noise: PictureNoise) -> Tensor:
        hit, up = (torch.special.ndtr(noise.normal_like(x)) for _ in range(2))
        return torch.where(hit < self.share, torch.where(up < 0.5, -1.0, 1.0), x)

    def see(self, y: Tensor) -> Seen:
        whole = salt_and_pepper(y)
        size = (y.shape[2], y.shape[3])
        return Seen(y * whole, Mask(whole), torch.full_like(y, ROUNDING**2), size)


@dataclass(frozen=True)
class Inpaint(Task):
    """Pixels are missing where `kept` (H, W) is 0."""

    method: ClassVar[str] = "mmps"
    kept: Tensor
    noise: Noise | None = None

    def operator(self) -> Operator:
        return Mask(self.kept)

    def see(self, y: Tensor) -> Seen:
        operator = self.operator()
        return Seen(operator(y), operator, self.variance(y, self.kept), (y.shape[2], y.shape[3]))


@dataclass(frozen=True)
class Upscale(Task):
    """`factor` times fewer pixels on each side."""

    method: ClassVar[str] = "mmps"
    factor: int = 4
    kind: str = "bicubic"
    noise: Noise | None = None

    def operator(self) -> Operator:
        return Downsample(self.factor, self.kind)

    def __post_init__(self) -> None:
        if not 2 <= self.factor <= 16:
            raise UserError(f"pictures are made 2 to 16 times larger, not {self.factor}")

    def damage(self, x: Tensor, noise: PictureNoise) -> Tensor:
        if min(x.shape[2:]) < self.factor:
            raise UserError(f"a picture of {x.shape[2]}x{x.shape[3]} can't be made {self.factor} times smaller")
        return super().damage(x, noise)

    def clean_size(self, seen: tuple[int, int]) -> tuple[int, int]:
        return seen[0] * self.factor, seen[1] * self.factor


@dataclass(frozen=True)
class Deblur(Task):
    """Blurred by a Gaussian of `width` pixels or, with `length`, along a line at `degrees`."""

    width: float = 1.5
    length: float | None = None
    degrees: float = 0.0
    noise: Noise | None = None

    def operator(self) -> Operator:
        return Blur.gaussian(self.width) if self.length is None else Blur.motion(self.length, self.degrees)


@dataclass(frozen=True)
class Colourise(Task):
    """Only its luma is seen."""

    noise: Noise | None = None

    def operator(self) -> Operator:
        return Grey()

    def see(self, y: Tensor) -> Seen:
        return super().see(Grey()(y) if y.shape[1] == 3 else y)


@dataclass(frozen=True)
class Dejpeg(Task):
    """Coefficients were rounded to multiples of `tables` (8, 8), luma's first: uniform noise of variance step^2 / 12."""

    tables: tuple[np.ndarray, ...] = ()
    subsampled: bool = True

    @classmethod
    def of_quality(cls, quality: int, colour: bool) -> "Dejpeg":
        """The tables that libjpeg has for a quality from 1 to 95."""
        if not 1 <= quality <= 95:
            raise UserError(f"a JPEG's quality is a whole number from 1 to 95, not {quality}")
        data = io.BytesIO()
        Image.new("RGB" if colour else "L", (16, 16)).save(data, "jpeg", quality=quality)
        return cls.of_file(data)

    @classmethod
    def of_file(cls, file: Path | io.BytesIO) -> "Dejpeg":
        """The tables in a JPEG. Raises UserError for a file that is none."""
        try:
            with Image.open(file) as opened:
                parts = opened.layer  # type: ignore[attr-defined]  # (id, horizontal, vertical, table) of each channel
                known = [np.array(opened.quantization[part[3]], dtype=np.float64).reshape(8, 8) for part in parts]  # type: ignore[attr-defined]
                tables, factors = (known[0], known[-1]), [tuple(part[1:3]) for part in parts]
                coded = opened.mode == "L" or (opened.mode == "RGB" and [part[0] for part in parts] == [1, 2, 3])
                turned = opened.getexif().get(ORIENTATION, 1)
        except (AttributeError, OSError) as e:
            raise UserError(f"'{file}' is no JPEG file: it has no tables of how it was rounded; give --quality") from e
        if turned != 1:
            raise UserError(f"'{file}' is turned by its EXIF data: turn it without loss first, e.g. with exiftran -a")
        if not coded or factors[0] not in ((1, 1), (2, 2)) or any(f != (1, 1) for f in factors[1:]):
            raise UserError(f"'{file}' keeps its colours in another way than as luma and chroma, whole or halved on both sides: "
                            "save it as a PNG and try --task denoise")  # fmt: skip
        return cls(tables, factors[0] == (2, 2))

    def operator(self) -> Operator:
        return BlockDCT(self.subsampled)

    def clean_size(self, seen: tuple[int, int]) -> tuple[int, int]:
        unit = 16 if self.subsampled else 8
        return -(-seen[0] // unit) * unit, -(-seen[1] // unit) * unit

    def shown_size(self, seen: tuple[int, int]) -> tuple[int, int]:
        return seen

    def damage(self, x: Tensor, noise: PictureNoise) -> Tensor:
        pixels = figures.to_uint8(x)
        tables = [[int(v) for v in t.ravel()] for t in self.tables]
        data = io.BytesIO()
        figures.to_image(pixels[0]).save(data, "jpeg", qtables=tables, subsampling=2 if self.subsampled else 0)
        return Pictures(np.asarray(Image.open(data)).reshape(pixels.shape)).tensor().to(x)

    def see(self, y: Tensor) -> Seen:
        h, w = y.shape[2:]
        size = self.clean_size((h, w))
        wider = functional.pad(y, (0, size[1] - w, 0, size[0] - h), mode="replicate")
        operator, decoded = self.operator(), DecodedDCT(self.subsampled)
        steps = decoded.steps(list(self.tables), y.shape[1], size).to(y)
        # JPEG counts from 128, this from 127.5: half a level in the mean of each block of luma, which is 8 times a pixel.
        shift = torch.zeros_like(steps)
        shift[: size[0] * size[1] : 64] = 4 / 127.5
        rounded = ((decoded(wider) - shift) / steps).round() * steps + shift
        return Seen(rounded, operator, (steps.square() / 12)[None], size)


TASKS: dict[str, type[Task]] = {
    "denoise": Denoise,
    "salt-and-pepper": SaltAndPepper,
    "inpaint": Inpaint,
    "upscale": Upscale,
    "deblur": Deblur,
    "colourise": Colourise,
    "dejpeg": Dejpeg,
}
