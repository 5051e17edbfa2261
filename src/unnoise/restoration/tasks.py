"""Restoration tasks by their names: denoise, inpaint, upscale, deblur, colourise, dejpeg, salt and pepper.

A task turns a degraded image into a measurement (operator, values, variance of their noise), and degrades a clean image, to try
restoration out.
"""

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from unnoise.data.pixels import HALF_RANGE, from_uint8, to_pil, to_uint8
from unnoise.restoration.noise import ROUNDING, GaussianNoise, Noise, salt_and_pepper_mask
from unnoise.restoration.operators import BlockDCT, Blur, DecodedDCT, Downsample, Grey, Identity, Mask, Operator
from unnoise.restoration.posteriors import Measurement
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng

ORIENTATION = 0x0112  # the EXIF tag
Size = tuple[int, int]  # height, width


class Task(ABC):
    """One kind of degradation. `noise` is what was added after it."""

    noise: Noise | None = None

    @abstractmethod
    def operator(self) -> Operator:
        """The degradation of a clean image, without noise."""

    def clean_size(self, degraded: Size) -> Size:
        """Of the image behind a degraded one of this size."""
        return self.operator().image_size(degraded)

    def shown_size(self, degraded: Size) -> Size:
        """Of the part of it to show: without what only fills up blocks."""
        return self.clean_size(degraded)

    def degraded_size(self, clean: Size) -> Size:
        """Of a clean image of this size, degraded. Raises UserError where it can't be."""
        return clean

    def degrade(self, x: Tensor, rng: BatchRng) -> Tensor:
        """A clean image x (1, C, H, W), degraded; not clipped."""
        y = self.operator()(x)
        return y if self.noise is None else self.noise.add(y, rng)

    def measure(self, y: Tensor) -> Measurement:
        """What a degraded image y (1, C, h, w) says of the clean one."""
        return Measurement.of(y, self.operator(), self.noise)

    def check(self, channels: int, size: Size) -> Size:
        """The size of the image behind a degraded one of these `channels` and `size`. Raises UserError where it can't exist."""
        clean = self.clean_size(size)
        self.operator()(torch.empty(1, channels, *clean, device="meta"))
        return clean


@dataclass(frozen=True)
class Denoise(Task):
    """Noise alone, of one of the kinds in `NOISES`."""

    noise: Noise | None = field(default_factory=GaussianNoise)

    def operator(self) -> Operator:
        return Identity()


@dataclass(frozen=True)
class SaltAndPepper(Task):
    """A `fraction` of all values is replaced by black or white; they are detected and filled in."""

    fraction: float = 0.1

    def operator(self) -> Operator:
        return Identity()

    def degrade(self, x: Tensor, rng: BatchRng) -> Tensor:
        hit, up = (torch.special.ndtr(rng.normal_like(x)) for _ in range(2))
        return torch.where(hit < self.fraction, torch.where(up < 0.5, -1.0, 1.0), x)

    def measure(self, y: Tensor) -> Measurement:
        mask = salt_and_pepper_mask(y)
        return Measurement(y * mask, Mask(mask), torch.full_like(y, ROUNDING**2), (y.shape[1], y.shape[2], y.shape[3]))


@dataclass(frozen=True)
class Inpaint(Task):
    """Pixels are missing where `mask` (H, W) is 0."""

    mask: Tensor
    noise: Noise | None = None

    def operator(self) -> Operator:
        return Mask(self.mask)


@dataclass(frozen=True)
class Upscale(Task):
    """`factor` times fewer pixels on each side."""

    factor: int = 4
    kind: str = "bicubic"
    noise: Noise | None = None

    def operator(self) -> Operator:
        return Downsample(self.factor, self.kind)

    def __post_init__(self) -> None:
        if not 2 <= self.factor <= 16:
            raise UserError(f"images are made 2 to 16 times larger, not {self.factor}")

    def degraded_size(self, clean: Size) -> Size:
        if min(clean) < self.factor:
            raise UserError(f"an image of {clean[0]}x{clean[1]} can't be made {self.factor} times smaller")
        return clean[0] // self.factor, clean[1] // self.factor


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
    """Only its luma is known."""

    noise: Noise | None = None

    def operator(self) -> Operator:
        return Grey()

    def measure(self, y: Tensor) -> Measurement:
        return Measurement.of(Grey()(y) if y.shape[1] == 3 else y, self.operator(), self.noise, channels=3)

    def check(self, channels: int, size: Size) -> Size:
        return super().check(3, size)


