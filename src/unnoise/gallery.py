"""Drawn pictures on the disk: a PNG each or one .npz, any number of them, resumed where it stopped; and drawn again.

Each PNG says in its own text how it was drawn. Never more than a batch is in memory.
"""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unnoise import figures, files
from unnoise.errors import UserError
from unnoise.model import Model
from unnoise.processes import ALONE, Processes
from unnoise.recipe import from_json, to_json
from unnoise.sampler import Sampling

KEY = "unnoise"  # of the text in a PNG
MOST_SHOWN = 100  # in the grid


@dataclass(frozen=True)
class Drawing:
    """All that decides which pictures are drawn; `label` is a class for all (None: drawn evenly, -1: one after the other)."""

    seed: int
    count: int
    batch: int
    sampling: dict[str, Any]
    label: int | None
    weights: str

    def numbers(self, k: int) -> range:
        """The pictures of batch k."""
        return range(k * self.batch, min((k + 1) * self.batch, self.count))

    def draw(self, model: Model, k: int) -> np.ndarray:
        """Batch k, uint8 (B, H, W, C)."""
        numbers = self.numbers(k)
        label = None
        if self.label is not None:
            every = torch.tensor(numbers) % max(1, len(model.info.classes))
            label = (every if self.label < 0 else torch.full_like(every, self.label)).to(model.info.device)
        sampling: Sampling = from_json(Sampling, self.sampling, "sampling")
        return figures.to_uint8(model.sample(numbers, self.seed, sampling, label))


def weights_of(run: Path) -> str:
    """A short hash of the weights that a run draws with."""
    with (run / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def plan_drawing(model: Model, count: int, seed: int, batch: int, sampling: Sampling, label: int | None = None) -> Drawing:
    """What to draw with a model that has a run folder."""
    assert model.folder is not None
    return Drawing(seed, count, batch, to_json(sampling), label, weights_of(model.folder))


def draw_to(model: Model, drawing: Drawing, out: Path, processes: Processes = ALONE) -> Iterator[int]:
    """Draw into the folder `out` or the file `out`.npz; yields how many pictures are done, by batches.

    Batches that an earlier call with the same settings finished are kept; others are drawn anew. Of several processes each
    draws its own batches. Raises UserError where nothing can be written.
    """
    parts = out.with_name(f"{out.name}.parts") if out.suffix == ".npz" else out
    batches = range(-(-drawing.count // drawing.batch))
    try:
        processes.decide(lambda: _prepare(parts, drawing))
        for k in batches[processes.rank :: processes.count]:
            if not _is_done(parts, drawing, k, out.suffix == ".npz"):
                _keep(parts, drawing, k, drawing.draw(model, k), out.suffix == ".npz")
            yield min((k + 1) * drawing.batch, drawing.count)
        processes.gather(None)  # all are done
        if processes.first and out.suffix == ".npz":
            files.write(out, lambda p: _join(parts, batches, p))
            shutil.rmtree(parts)
        elif processes.first:
            shown = [np.asarray(Image.open(parts / _name(k))) for k in range(min(drawing.count, MOST_SHOWN))]
            pixels = np.stack(shown).reshape(len(shown), *shown[0].shape[:2], -1)
            columns = len(model.info.classes) if drawing.label == -1 else None
            figures.save(figures.grid(pixels, columns), out.with_name(f"{out.name}-grid.png"))
    except OSError as e:
        raise UserError(f"can't write to '{out}' ({e.strerror or e}): choose another --out") from e


def _name(number: int) -> str:
    return f"{number:06d}.png"


def _prepare(parts: Path, drawing: Drawing) -> None:
    """Forget what another drawing left there."""
    key = parts / "drawing.json"
    own = json.loads(json.dumps(asdict(drawing)))
    if key.is_file():
        before = json.loads(key.read_text())
        if before | {"count": 0} != own | {"count": 0}:
            for number in range(before["count"]):
                (parts / _name(number)).unlink(missing_ok=True)
                (parts / f"{number:06d}.npy").unlink(missing_ok=True)
    parts.mkdir(parents=True, exist_ok=True)
    files.write_json(key, own)


def _is_done(parts: Path, drawing: Drawing, k: int, arrays: bool) -> bool:
    if arrays:
        path = parts / f"{k:06d}.npy"
        return path.is_file() and len(np.load(path, mmap_mode="r")) == len(drawing.numbers(k))
    told = ((n, _told(parts / _name(n))) for n in drawing.numbers(k))
    return all(t is not None and (replace(t[0], count=drawing.count), t[1]) == (drawing, n) for n, t in told)


def _keep(parts: Path, drawing: Drawing, k: int, pixels: np.ndarray, arrays: bool) -> None:
    if arrays:
        files.write(parts / f"{k:06d}.npy", lambda p: np.save(p, pixels))
        return
    for number, picture in zip(drawing.numbers(k), pixels, strict=True):
        text = json.dumps({**asdict(drawing), "number": number})
        figures.save(figures.to_image(picture), parts / _name(number), {KEY: text})


def _told(picture: Path) -> tuple[Drawing, int] | None:
    """How a PNG says that it was drawn, and its number; None where it says nothing of the kind."""
    try:
        with Image.open(picture) as opened:
            told = json.loads(opened.info.get(KEY, "null"))
        number = told.pop("number")
        return Drawing(**told), int(number)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _join(parts: Path, batches: range, path: Path) -> None:
    """The batches' arrays as `images` of one .npz, a batch in memory at a time."""
    arrays = [np.load(parts / f"{k:06d}.npy", mmap_mode="r") for k in batches]
    shape = (sum(len(a) for a in arrays), *arrays[0].shape[1:])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w", force_zip64=True) as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for array in arrays:
            file.write(np.ascontiguousarray(array).tobytes())


def redraw(model: Model, picture: Path) -> tuple[np.ndarray, bool]:
    """The picture (H, W, C) that its own text tells how to draw, drawn again, and whether it is equal bit for bit.

    Its whole batch is drawn, since sums in another order differ in the last bit. Raises UserError for a picture without
    that text, or of other weights.
    """
    told = _told(picture)
    if told is None:
        raise UserError(f"'{picture}' does not say how it was drawn: give a PNG that 'unnoise sample' wrote")
    drawing, number = told
    assert model.folder is not None
    if drawing.weights != weights_of(model.folder):
        raise UserError(f"'{picture}' was drawn with other weights than '{model.folder}' has now: give the run that drew it")
    k = number // drawing.batch
    again = drawing.draw(model, k)[number - k * drawing.batch]
    return again, np.array_equal(again.squeeze(), np.asarray(Image.open(picture)))
