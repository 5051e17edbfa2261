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
import torch

from unnoise import figures
from unnoise.data.dataset import ImageDataset, Split, split
from unnoise.evaluation.bound import variational_bound
from unnoise.evaluation.copying import Copying, find_nearest
from unnoise.evaluation.encoders import Features
from unnoise.evaluation.features import WEAK, FeatureSet, find_features
from unnoise.evaluation.measures import MEASURES, Z
from unnoise.evaluation.per_class import Labelled, measure_classes
from unnoise.evaluation.result import ClassResult, Evaluation, Likelihood, Result
from unnoise.model import Model
from unnoise.registry import source_of
from unnoise.run_folder import RunFolder
from unnoise.runs.evaluated import run_key
from unnoise.runs.generate import Generation
from unnoise.runs.resume import find_images
from unnoise.runs.start import load_images, silent
from unnoise.utils import atomic, rng
from unnoise.utils.errors import UserError
from unnoise.utils.runtime import SINGLE, Runtime

DEFAULT_N = 1000
BATCH = 250  # samples at once
CHUNK = 1000  # images whose features are computed at once
LIKELIHOODS, LEVELS = 100, 24  # images of either kind whose bits per dimension are computed, and noise levels of each
Advance = Callable[[int], object]  # called with how many further images are done


def evaluate(model: Model | Path | str, data: Any = None, n: int | None = None, features: str | None = None, seed: int = 0,
             on_progress: Advance | None = None, cache: Path | None = None) -> Evaluation:  # fmt: skip
    """Evaluate a model, or the run in a folder, as `unnoise evaluate` does, and write what was found into its run folder.

    `n` samples, 1000 by default or as many as there are training images, are held against the run's held-out images, or those in
    `data`: a path, an array, a Dataset, or the run's own images at another place. `features` is `classifier` (where there are
    labels, the default), `pixels`, `dinov2`, `inception` or FILE.onnx. Raises UserError for what can't be.
    """
    return prepare(model, data, n, features, seed, cache, Runtime.join()).run(on_progress or (lambda _: None))


