"""Sources on the user's own disk: a folder, an .npz, and the digits that scikit-learn carries.

Nothing that a source holds is executed: arrays that need unpickling are refused.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unnoise.data.pictures import Fit, Pictures, Source, open_picture, read_files, read_size
from unnoise.errors import UserError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


@dataclass(frozen=True)
class Digits(Source):
    """scikit-learn's 1,797 handwritten digits (UCI), 8x8 grey, embedded in that package."""

    def read(self, fit: Fit) -> Pictures:
        from sklearn.datasets import load_digits

        raw = load_digits()
        pixels = np.round(raw.images / 16 * 255).astype(np.uint8)
        return Pictures(fit.array(pixels[..., None]), raw.target.astype(np.int64), tuple("0123456789"))


@dataclass(frozen=True)
class Npz(Source):
    """The first array of an .npz (or `images`/`x`): uint8 (N, H, W) or (N, H, W, 1 or 3); labels from `labels`/`y`."""

    path: str = ""

    def read(self, fit: Fit) -> Pictures:
        pixels, labels = self._arrays()
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
            raise UserError(f"'{self.path}' holds {pixels.dtype} of shape {pixels.shape}: pictures must be uint8 "
                            "of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3)")  # fmt: skip
        pixels = fit.array(pixels)
        if labels is None:
            return Pictures(pixels)
        if labels.shape != (len(pixels),):
            raise UserError(f"'{self.path}' has labels of shape {labels.shape} for {len(pixels)} pictures: give one each")
        names, index = np.unique(labels, return_inverse=True)
        return Pictures(pixels, index.astype(np.int64), tuple(str(n) for n in names))

    def _arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                names = file.files
                if not names:
                    raise UserError(f"'{self.path}' holds no array")
                pixels = file[next((n for n in ("images", "x") if n in names), names[0])]
                key = next((n for n in ("labels", "y") if n in names), None)
                return pixels, None if key is None else file[key]
        except UserError:
            raise
        except Exception as e:
            raise UserError(f"'{self.path}' can't be read as an .npz of plain arrays ({e}): "
                            "save it with numpy.savez(file, images=array)") from e  # fmt: skip


@dataclass(frozen=True)
class Folder(Source):
    """Every picture below a folder, in the order of their paths."""

    path: str = ""

    def read(self, fit: Fit) -> Pictures:
        root = Path(self.path)
        if not root.is_dir():
            raise UserError(f"no folder '{root}': give the folder that holds your pictures")
        files = sorted(p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
        if not files:
            raise UserError(f"no pictures in '{root}': looked for {', '.join(sorted(EXTENSIONS))} in it and below")
        fit = fit if fit.size else replace(fit, size=read_size(files))
        pixels, _, skipped = read_files(files, lambda path: fit(open_picture(path)), self.path)
        return Pictures(pixels, skipped=skipped)
