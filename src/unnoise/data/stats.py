"""Statistics of a data set: counts, sizes, classes, pixels, duplicates, and what could not be read."""

from collections.abc import Iterator, Sequence

import numpy as np

from unnoise.data.dataset import ImageDataset, OnDisk, Split
from unnoise.data.pixels import HALF_RANGE

NEAR = 4.0  # root mean square difference of two 16x16 thumbnails, of 255, below which they are near duplicates
THUMBNAIL = 16
UNEVEN = 10  # times as many images of one class as of another


def describe(images: ImageDataset, split: Split) -> Iterator[tuple[str, str]]:
    """The statistics, as pairs of a name and a text."""
    c, h, w = images.shape
    size = len(images) * c * h * w
    where = "read from disk as needed" if isinstance(images.store, OnDisk) else "in memory"
    yield "images", f"{len(images)} of {h}x{w}, {'grey' if c == 1 else 'colour'}; {size / 2**20:.1f} MiB, {where}"
    yield "to train on", f"{len(split.train)}; {len(split.held_out)} held out"
    mean, std = mean_and_std(images)
    yield "pixels on [-1, 1]", f"mean {mean:.3f}, standard deviation {std:.3f} (sigma_data)"
    for note in images.notes:
        yield "files", note
    if images.labels is not None:
        yield from describe_classes(images.labels, images.classes)
    duplicates = len(images) - len(np.unique(images.hashes))
    yield "exact duplicates", f"{duplicates} (never on both sides of the held-out split)"
    near = near_duplicates(split)
    first = f", e.g. image {near[0][1]} of those trained on and {near[0][0]} of those held out" if near else ""
    yield "near duplicates", f"{len(near)} held-out images have one among those trained on{first}"
    yield "unreadable", f"{len(images.skipped)}"


def describe_classes(labels: np.ndarray, classes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """How many images each class has, and where that is very uneven."""
    counts = np.bincount(labels, minlength=len(classes))
    named = [f"{name!r}: {n}" for name, n in zip(classes, counts, strict=True)]
    yield "classes", f"{len(named)}: {', '.join(named[:30])}{', ...' if len(named) > 30 else ''}"
    few, many = int(counts.argmin()), int(counts.argmax())
    if counts[many] >= UNEVEN * counts[few]:
        yield "imbalance", (f"{classes[many]!r} has {counts[many]} images and {classes[few]!r} {counts[few]}: the network hardly "
                            "learns classes so rare; add images to them or leave them away")  # fmt: skip


def mean_and_std(images: ImageDataset, max_images: int | None = None) -> tuple[float, float]:
    """Of all pixels on [-1, 1]; of large data sets at most `max_images`, evenly spaced."""
    count = total = squares = 0.0
    if max_images is not None and len(images) > max_images:
        mask = np.zeros(len(images), dtype=bool)
        mask[np.linspace(0, len(images) - 1, max_images).round().astype(int)] = True
        images = images.subset(mask)
    for part in images.chunks():
        x = part.astype(np.float64) / HALF_RANGE - 1
        count, total, squares = count + x.size, total + x.sum(), squares + np.square(x).sum()
    mean = total / count
    return mean, float(np.sqrt(max(0.0, squares / count - mean**2)))


def near_duplicates(split: Split) -> list[tuple[int, int]]:
    """Pairs (held-out image, nearest image trained on) that differ by less than `NEAR`, both by number."""
    if not len(split.held_out):
        return []
    from sklearn.neighbors import NearestNeighbors

    held_out, train = (
        np.concatenate([thumbnails(part).mean(3).reshape(len(part), -1) for part in images.chunks()])
        for images in (split.held_out, split.train)
    )
    distance, nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train).kneighbors(held_out)
    rms = distance[:, 0] / held_out.shape[1] ** 0.5
    return [(int(k), int(nearest[k, 0])) for k in np.flatnonzero(rms < NEAR)]


def thumbnails(pixels: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    """Means over blocks of images (N, H, W, C), float32, at most `side` x `side`."""
    found: np.ndarray = pixels.astype(np.float32)
    for axis in (1, 2):
        edges = np.linspace(0, found.shape[axis], min(side, found.shape[axis]) + 1).astype(int)
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        found = np.add.reduceat(found, edges[:-1], axis=axis) / np.diff(edges).reshape(shape).astype(np.float32)
    return found
