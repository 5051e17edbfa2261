"""Where pictures come from: a name or a path to `Pictures`, uint8 in memory.

A source is the name of a set (`digits`), a folder of pictures (searched recursively) or an `.npz` file. Nothing that a
source holds is executed: arrays that need unpickling are refused.
"""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from unnoise.errors import UserError, nearest

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
RESIZES = ("crop", "squash", "pad")


@dataclass(frozen=True)
class Pictures:
    """`pixels` uint8 (N, H, W, C); `labels` int64 (N,) or None, and their names; files skipped, with the reason."""

    pixels: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 4 and self.pixels.dtype == np.uint8, (self.pixels.shape, self.pixels.dtype)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width), as networks count."""
        _, h, w, c = self.pixels.shape
        return c, h, w

    def where(self, mask: np.ndarray) -> "Pictures":
        """The pictures at the true places of `mask` (N,)."""
        labels = None if self.labels is None else self.labels[mask]
        return Pictures(self.pixels[mask], labels, self.classes, self.skipped)

    def fingerprint(self) -> str:
        """A short hash of every pixel and label."""
        digest = hashlib.blake2b(repr(self.pixels.shape).encode(), digest_size=8)
        digest.update(self.pixels.tobytes())
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class DataPlan:
    """Which pictures, in which shape. `size` is (height, width) or None: as they are.

    `labels` uses the source's classes where it has them. `flip` mirrors half of the pictures in training.
    `held_out` is the share kept away from training.
    """

    source: str = "digits"
    size: tuple[int, int] | None = None
    resize: str = "crop"
    labels: bool = True
    flip: bool = False
    held_out: float = 0.1

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise UserError(f"unknown resize '{self.resize}': {nearest(self.resize, RESIZES)}")
        if not 0 <= self.held_out < 1:
            raise UserError(f"the held-out share must be in [0, 1), not {self.held_out}")
        if self.size is not None and min(self.size) < 1:
            raise UserError(f"the picture size must be positive, not {self.size[0]}x{self.size[1]}")

    def load(self) -> Pictures:
        """Read the source. Raises UserError where there is nothing usable."""
        pictures = _find(self.source)(self)
        if len(pictures) == 0:
            raise UserError(f"'{self.source}' holds no pictures")
        if not self.labels:
            pictures = Pictures(pictures.pixels, skipped=pictures.skipped)
        return pictures


def _find(source: str) -> Callable[[DataPlan], Pictures]:
    if source in SOURCES:
        return SOURCES[source]
    path = Path(source)
    if path.is_dir():
        return folder
    if path.is_file() and path.suffix.lower() == ".npz":
        return npz
    if path.exists():
        raise UserError(f"'{source}' is neither a folder nor an .npz file: give the folder that holds your pictures")
    looks_like_path = "/" in source or path.suffix
    hint = "check the path" if looks_like_path else nearest(source, SOURCES)
    raise UserError(f"no data at '{source}' (neither a known set, a folder, nor an .npz file): {hint}")


def digits(plan: DataPlan) -> Pictures:
    """scikit-learn's 1,797 handwritten digits (UCI), 8x8 grey, embedded in that package."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    pixels = np.round(raw.images / 16 * 255).astype(np.uint8)
    return Pictures(_resize_all(pixels[..., None], plan), raw.target.astype(np.int64), tuple("0123456789"))


def npz(plan: DataPlan) -> Pictures:
    """The first array of an .npz (or `images`/`x`): uint8 (N, H, W) or (N, H, W, 1 or 3); labels from `labels`/`y`."""
    try:
        with np.load(plan.source, allow_pickle=False) as file:
            names = file.files
            if not names:
                raise UserError(f"'{plan.source}' holds no array")
            pixels = file[next((n for n in ("images", "x") if n in names), names[0])]
            key = next((n for n in ("labels", "y") if n in names), None)
            labels = None if key is None else file[key]
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"'{plan.source}' can't be read as an .npz of plain arrays ({e}): "
                        "save it with numpy.savez(file, images=array)") from e  # fmt: skip
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
        raise UserError(f"'{plan.source}' holds {pixels.dtype} of shape {pixels.shape}: pictures must be uint8 "
                        "of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3)")  # fmt: skip
    pixels = _resize_all(pixels, plan)
    if labels is None:
        return Pictures(pixels)
    if labels.shape != (len(pixels),):
        raise UserError(f"'{plan.source}' has labels of shape {labels.shape} for {len(pixels)} pictures: give one each")
    names, index = np.unique(labels, return_inverse=True)
    return Pictures(pixels, index.astype(np.int64), tuple(str(n) for n in names))


