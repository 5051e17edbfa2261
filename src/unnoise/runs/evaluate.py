"""How good a run's model is: its samples against images that it never saw, and whether they copy those that it saw.

Samples, and the features of samples and of real images, are kept in RUN/evaluation, so that an evaluation that was stopped goes
on, and another of the same takes seconds. What is found is written to RUN/evaluation.json and RUN/evaluation-nearest.png.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unnoise import figures
from unnoise.data.dataset import ImageDataset, Split, split
from unnoise.evaluation.copying import Copying, find_nearest
from unnoise.evaluation.encoders import Features
from unnoise.evaluation.features import WEAK, FeatureSet, find_features
from unnoise.evaluation.measures import MEASURES, Result
from unnoise.model import Model
from unnoise.registry import source_of
from unnoise.run_folder import RunFolder
from unnoise.runs.generate import Generation
from unnoise.runs.resume import find_images
from unnoise.runs.start import load_images, silent
from unnoise.utils import atomic, rng
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import SINGLE

DEFAULT_N = 1000
BATCH = 250  # samples at once
CHUNK = 1000  # images whose features are computed at once
Advance = Callable[[int], object]  # called with how many further images are done


def evaluate(model: Model | Path | str, data: Any = None, n: int | None = None, features: str | None = None, seed: int = 0,
             on_progress: Advance | None = None, cache: Path | None = None) -> "Evaluation":  # fmt: skip
    """Evaluate a model, or the run in a folder, as `unnoise evaluate` does, and write what was found into its run folder.

    `n` samples, 1000 by default or as many as there are training images, are held against the run's held-out images, or those in
    `data`: a path, an array, a Dataset, or the run's own images at another place. `features` is `classifier` (where there are
    labels, the default), `pixels`, `inception` or FILE.onnx. Raises UserError for what can't be.
    """
    return prepare(model, data, n, features, seed, cache).run(on_progress or (lambda _: None))


@dataclass(frozen=True)
class Evaluation:
    """What was found of `n` samples and `real` images that the model never saw; `measures` by names such as `kid (classifier)`.

    `notes` say which measures are missing, and why, and what is to be known of the features.
    """

    n: int
    real: int
    features: str
    seed: int
    measures: dict[str, Result]
    copying: Copying
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As in evaluation.json."""
        measures = {name: asdict(result) for name, result in self.measures.items()}
        plain = {"n": self.n, "real": self.real, "features": self.features, "seed": self.seed}
        return {**plain, "measures": measures, "copying": self.copying.to_json(), "notes": list(self.notes)}

    def table(self) -> str:
        """A line a measure, then the verdict on copying and the notes."""
        width = max((len(name) for name in self.measures), default=0)
        lines = [f"{'':{width}}  {'value':>9}  {'95 % interval':^20}  {'floor':>9}       n"] if self.measures else []
        for name, r in self.measures.items():
            lines.append(f"{name:{width}}  {r.value:9.4f}  {r.low:9.4f} {r.high:9.4f}   {r.floor:9.4f}  {self.n:6d}")
        return "\n".join([*lines, self.copying.verdict, *self.notes])


@dataclass(frozen=True)
class Job:
    """An evaluation before any sample is made. `held_out` are the images that samples are held against."""

    model: Model
    folder: RunFolder
    train: ImageDataset
    held_out: ImageDataset
    features: FeatureSet
    generation: Generation

    @property
    def total(self) -> int:
        """How many images `run` counts: each sample twice, for its features too."""
        return 2 * self.generation.count + len(self.train) + len(self.held_out)

    def run(self, advance: Advance) -> Evaluation:
        """Sample, measure, write. Raises UserError where the run folder takes nothing or holds something damaged."""
        try:
            return self._run(advance)
        except OSError as e:
            raise UserError(f"can't write to '{self.folder.path}' ({e.strerror or e}): evaluate a copy of the run") from e

    def _run(self, advance: Advance) -> Evaluation:
        self.folder.evaluation_cache.mkdir(exist_ok=True)
        samples = self._samples(advance)
        made: list[Features] = []
        sets = (ImageDataset(samples), self.held_out, self.train)
        generated, real, train = (self._features(images, made, advance) for images in sets)
        n, seed = self.generation.count, self.generation.seed
        floor = train[rng.stream(seed, "floor").permutation(len(train))[:n]]
        measures, notes = self._measure(generated, real, floor)
        copying = self._copying(samples, generated, real, train)
        found = Evaluation(n, len(real), self.features.name, seed, measures, copying, notes)
        atomic.write_json(self.folder.evaluation, found.to_json())
        pairs = np.concatenate([samples[copying.suspicious], self.train.read(copying.nearest)], axis=2)
        figures.save(figures.grid(pairs, 4, min_side=128), self.folder.evaluation_nearest)
        return found

    def _samples(self, advance: Advance) -> np.ndarray:
        """uint8 (N, H, W, C), by batches, each kept as soon as it is made."""
        parts = []
        for k in self.generation.batches:
            path = self.folder.evaluation_cache / f"samples-{_hash(asdict(self.generation))}-{k:06d}.npy"
            count = len(self.generation.indices(k))
            c, h, w = self.model.info.shape
            parts.append(_kept(path, lambda k=k: self.generation.run(self.model, k), (count, h, w, c)))  # type: ignore[misc]
            advance(count)
        return np.concatenate(parts)

    def _features(self, images: ImageDataset, made: list[Features], advance: Advance) -> np.ndarray:
        """Of images, (N, D), by chunks. `made` keeps what computes them, which may train a network, from one call to the next."""

        def compute(pixels: np.ndarray) -> np.ndarray:
            if not made:
                made.append(self.features.build())
            return made[0](pixels).astype(np.float32)

        key, parts = _hash([self.features.key, images.fingerprint()]), []
        for k, pixels in enumerate(images.chunks(CHUNK)):
            path = self.folder.evaluation_cache / f"features-{key}-{k:06d}.npy"
            parts.append(_kept(path, lambda pixels=pixels: compute(pixels), (len(pixels), -1)))  # type: ignore[misc]
            advance(len(pixels))
        return np.concatenate(parts).astype(np.float64)

    def _measure(self, generated: np.ndarray, real: np.ndarray,
                 floor: np.ndarray) -> tuple[dict[str, Result], tuple[str, ...]]:  # fmt: skip
        """Each measure for which there are enough images, and what is to be said."""
        found, notes, fewest = {}, [], min(len(generated), len(real))
        for name, measure in MEASURES.items():
            own = "fid" if (name, self.features.name) == ("frechet", "inception") else name
            needs = measure.needs(real.shape[1])
            if fewest >= needs:
                found[f"{own} ({self.features.name})"] = measure(generated, real, floor, self.generation.seed)
            else:
                instead = "read kid" if fewest >= MEASURES["kid"].minimum else "only copying can be judged"
                notes.append(f"{own} needs {needs} samples and held-out images, and there are {fewest}: {instead}")
        if self.features.name == "pixels" and self.train.labels is None:
            notes.append(WEAK)
        return found, tuple(notes)

    def _copying(self, samples: np.ndarray, generated: np.ndarray, real: np.ndarray, train: np.ndarray) -> Copying:
        pairs = []
        for pixels, features in ((samples, generated), (self.held_out.pixels, real)):
            views = [pixels, pixels[:, :, ::-1]] if self.model.info.recipe.data.flip else [pixels]
            pairs.append((find_nearest(views, self.train.chunks(CHUNK)), find_nearest([features], [train])))
        return Copying.of((pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1]))