@dataclass(frozen=True)
class Dejpeg(Task):
    """Coefficients were rounded to multiples of `tables` (8, 8), luma's first: uniform noise of variance step^2 / 12."""

    tables: tuple[np.ndarray, ...] = ()
    subsampled: bool = True

    @classmethod
    def of_quality(cls, quality: int, colour: bool) -> "Dejpeg":
        """The tables of libjpeg for a quality from 1 to 95."""
        if not 1 <= quality <= 95:
            raise UserError(f"a JPEG's quality is a whole number from 1 to 95, not {quality}")
        data = io.BytesIO()
        Image.new("RGB" if colour else "L", (16, 16)).save(data, "jpeg", quality=quality)
        return cls.of_file(data)

    @classmethod
    def of_file(cls, file: Path | io.BytesIO) -> "Dejpeg":
        """The tables in a JPEG. Raises UserError for a file that is none."""
        try:
            with Image.open(file, formats=("JPEG", "MPO")) as opened:
                parts = opened.layer  # type: ignore[attr-defined]  # (id, horizontal, vertical, table) of each channel
                known = [np.array(opened.quantization[part[3]], dtype=np.float64).reshape(8, 8) for part in parts]  # type: ignore[attr-defined]
                tables, factors = (known[0], known[-1]), [tuple(part[1:3]) for part in parts]
                coded = opened.mode == "L" or (opened.mode == "RGB" and [part[0] for part in parts] == [1, 2, 3])
                turned = opened.getexif().get(ORIENTATION, 1)
        except Exception as e:  # a broken file fails in many ways
            raise UserError(f"'{file}' is no JPEG file: it has no quantisation tables; give its `quality`") from e
        if turned != 1:
            raise UserError(f"'{file}' is turned by its EXIF data: turn it without loss first, e.g. with exiftran -a")
        if not coded or factors[0] not in ((1, 1), (2, 2)) or any(f != (1, 1) for f in factors[1:]):
            raise UserError(f"'{file}' keeps its colours in another way than as luma and chroma, whole or halved on both sides: "
                            "save it as a PNG and try the task denoise")  # fmt: skip
        return cls(tables, factors[0] == (2, 2))

    def operator(self) -> Operator:
        return BlockDCT(self.subsampled)

    def clean_size(self, degraded: Size) -> Size:
        unit = 16 if self.subsampled else 8
        return -(-degraded[0] // unit) * unit, -(-degraded[1] // unit) * unit

    def shown_size(self, degraded: Size) -> Size:
        return degraded

    def degrade(self, x: Tensor, rng: BatchRng) -> Tensor:
        pixels = to_uint8(x)
        tables = [[int(v) for v in t.ravel()] for t in self.tables]
        data = io.BytesIO()
        to_pil(pixels[0]).save(data, "jpeg", qtables=tables, subsampling=2 if self.subsampled else 0)
        return from_uint8(np.asarray(Image.open(data)).reshape(pixels.shape)).to(x)

    def measure(self, y: Tensor) -> Measurement:
        h, w = y.shape[2:]
        size = self.clean_size((h, w))
        padded = functional.pad(y, (0, size[1] - w, 0, size[0] - h), mode="replicate")
        operator, decoded = self.operator(), DecodedDCT(self.subsampled)
        steps = decoded.steps(list(self.tables), y.shape[1], size).to(y)
        # JPEG counts from 128, this from 127.5: half a level in the mean of each block of luma, which is 8 times a pixel.
        shift = torch.zeros_like(steps)
        shift[: size[0] * size[1] : 64] = 4 / HALF_RANGE
        rounded = ((decoded(padded) - shift) / steps).round() * steps + shift
        return Measurement(rounded, operator, (steps.square() / 12)[None], (y.shape[1], *size))


TASKS: dict[str, type[Task]] = {
    "denoise": Denoise,
    "salt-and-pepper": SaltAndPepper,
    "inpaint": Inpaint,
    "upscale": Upscale,
    "deblur": Deblur,
    "colourise": Colourise,
    "dejpeg": Dejpeg,
}
