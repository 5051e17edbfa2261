"""How images are brought to one size: cropped, squashed or padded."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from unnoise.data import levels
from unnoise.utils.errors import UserError, nearest

RESIZES = ("crop", "squash", "pad")


@dataclass(frozen=True)
class Fit:
    """How an image is brought to one `size` (height, width), antialiased: crop its middle, squash, or pad with black.

    None leaves the size as it is. Transparent places show the `background`, white or black. `range` are the values that
    become black and white, by default all that 8 or 16 bits hold; `bands`, counted from 1, are those taken as red, green and
    blue, or as grey.
    """

    size: tuple[int, int] | None = None
    resize: str = "crop"
    background: str = "white"
    range: levels.Range | None = None
    bands: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for kind, value, valid in (("resize", self.resize, RESIZES), ("background", self.background, ("white", "black"))):
            if value not in valid:
                raise UserError(f"unknown {kind} '{value}': {nearest(value, valid)}")
        if self.size is not None and min(self.size) < 1:
            raise UserError(f"the image size must be positive, not {self.size[0]}x{self.size[1]}")
        levels.check(self.bands, self.range)

    def __call__(self, image: Image.Image, extent: tuple[float, float] | None = None) -> Image.Image:
        """`extent` is the part (width, height) of the image that is valid, from its top left; by default all of it."""
        if self.size is None or (image.size == self.size[::-1] and extent is None):
            return image
        (w, h), to = extent or image.size, self.size[::-1]
        scale = self.scale(w, h)
        if self.resize == "pad":
            inner = max(1, round(w / scale)), max(1, round(h / scale))
            sheet = Image.new(image.mode, to)
            sheet.paste(_resample(image, inner, (0, 0, w, h)), ((to[0] - inner[0]) // 2, (to[1] - inner[1]) // 2))
            return sheet
        across, down = (to[0] * scale, to[1] * scale) if self.resize == "crop" else (w, h)
        return _resample(image, to, ((w - across) / 2, (h - down) / 2, (w + across) / 2, (h + down) / 2))

    def scale(self, width: float, height: float) -> float:
        """How many pixels of the original make one of the result; when squashed, along the side where they are fewer."""
        assert self.size is not None
        ratios = width / self.size[1], height / self.size[0]
        return max(ratios) if self.resize == "pad" else min(ratios)

    def array(self, pixels: np.ndarray) -> np.ndarray:
        """The same for uint8 (N, H, W, C). Raises UserError for bands or a range that it does not have."""
        try:
            pixels = levels.to_levels(levels.pick(pixels, self.bands) if self.bands else pixels, self.range)
        except ValueError as e:
            raise UserError(f"the array can't be taken so: {e}") from e
        if self.size is None or pixels.shape[1:3] == self.size:
            return pixels
        fitted = [self(Image.fromarray(p.squeeze(2) if p.shape[2] == 1 else p)) for p in pixels]
        return np.stack([np.asarray(p).reshape(*self.size, -1) for p in fitted])


def _resample(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, box=box)