@dataclass(frozen=True)
class Job:
    """An evaluation before any sample is made. `held_out` are the images that samples are held against."""

    model: Model
    folder: RunFolder
    train: ImageDataset
    held_out: ImageDataset
    features: FeatureSet
    generation: Generation
    runtime: Runtime = SINGLE
    key: str = ""

    @property
    def total(self) -> int:
        """How many images `run` counts: each sample twice, for its features too."""
        return 2 * self.generation.count + len(self.train) + len(self.held_out)

    def run(self, advance: Advance) -> Evaluation:
        """Sample, measure, write. Of several processes each samples and computes features of a part, and the first the rest.

        Raises UserError where the run folder takes nothing or holds something damaged.
        """
        try:
            self.folder.evaluation_cache.mkdir(exist_ok=True)
            samples = self._samples(advance)
            made: list[Features] = []
            sets = (ImageDataset(samples), self.held_out, self.train)
            features = [self._features(images, made, advance) for images in sets]
            return Evaluation.from_json(self.runtime.on_first(lambda: self._judge(samples, *features).to_json()))
        except OSError as e:
            raise UserError(f"can't write to '{self.folder.path}' ({e.strerror or e}): evaluate a copy of the run") from e

    def _judge(self, samples: np.ndarray, generated: np.ndarray, real: np.ndarray, train: np.ndarray) -> Evaluation:
        """What is found of samples and of the features of samples, held-out and training images; written to the run folder."""
        n, seed = self.generation.count, self.generation.seed
        floor = train[rng.stream(seed, "floor").permutation(len(train))[:n]]
        measures, notes = self._measure(generated, real, floor)
        per_class, more = self._classes(generated, real, train)
        more += ("the bits per dimension are those of its teacher",) if self.model.is_student else ()
        copying = self._copying(samples, generated, real, train)
        found = Evaluation(n, len(real), self.features.name, seed, measures, copying, self._likelihood(), per_class,
                           (*notes, *more), self.key)  # fmt: skip
        pairs = np.concatenate([samples[copying.suspicious], self.train.read(copying.nearest)], axis=2)
        figures.save(figures.grid(pairs, 4, min_side=128), self.folder.evaluation_nearest)
        atomic.write_json(self.folder.evaluation, found.to_json())  # last: its key says that all is there
        return found

    def _samples(self, advance: Advance) -> np.ndarray:
        """uint8 (N, H, W, C), by batches, each kept as soon as it is made."""
        (c, h, w), key = self.model.info.shape, _hash(asdict(self.generation))

        def make(k: int) -> np.ndarray:
            path = self.folder.evaluation_cache / f"samples-{key}-{k:06d}.npy"
            shape = (len(self.generation.indices(k)), h, w, c)
            return _kept(path, lambda: self.generation.run(self.model, k), shape)

        return np.concatenate(self._shared(len(self.generation.batches), make, advance))

    def _features(self, images: ImageDataset, made: list[Features], advance: Advance) -> np.ndarray:
        """Of images, (N, D), by chunks. `made` keeps what computes them, which may train a network, from one call to the next."""

        def compute(pixels: np.ndarray) -> np.ndarray:
            if not made:
                made.append(self.features.build())
            return made[0](pixels).astype(np.float32)

        def make(k: int) -> np.ndarray:
            pixels = images.read(np.arange(k * CHUNK, min((k + 1) * CHUNK, len(images))))
            path = self.folder.evaluation_cache / f"features-{key}-{k:06d}.npy"
            return _kept(path, lambda: compute(pixels), (len(pixels), -1))

        key = _hash([self.features.key, images.fingerprint()])
        return np.concatenate(self._shared(-(-len(images) // CHUNK), make, advance)).astype(np.float64)

    def _shared(self, count: int, make: Callable[[int], np.ndarray], advance: Advance) -> list[np.ndarray]:
        """What `make` gives for 0 to count - 1: each process makes a part, and reads what the others have kept."""
        rank, processes, mine = self.runtime.rank, self.runtime.world_size, {}
        for k in range(rank, count, processes):
            mine[k] = make(k)
            advance(len(mine[k]) * processes)
        self.runtime.gather(None)  # all are done
        return [mine[k] if k in mine else make(k) for k in range(count)]

    def _likelihood(self) -> Likelihood:
        """Of some held-out images and as many training images."""
        count = min(LIKELIHOODS, self.generation.count, len(self.held_out), len(self.train))
        bounds = []
        for images in (self.held_out, self.train):
            chosen = _at_most(images, count, self.generation.seed)
            x = torch.from_numpy(chosen.pixels).permute(0, 3, 1, 2)
            known = chosen.labels is not None and chosen.classes == self.model.info.classes
            label = torch.from_numpy(chosen.labels).to(self.model.info.device) if known else None
            bounds.append(variational_bound(self.model.mean_model.denoiser, x, self.generation.seed, moments=self.model.moments,
                                            levels=LEVELS, label=label))  # fmt: skip
        held_out, total = bounds[0], bounds[0].total
        mean, error = float(total.mean()), float(total.std(correction=0)) / max(1, count - 1) ** 0.5
        prior, diffusion, reconstruction = (
            float(x.mean()) for x in (held_out.prior, held_out.diffusion, held_out.reconstruction)
        )
        low, high, training = mean - Z * error, mean + Z * error, float(bounds[1].total.mean())
        return Likelihood(mean, low, high, prior, diffusion, reconstruction, training, count)

    def _classes(self, generated: np.ndarray, real: np.ndarray,
                 train: np.ndarray) -> tuple[dict[str, ClassResult], tuple[str, ...]]:  # fmt: skip
        """By class, where there are labels, and what is to be said."""
        classes, held_out = self.model.info.classes, self.held_out
        if not classes or self.train.labels is None:
            return {}, ()
        if held_out.labels is None or held_out.classes != classes:
            return {}, ("nothing is said of single classes: the images held against have other classes than the run, or none",)
        labels = [self.generation.labels(self.model, k) for k in self.generation.batches]
        own = np.concatenate([part.numpy() for part in labels if part is not None])
        sets = (Labelled(generated, own), Labelled(real, held_out.labels), Labelled(train, self.train.labels))
        found = measure_classes(self.features.name, *sets, classes, self.generation.seed)
        few, needs = sum(not of.measures for of in found.values()), MEASURES["kid"].minimum
        note = (
            f"{few} of {len(classes)} classes have no distance of their own, which needs {needs} samples and held-out images each"
        )
        return found, (note,) if few else ()

    def _measure(self, generated: np.ndarray, real: np.ndarray,
                 floor: np.ndarray) -> tuple[dict[str, Result], tuple[str, ...]]:  # fmt: skip
        """Each measure for which there are enough images, and what is to be said."""
        found, short, fewest = dict[str, Result](), dict[int, list[str]](), min(len(generated), len(real))
        for name, measure in MEASURES.items():
            own = "fid" if (name, self.features.name) == ("frechet", "inception") else name
            needs = measure.needs(real.shape[1])
            if fewest >= needs:
                found[f"{own} ({self.features.name})"] = measure(generated, real, floor, self.generation.seed)
            else:
                short.setdefault(needs, []).append(own)
        instead = "read kid" if fewest >= MEASURES["kid"].minimum else "only copying can be judged"
        needed = "; ".join(f"{', '.join(names)} ({needs})" for needs, names in sorted(short.items()))
        notes = [f"{fewest} samples and held-out images are too few for some measures: {needed}: {instead}"] if short else []
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
            cache: Path | None = None, runtime: Runtime = SINGLE) -> Job:  # fmt: skip
    """Find the images and choose the features; arguments as in `evaluate`. Raises UserError before any sample is made."""
    model = model if isinstance(model, Model) else Model.load(model, runtime.device)
    if model.folder is None or not model.folder.model.is_file():
        raise UserError("only a model with a run folder is evaluated, since samples and results are kept there: un.load(RUN)")
    figures.refuse_foreign(model.folder.evaluation_nearest, "move it away")
    _ = model.mean_model  # refuses a student without its teacher
    images = _find_images(model, data, cache)
    count = min(DEFAULT_N, len(images.train)) if n is None else n
    if count < max(1, len(model.info.classes)):
        raise UserError(f"{count} samples are fewer than the {max(1, len(model.info.classes))} classes: choose a larger `n`")
    if count > len(images.train) or len(images.train) < 2:
        raise UserError(f"the floor takes as many training images as there are samples, and there are {len(images.train)}: "
                        f"choose `n` at most so")  # fmt: skip
    generation = Generation.of(model, count, seed, BATCH, model.info.recipe.sampling)
    held_out = _at_most(images.held_out, count, seed)
    key = run_key(model.folder.path, n, features, seed) if data is None else ""
    return Job(model, model.folder, images.train, held_out, find_features(features, images.train, seed), generation, runtime, key)


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
