"""Which image a request means: one that was sent, or one of those that a run was trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unnoise.data.pixels import to_pil
from unnoise.restoration.files import read_file
from unnoise.studio.errors import Refusal
from unnoise.studio.models import Models
from unnoise.studio.requests import Fields
from unnoise.studio.uploads import Uploads

NUMBERS = 2**53


@dataclass(frozen=True)
class Picked:
    """An image by the id of its `upload`, or by its number in the run's `data`."""

    upload: str | None
    data: int | None

    @classmethod
    def read(cls, fields: Fields) -> "Picked":
        """Raises Refusal."""
        found = cls(fields.text("upload", None), fields.whole("data", 0, NUMBERS, None))
        fields.end()
        if (found.upload is None) == (found.data is None):
            raise Refusal(400, "an image is an `upload` or a number of the run's `data`: give one of them")
        return found

    def path(self, uploads: Uploads) -> Path | None:
        """Of its file, where it was sent. Raises Refusal where that is gone."""
        return None if self.upload is None else uploads.path(self.upload)

    def values(self, models: Models, run: str, uploads: Uploads) -> np.ndarray:
        """uint8 (H, W, 1 or 3), in its own size. Raises UserError."""
        path = self.path(uploads)
        if path is None:
            assert self.data is not None
            return models.images(run).read(self.data)[0]
        return read_file(path, models.load(run).info.recipe.data.fit).values

    def fitted(self, models: Models, run: str, uploads: Uploads) -> np.ndarray:
        """uint8 (H, W, C) at the size and with the channels of the run. Raises UserError."""
        path, model = self.path(uploads), models.load(run)
        if path is None:
            return self.values(models, run, uploads)
        return as_channels(model.read_pixels(path, fitted=True, any_channels=True), model.info.shape[0])


def as_channels(values: np.ndarray, channels: int) -> np.ndarray:
    """Grey (H, W, 1) as colour, or colour as its luma, where that is not so yet."""
    if values.shape[2] == channels:
        return values
    if channels == 3:
        return np.repeat(values, 3, axis=2)
    return np.asarray(to_pil(values).convert("L"))[..., None]
