"""Features of images, in which distances mean something, by name.

`classifier`: those of a small classifier trained on labelled images. `pixels`: the principal components of pixels, a weak choice.
`inception`, `dinov2`, and an ONNX file of any encoder, are in `encoders.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from unnoise.data.dataset import ImageDataset
from unnoise.data.pixels import from_uint8
from unnoise.evaluation.encoders import Features, dinov2_features, file_key, inception_features, onnx_features
from unnoise.utils import rng
from unnoise.utils.errors import UserError, nearest

WIDTH = 64  # of the features of `classifier` and `pixels`
VERSION = 2  # of how features are computed: a new one computes them again
MAX_FITTED = 5000  # images that principal components and scales are measured on
PUBLISHED = {"inception": inception_features, "dinov2": dinov2_features}  # also NAME:FILE, of their weights
FEATURES = ("classifier", "pixels", *PUBLISHED)
WEAK = ("features are those of pixels, since the images have no labels: they are weak, and see little but brightness and layout; "
        "give `features` dinov2, or the file of an ONNX encoder")  # fmt: skip


@dataclass(frozen=True)
class FeatureSet:
    """Features by the `name` that measures carry; `key` changes when the features would. `build` may train or load a network."""

    name: str
    key: str
    build: Callable[[], Features]


def find_features(text: str | None, images: ImageDataset, seed: int = 0) -> FeatureSet:
    """`classifier`, `pixels`, `inception` or `dinov2`, those with :FILE of their weights too, or FILE.onnx.

    None: `classifier` where there are labels, else `pixels`.

    Those that are fitted are fitted to `images`, the training images. Raises UserError for what is none of these.
    """
    text = text or ("pixels" if images.labels is None else "classifier")
    kind, _, weights = text.partition(":")
    if Path(text).suffix.lower() == ".onnx":
        key = file_key(Path(text))
        return FeatureSet(Path(text).stem, f"onnx-{key}-{VERSION}", lambda: onnx_features(Path(text)))
    if kind not in FEATURES or (weights and kind not in PUBLISHED):
        raise UserError(f"unknown features '{text}': {nearest(kind, FEATURES)} Or give the file of an encoder, FILE.onnx.")
    if kind in PUBLISHED:
        file = Path(weights) if weights else None
        key = file_key(file) if file else "published"
        name = file.stem if file and kind == "dinov2" else kind  # there are several sizes
        return FeatureSet(name, f"{kind}-{key}-{VERSION}", lambda: PUBLISHED[kind](file))
    if kind == "classifier" and images.labels is None:
        raise UserError("a classifier needs labels, and these images have none: choose `features` pixels, or give FILE.onnx")
    key = f"{kind}-{images.fingerprint()}-{seed}-{VERSION}"
    fit = classifier_features if kind == "classifier" else pixel_features
    return FeatureSet(kind, key, lambda: _scaled(fit(images, seed=seed), images, seed))


def _scaled(features: Features, images: ImageDataset, seed: int) -> Features:
    """Scaled to a mean square of 1 on the images: the kernel distance is of its third power, and would see outliers alone."""
    sample = images.read(rng.stream(seed, "scale").permutation(len(images))[:MAX_FITTED])
    scale = 1 / max(float(np.square(features(sample)).mean()), 1e-12) ** 0.5
    return lambda pixels: scale * features(pixels)


def pixel_features(images: ImageDataset, seed: int = 0) -> Features:
    """The first 64 principal components of pixels (fewer of fewer images), or at most 64 pixels themselves; (N, 64).

    Not whitened, each to a variance of 1: that would raise noise in components that hardly vary to the rank of the first.
    """
    from sklearn.decomposition import PCA

    fitted = images.read(rng.stream(seed, "components").permutation(len(images))[:MAX_FITTED])
    flat = fitted.reshape(len(fitted), -1).astype(np.float32)
    mean, rotation = flat.mean(axis=0), np.eye(flat.shape[1], dtype=np.float32)
    if flat.shape[1] > WIDTH:  # else nothing is left out, and directions of no variance would be any
        found = PCA(min(WIDTH, len(flat) - 1), svd_solver="randomized", random_state=0).fit(flat)
        mean, rotation = found.mean_, found.components_.T

    def features(pixels: np.ndarray) -> np.ndarray:
        parts = [pixels[k : k + 1000].reshape(-1, flat.shape[1]) for k in range(0, len(pixels), 1000)]
        return np.concatenate([(part.astype(np.float32) - mean) @ rotation for part in parts]).astype(np.float64)

    return features


def classifier_features(images: ImageDataset, steps: int = 800, seed: int = 0) -> Features:
    """The last hidden layer of a convolutional classifier, trained on `images` and their labels; (N, 64).

    Raises UserError for images without labels.
    """
    if images.labels is None:
        raise UserError("a classifier needs labels, and these images have none")
    labels = torch.from_numpy(images.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = _body(images.shape)
        head = nn.Linear(WIDTH, len(images.classes))
    optimizer = torch.optim.AdamW([*body.parameters(), *head.parameters()], lr=1e-3)
    for step in range(steps):
        generator = rng.stream(seed, "classifier", step)
        index = generator.integers(0, len(images), 128)
        x = images.tensor(index)
        loss = functional.cross_entropy(head(body(x + 0.05 * rng.normal(generator, x.shape))), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    body.eval()

    @torch.no_grad()
    def features(pixels: np.ndarray) -> np.ndarray:
        parts = [body(from_uint8(pixels[k : k + 500])) for k in range(0, len(pixels), 500)]
        found: np.ndarray = torch.cat(parts).double().numpy()
        return found

    return features


def _body(shape: tuple[int, int, int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    width, side = shape[0], min(shape[1:])
    for out in (32, 64, 128):
        halves = out > 32 and side >= 8
        layers += [nn.Conv2d(width, out, 3, stride=2 if halves else 1, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
        width, side = out, side // 2 if halves else side
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, WIDTH), nn.ReLU())
