"""Features of images in which distances mean something: those of a small classifier trained on labelled images."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from unnoise.data.dataset import ImageDataset
from unnoise.data.pixels import from_uint8
from unnoise.utils import rng
from unnoise.utils.errors import UserError

Features = Callable[[np.ndarray], np.ndarray]  # uint8 (N, H, W, C) -> float64 (N, D)
WIDTH = 64  # of the features


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