def prepare(model: Model | Path | str, data: Any = None, n: int | None = None, features: str | None = None, seed: int = 0,
            cache: Path | None = None) -> Job:  # fmt: skip
    """Find the images and choose the features; arguments as in `evaluate`. Raises UserError before any sample is made."""
    model = model if isinstance(model, Model) else Model.load(model)
    if model.folder is None or not model.folder.model.is_file():
        raise UserError("only a model with a run folder is evaluated, since samples and results are kept there: un.load(RUN)")
    figures.refuse_foreign(model.folder.evaluation_nearest, "move it away")
    images = _find_images(model, data, cache)
    count = min(DEFAULT_N, len(images.train)) if n is None else n
    if count < max(1, len(model.info.classes)):
        raise UserError(f"{count} samples are fewer than the {max(1, len(model.info.classes))} classes: choose a larger `n`")
    if count > len(images.train) or len(images.train) < 2:
        raise UserError(f"the floor takes as many training images as there are samples, and there are {len(images.train)}: "
                        f"choose `n` at most so")  # fmt: skip
    generation = Generation.of(model, count, seed, BATCH, model.info.recipe.sampling)
    held_out = _at_most(images.held_out, count, seed)
    return Job(model, model.folder, images.train, held_out, find_features(features, images.train, seed), generation)


def _find_images(model: Model, data: Any, cache: Path | None) -> Split:
    """The images that the run was trained on, and those to hold samples against: what `data` holds, or the held-out ones."""
    assert model.folder is not None
    info, given = model.info, None
    if data is not None:
        recipe = replace(info.recipe, data=replace(info.recipe.data, source=source_of(data)))
        given, fingerprint = load_images(recipe, cache, SINGLE)
        if given.shape != info.shape:
            shown = ["x".join(map(str, (*s[1:], s[0]))) for s in (given.shape, info.shape)]
            raise UserError(
                f"the images in `data` have {shown[0]} values and this run makes {shown[1]}: give images of that size"
            )
        if fingerprint == info.fingerprint:
            return _not_empty(split(given, info.recipe.data.held_out), "data.held_out of the run held out none")
    own = split(find_images(model.folder, info, None, silent, cache, SINGLE)[0], info.recipe.data.held_out)
    if given is None:
        return _not_empty(own, "data.held_out of the run held out none")
    return _not_empty(Split(own.train, given.subset(~np.isin(given.hashes, own.train.hashes))), "all in `data` were trained on")


def _not_empty(images: Split, reason: str) -> Split:
    if not len(images.held_out):
        raise UserError(f"there are no images that the run never saw ({reason}): give some with `data`")
    return images


def _at_most(images: ImageDataset, count: int, seed: int) -> ImageDataset:
    """So many of the images, chosen at random."""
    mask = np.zeros(len(images), bool)
    mask[rng.stream(seed, "real").permutation(len(images))[:count]] = True
    return images.subset(mask)


def _hash(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


def _kept(path: Path, make: Callable[[], np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The array in this file, made now or before; -1 in `shape` is any size. Raises UserError for a damaged file."""
    if not path.is_file():
        made = make()
        atomic.write(path, lambda p: np.save(p, made))
        return made
    try:
        found: np.ndarray = np.array(np.load(path, mmap_mode="r"))  # mapped: as large as the file, whatever it says
        whole = len(found.shape) == len(shape) and all(s in (-1, f) for s, f in zip(shape, found.shape, strict=True))
    except (ValueError, EOFError):
        whole = False
    if not whole:
        raise UserError(f"'{path}' is damaged: remove it, and it is made again")
    return found