def folder(plan: DataPlan) -> Pictures:
    """Every picture below a folder, in the order of their paths. Grey if all are grey, else RGB."""
    root = Path(plan.source)
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
    if not files:
        raise UserError(f"no pictures in '{root}': looked for {', '.join(sorted(EXTENSIONS))} in it and below")
    size = _read_size(files) if plan.size is None else plan.size
    read, skipped = [], []
    for path in files:
        try:
            read.append(_fit(open_picture(path), size, plan.resize))
        except Exception as e:  # any decoder may fail in its own way on a broken file
            skipped.append(f"{path}: {e or type(e).__name__}")
    if not read:
        raise UserError(f"none of the {len(files)} files in '{root}' can be read as a picture; the first: {skipped[0]}")
    mode = "L" if all(p.mode == "L" for p in read) else "RGB"
    pixels = np.stack([np.asarray(p.convert(mode)).reshape(*size, -1) for p in read])
    return Pictures(pixels, skipped=tuple(skipped))


def _read_size(files: list[Path]) -> tuple[int, int]:
    """The one size that all readable files share."""
    sizes = set()
    for path in files:
        try:
            with Image.open(path, formats=FORMATS) as p:
                turned = p.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # EXIF: lies on its side
                sizes.add((p.width, p.height) if turned else (p.height, p.width))
        except Exception:  # named when the file is read in earnest
            continue
    if len(sizes) > 1:
        raise UserError(f"the pictures have {len(sizes)} different sizes: say which to train at, e.g. --size 64")
    return sizes.pop() if sizes else (1, 1)


def open_picture(path: Path) -> Image.Image:
    """Decode one file wholly: turned as its EXIF says, transparency over white, 16 bits scaled, to L or RGB.

    Raises whatever the decoder raises; a picture too large to be honest is an error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=FORMATS) as opened:
            opened.load()
            picture: Image.Image = ImageOps.exif_transpose(opened)
    if picture.mode.startswith("I"):  # 16-bit grey, which a plain conversion would clip
        wide = np.asarray(picture, dtype=np.float64)
        return Image.fromarray(np.round(wide / 65535 * 255).clip(0, 255).astype(np.uint8))
    if picture.mode == "F":
        raise ValueError("floating-point pictures have no known range")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")


def _fit(picture: Image.Image, size: tuple[int, int], resize: str) -> Image.Image:
    """To (height, width), antialiased: cut the longer side's ends, squash, or pad with black."""
    to = (size[1], size[0])
    if picture.size == to:
        return picture
    if resize == "squash":
        return picture.resize(to, Image.Resampling.LANCZOS)
    method = ImageOps.fit if resize == "crop" else ImageOps.pad
    return method(picture, to, Image.Resampling.LANCZOS)


def _resize_all(pixels: np.ndarray, plan: DataPlan) -> np.ndarray:
    if plan.size is None or pixels.shape[1:3] == plan.size:
        return pixels
    mode = "L" if pixels.shape[3] == 1 else "RGB"
    fitted = [_fit(Image.fromarray(p.squeeze(2) if mode == "L" else p), plan.size, plan.resize) for p in pixels]
    return np.stack([np.asarray(p).reshape(*plan.size, -1) for p in fitted])


SOURCES: dict[str, Callable[[DataPlan], Pictures]] = {"digits": digits}


@dataclass(frozen=True)
class Split:
    """What is trained on and what is held out."""

    train: Pictures
    held_out: Pictures


def split(pictures: Pictures, share: float) -> Split:
    """Hold out each picture whose content hashes into `share`: adding pictures moves none, and copies stay together.

    Raises UserError if nothing is left to train on.
    """
    hashes = [hashlib.blake2b(p.tobytes(), digest_size=8).digest() for p in pictures.pixels]
    held = np.array([int.from_bytes(h, "little") / 2**64 < share for h in hashes], dtype=bool)
    if held.all():
        raise UserError(f"all {len(pictures)} pictures are held out: add pictures or lower --data.held-out")
    return Split(pictures.where(~held), pictures.where(held))
