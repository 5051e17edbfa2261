"""Samples on disk: a PNG each or one .npz, any number of them, resumable; and each reproducible from its own PNG.

Each PNG's text says how it was generated. Never more than a batch is in memory.
"""

import json
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from unnoise import figures
from unnoise.data.labels import EVERY, labels_for
from unnoise.data.pixels import to_pil, to_uint8
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.model import Model
from unnoise.registry import from_json, to_json
from unnoise.utils import atomic
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import SINGLE, Runtime

KEY = "unnoise"  # of the text in a PNG
MAX_COUNT = 10**8  # images of one generation
MAX_SHOWN = 100  # in the grid


@dataclass(frozen=True)
class Generation:
    """All that decides which images are generated; `label` is as in `labels_for`."""

    seed: int
    count: int
    batch: int
    sampling: dict[str, Any]
    label: str | None
    weights: str

    @classmethod
    def of(
        cls, model: Model, count: int, seed: int, batch: int, sampling: SamplingConfig, label: str | None = None
    ) -> "Generation":
        """By a model that has a run folder."""
        assert model.folder is not None
        return cls(seed, count, batch, to_json(sampling), label, model.folder.hash_model())

    def indices(self, k: int) -> range:
        """The samples of batch k."""
        return range(k * self.batch, min((k + 1) * self.batch, self.count))

    @property
    def batches(self) -> range:
        return range(-(-self.count // self.batch))

    @property
    def config(self) -> SamplingConfig:
        found: SamplingConfig = from_json(SamplingConfig, self.sampling, "sampling")
        return found

    def labels(self, model: Model, k: int) -> Tensor | None:
        """The classes of batch k."""
        return labels_for(self.label, model.info.classes, self.indices(k), self.seed)

    def run(self, model: Model, k: int) -> np.ndarray:
        """Batch k, uint8 (B, H, W, C)."""
        return to_uint8(model.sample_batch(self.indices(k), self.seed, self.config, self.labels(model, k)))


def generate(model: Model, generation: Generation, out: Path, runtime: Runtime = SINGLE,
             overwrite: bool = False) -> Iterator[int]:  # fmt: skip
    """Generate into the folder `out` or the file `out`.npz; yields how many images are done, by batches.

    Batches that an earlier call with the same settings finished are kept. Of several processes each makes its own batches. Raises
    UserError where nothing can be written and, unless `overwrite`, where `out` holds anything else of the same names.
    """
    arrays = out.suffix == ".npz"
    parts = out.with_name(f"{out.name}.parts") if arrays else out
    try:
        if runtime.on_first(lambda: _prepare(parts, out, generation, overwrite)):
            yield generation.count
            return
        for k in generation.batches[runtime.rank :: runtime.world_size]:
            if not _is_done(parts, generation, k, arrays):
                _write(parts, generation, k, generation.run(model, k), arrays)
            yield min((k + 1) * generation.batch, generation.count)
        runtime.gather(None)  # all are done
        if runtime.is_first and arrays:
            atomic.write(out, lambda p: _join(parts, generation, p), work=parts)
            _remove(parts, generation)
        elif runtime.is_first:
            shown = [np.asarray(Image.open(parts / _name(k))) for k in range(min(generation.count, MAX_SHOWN))]
            pixels = np.stack(shown).reshape(len(shown), *shown[0].shape[:2], -1)
            columns = len(model.info.classes) if generation.label == EVERY else None
            figures.save(figures.grid(pixels, columns), grid_path(out), overwrite=overwrite)
    except OSError as e:
        raise UserError(f"can't write to '{out}' ({e.strerror or e}): choose another `out`") from e


def regenerate(model: Model, image: Path) -> tuple[np.ndarray, bool]:
    """The image (H, W, C) that a PNG's own text describes, made again, and whether it is equal bit for bit.

    Its whole batch is made, since sums in another order differ in the last bit. Raises UserError for an image without
    that text, or of other weights.
    """
    found = _read_text(image)
    if found is None:
        raise UserError(f"'{image}' does not say how it was generated: give a PNG that 'unnoise sample' wrote")
    generation, index = found
    assert model.folder is not None
    if generation.weights != model.folder.hash_model():
        raise UserError(
            f"'{image}' was generated with other weights than '{model.folder.path}' has now: give the run that made it"
        )
    k = index // generation.batch
    again = generation.run(model, k)[index - k * generation.batch]
    with Image.open(image, formats=("PNG",)) as opened:
        same = opened.size == again.shape[1::-1] and np.array_equal(again.squeeze(), np.asarray(opened))
    return again, same


def _name(index: int) -> str:
    return f"{index:06d}.png"


def grid_path(out: Path) -> Path:
    """Of the grid beside the folder `out`."""
    return out.with_name(f"{out.name}-grid.png")


def _prepare(parts: Path, out: Path, generation: Generation, overwrite: bool) -> bool:
    """Refuse to write over anything or, with `overwrite`, remove what another generation left there.

    Gives whether the .npz of this very generation is there already, and nothing is left to do.
    """
    path = parts / "generation.json"
    own = json.loads(json.dumps(asdict(generation)))
    if parts != out and _read_comment(out) == own:
        if path.exists():  # a kill left it
            _remove(parts, generation)
        return True
    before = _read_before(path)
    goes_on = before | {"count": 0} == own | {"count": 0}
    count = max(generation.count, before.get("count", 0))
    mine = [parts / _name(k) for k in range(count)] if parts == out else [out, *(parts / f"{k:06d}.npy" for k in range(count))]
    there = [p for p in mine if p.exists()]
    if parts == out and not overwrite:
        figures.refuse_foreign(grid_path(out))
    others = [*([] if goes_on else there), *([path] if path.exists() and before.keys() != own.keys() else [])]
    if others and not overwrite:
        raise UserError(f"'{others[0]}' is there already, and was not generated with these settings and weights: "
                        "choose another `out`, or `overwrite` it")  # fmt: skip
    if not goes_on:
        for p in there:
            p.unlink()
    parts.mkdir(parents=True, exist_ok=True)
    atomic.write_json(path, own)
    return False


def _remove(parts: Path, generation: Generation) -> None:
    """Remove the batches of a generation that are in its .npz now; a folder that holds anything else stays."""
    for k in generation.batches:
        (parts / f"{k:06d}.npy").unlink(missing_ok=True)
    atomic.sweep(parts)
    (parts / "generation.json").unlink()
    with suppress(OSError):
        parts.rmdir()


def _read_before(path: Path) -> dict[str, Any]:
    """What a generation.json says was generated, nothing where it says nothing."""
    try:
        found = atomic.read_json(path) if path.is_file() else {}
        return found if isinstance(found, dict) and 0 <= int(found.get("count", 0)) <= MAX_COUNT else {}
    except (ValueError, TypeError):
        return {}


def _is_done(parts: Path, generation: Generation, k: int, arrays: bool) -> bool:
    if arrays:
        path = parts / f"{k:06d}.npy"
        return path.is_file() and len(np.load(path, mmap_mode="r")) == len(generation.indices(k))
    found = ((n, _read_text(parts / _name(n))) for n in generation.indices(k))
    return all(f is not None and (replace(f[0], count=generation.count), f[1]) == (generation, n) for n, f in found)


def _write(parts: Path, generation: Generation, k: int, pixels: np.ndarray, arrays: bool) -> None:
    if arrays:
        atomic.write(parts / f"{k:06d}.npy", lambda p: np.save(p, pixels))
        return
    for index, image in zip(generation.indices(k), pixels, strict=True):
        text = json.dumps({**asdict(generation), "index": index})
        figures.save(to_pil(image), parts / _name(index), {KEY: text})


def _read_text(image: Path) -> tuple[Generation, int] | None:
    """How a PNG says that it was generated, and its index; None where it says nothing of the kind."""
    try:
        with Image.open(image, formats=("PNG",)) as opened:
            text = atomic.parse_json(opened.info.get(KEY, "null"))
        index = text.pop("index")
        return Generation(**text), int(index)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, Image.DecompressionBombError):
        return None


def _read_comment(path: Path) -> Any:
    """How an .npz says that it was generated; None where it says nothing of the kind."""
    try:
        with zipfile.ZipFile(path) as archive:
            return atomic.parse_json(archive.comment.decode())
    except (OSError, ValueError, zipfile.BadZipFile):
        return None


def _join(parts: Path, generation: Generation, path: Path) -> None:
    """The batches' arrays as `images` of one .npz, a batch in memory at a time; its comment says how they were generated."""
    arrays = [np.load(parts / f"{k:06d}.npy", mmap_mode="r") for k in generation.batches]
    shape = (sum(len(a) for a in arrays), *arrays[0].shape[1:])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w", force_zip64=True) as file:
        archive.comment = json.dumps(asdict(generation)).encode()
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for array in arrays:
            file.write(np.ascontiguousarray(array).tobytes())
