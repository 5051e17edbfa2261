"""Any Dataset or DataLoader of torch as images in memory: the usual kinds are all read, of another the item is named.

An item is an image, a tuple or list (image, label, anything), or a mapping with the usual keys. An image is a Pillow one, an
array (H, W) or (H, W, C), or a tensor (C, H, W); uint8, bool, or floats that are in [0, 1] or, over all images, in [-1, 1].
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler, default_collate

from unnoise.data.classes import GIVE, NO_LABELS, Value, class_of, encode
from unnoise.data.dataset import ImageDataset
from unnoise.data.decode import to_grey_or_colour
from unnoise.data.fit import Fit
from unnoise.data.layout import CHANNELS, describe, to_uint8
from unnoise.data.pixels import HALF_RANGE
from unnoise.utils.errors import UserError

IMAGE_KEYS = ("image", "img", "images", "imgs", "pixel_values", "pixels", "x", "input", "data", "jpg", "jpeg", "png", "webp")
LABEL_KEYS = ("label", "labels", "target", "targets", "y", "class", "cls", "fine_label", "category", "coarse_label")
MAX_BYTES = 2**32  # of the images of a dataset that does not say its length, and may never end
ROUNDED = 0.499  # levels beyond the range that still round to its ends
DARK = -0.5  # floats in [-1, 1] have some below


class Item(NamedTuple):
    """An image and its label as the dataset gives them, with the number of the image."""

    number: int
    image: Any
    label: Any


class NegativeError(Exception):
    """Floats below 0, while they were taken to be in [0, 1]."""


def from_dataset(dataset: Any, fit: Fit | None = None, with_labels: bool = True) -> ImageDataset:
    """All images of a dataset, read once, brought to one size by `fit`; names of classes are the dataset's own, if it has them.

    Raises UserError naming the first item that does not fit.
    """
    try:
        return _read(dataset, fit or Fit(), with_labels, low=0)
    except NegativeError:
        return _read(dataset, fit or Fit(), with_labels, low=-1)


def first_size(dataset: Any) -> tuple[int, int]:
    """(height, width) of the first image. Raises UserError where there is none."""
    for k, image, _ in islice(_items(dataset), 1):
        h, w = _channels_last(image, k, Fit(range=(0, 1), bands=(1,))).shape[:2]  # whichever will be given
        return h, w
    raise UserError("the dataset holds no images")


def _read(dataset: Any, fit: Fit, with_labels: bool, low: int) -> ImageDataset:
    """All images, floats being in [low, 1]."""
    images: list[np.ndarray] = []
    values: list[Value | None] = []
    darkest, size = 0.0, 0
    ends = hasattr(dataset.dataset if isinstance(dataset, DataLoader) else dataset, "__len__")
    for k, image, label in _items(dataset):
        array = _channels_last(image, k, fit)
        darkest = min(darkest, float(array.min()) if array.dtype.kind == "f" else 0)
        images.append(_fitted(image, array, k, fit, low))
        values.append(_class(label, k) if with_labels else None)
        _check_alike(images, values)
        size += images[-1].nbytes
        if size > MAX_BYTES and not ends:
            raise UserError(f"the dataset does not say its length and has not ended after {k + 1} images: give one that ends")
    if not images:
        raise UserError("the dataset holds no images")
    if low < 0 and darkest > DARK:
        raise UserError(f"the darkest of the dataset's floats is {darkest:.3g}, so that they are in neither [0, 1] nor [-1, 1]: "
                        "leave their normalisation out, or give image.clamp(0, 1)")  # fmt: skip
    store, notes = _stack(images)
    if low < 0:
        notes = (*notes, f"floats, which go down to {darkest:.3g}, are taken to be in [-1, 1]")
    known = [v for v in values if v is not None]
    labels, classes = encode(known, names := _class_names(dataset)) if known else (None, ())
    if known and names and not set(classes) <= set(names):
        notes = (*notes, f"classes have their labels as names, which the dataset's own {len(names)} names don't fit")
    return ImageDataset(store, labels, classes, notes=notes)


def _stack(images: list[np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
    """All as one array, in colour if one is, and what was done to others."""
    grey = sum(image.shape[2] == 1 for image in images)
    mixed = 0 < grey < len(images)
    store = np.stack([np.repeat(image, 3, axis=2) if mixed and image.shape[2] == 1 else image for image in images])
    if store.max() == 1:
        raise UserError("the images of the dataset hold only 0 and 1, and images must be uint8 from 0 to 255: give 255 * image")
    return store, (f"{grey} of {len(images)} images are grey and taken as colour",) if mixed else ()


def _check_alike(images: list[np.ndarray], values: list[Value | None]) -> None:
    """Whether the last image has the size of the first, and a label if that has one."""
    k = len(images) - 1
    if images[k].shape[:2] != images[0].shape[:2]:
        raise UserError(f"image {k} has shape {images[k].shape} where image 0 has {images[0].shape}: give a size for all")
    if (values[k] is None) != (values[0] is None):
        raise UserError(f"image {k} has {'no' if values[k] is None else 'a'} label, unlike image 0: give one to all or to none, "
                        f"or {NO_LABELS}")  # fmt: skip


def _class(label: Any, k: int) -> Value | None:
    try:
        return None if label is None else class_of(label)
    except ValueError as e:
        raise UserError(f"the label of image {k} is {e}: {GIVE}") from e


def _items(dataset: Any) -> Iterator[Item]:
    """The images with their labels, one by one, also out of batches."""
    numbers = count()
    for k, item in enumerate(_raw(dataset)):
        image, label = _image_and_label(item, k)
        if not (isinstance(image, list | tuple) or getattr(image, "ndim", 0) == 4):
            yield Item(next(numbers), image, label)
            continue
        labels = [None] * len(image) if label is None else label
        if getattr(labels, "ndim", 1) == 0 or not hasattr(labels, "__len__") or len(labels) != len(image):
            raise UserError(
                f"item {k} of the dataset holds {len(image)} images, but not a label for each: give one image an item"
            )
        for one, its in zip(image, labels, strict=True):
            yield Item(next(numbers), one, its)


def _raw(dataset: Any) -> Iterator[Any]:
    """What the dataset gives, in its own order. Raises UserError for an item that fails."""

    def give(source: Any) -> Iterator[Any]:
        if hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, IterableDataset):
            yield from (source[k] for k in range(len(source)))
        else:
            yield from source

    given = give(_unloaded(dataset) if isinstance(dataset, DataLoader) else dataset)
    for k in count():
        try:
            item = next(given)
        except StopIteration:
            return
        except Exception as e:  # a dataset may fail in its own way
            raise UserError(f"item {k} of the dataset can't be read ({type(e).__name__}: {e}): mend it, or leave it out by "
                            "torch.utils.data.Subset") from e  # fmt: skip
        yield item


def _unloaded(loader: DataLoader[Any]) -> Any:
    """The dataset of a DataLoader or, where it makes its batches in a way of its own, those batches in order, each once."""
    samplers = {type(s) for s in (loader.sampler, getattr(loader.batch_sampler, "sampler", loader.sampler))}
    plain = samplers <= {SequentialSampler, RandomSampler} and type(loader.batch_sampler) in (BatchSampler, type(None))
    if not plain and not isinstance(loader.dataset, IterableDataset):
        raise UserError(f"the DataLoader chooses images by a {type(loader.sampler).__name__}: give its dataset, or "
                        "torch.utils.data.Subset(dataset, indices)")  # fmt: skip
    batch = getattr(loader.batch_sampler, "batch_size", None)
    if batch is None or loader.collate_fn is default_collate:
        return loader.dataset
    return iter(DataLoader(loader.dataset, batch, collate_fn=loader.collate_fn))


def _image_and_label(item: Any, k: int) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        key = next((key for key in IMAGE_KEYS if key in item), None)
        if key is None:
            raise UserError(f"item {k} of the dataset has the keys {', '.join(map(repr, item))}: call the image 'image' and its "
                            "label 'label'")  # fmt: skip
        return item[key], next((item[key] for key in LABEL_KEYS if key in item), None)
    if isinstance(item, list | tuple):
        if not item:
            raise UserError(f"item {k} of the dataset is an empty {type(item).__name__}: give (image, label)")
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _fitted(image: Any, array: np.ndarray, k: int, fit: Fit, low: int) -> np.ndarray:
    """uint8 (H, W, C) of an image whose values are `array`; those of a Pillow image have the range and bands of `fit` already."""
    if isinstance(image, Image.Image):
        fit = replace(fit, range=None, bands=None)
    elif fit.range is None or array.dtype.kind not in "iuf":
        array = _levels(array, k, low, isinstance(image, torch.Tensor))
    try:
        fitted: np.ndarray = fit.array(array[None])[0]
    except UserError as e:
        raise UserError(f"image {k}: {e}") from e
    return fitted


def _channels_last(image: Any, k: int, fit: Fit) -> np.ndarray:
    """(H, W, 1 or 3), of whatever numbers; any number of bands where `fit` takes some of them."""
    if isinstance(image, Image.Image):
        try:
            plain = to_grey_or_colour(ImageOps.exif_transpose(image), fit)
        except Exception as e:  # its file may be broken
            raise UserError(f"image {k} can't be read ({e or type(e).__name__}): mend it, or leave it out") from e
        return np.asarray(plain).reshape(plain.height, plain.width, -1)
    array = _as_array(image, k)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim == 3 and array.size:
        first, last = array.shape[0] in CHANNELS, array.shape[2] in CHANNELS
        if fit.bands is not None and not (first or last):
            first, last = isinstance(image, torch.Tensor), True
        if first and (isinstance(image, torch.Tensor) or not last):
            return array.transpose(1, 2, 0)
        if last:
            return array
    how = "image.convert('RGB') before it becomes numbers" if array.ndim == 3 and 4 in array.shape else "grey or RGB"
    raise UserError(
        f"image {k} is {array.dtype} of shape {array.shape}: give {how}, (H, W, C) as an array or (C, H, W) as a tensor"
    )


def _as_array(image: Any, k: int) -> np.ndarray:
    try:
        if isinstance(image, torch.Tensor):
            image = image.detach().cpu()
            return np.asarray(image.float() if image.is_floating_point() else image)
        if hasattr(image, "__array__"):
            return np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as e:  # sparse, on a device that is not there
        raise UserError(f"image {k} can't be read ({e}): give a plain tensor or array") from e
    kind = "nothing" if image is None else f"a {type(image).__name__}"
    raise UserError(f"image {k} is {kind}: give a Pillow image, an array or a tensor, such as PIL.Image.open(path)")


def _levels(array: np.ndarray, k: int, low: int, is_tensor: bool) -> np.ndarray:
    """uint8, from whatever numbers; floats are in [low, 1]."""
    if array.dtype in (np.uint8, np.bool_):
        return array if array.dtype == np.uint8 else array.astype(np.uint8) * np.uint8(255)

    def refuse(remedy: str) -> UserError:
        expression = to_uint8(array, "image", "to(torch.uint8)" if is_tensor else 'astype("uint8")')
        return UserError(f"image {k} is {describe(array)}: {remedy.format(expression)}")

    if array.dtype.kind != "f":
        raise refuse("give uint8, {}, or data.range")
    if not np.isfinite(array).all():
        raise refuse(f"mend it, {'torch' if is_tensor else 'numpy'}.nan_to_num(image)")
    exact = array.astype(np.float32) if array.dtype == np.float16 else array
    levels = exact * 255 if low == 0 else (exact + 1) * HALF_RANGE
    if -255 - ROUNDED <= levels.min() < -ROUNDED and levels.max() <= 255 + ROUNDED and low == 0:
        raise NegativeError
    if levels.min() < -ROUNDED or levels.max() > 255 + ROUNDED:
        raise refuse("give floats in [0, 1] or [-1, 1], or uint8, {}, or data.range")
    return np.round(levels).astype(np.uint8)


def _class_names(dataset: Any) -> tuple[str, ...]:
    """The names that a dataset, or the one that it wraps, has for its classes."""
    if isinstance(parts := getattr(dataset, "datasets", None), list | tuple) and parts:
        names = {_class_names(part) for part in parts}
        return names.pop() if len(names) == 1 else ()
    features = getattr(dataset, "features", None)  # of Hugging Face's datasets
    if isinstance(features, Mapping) and (key := next((k for k in LABEL_KEYS if k in features), None)):
        return tuple(getattr(features[key], "names", None) or ())
    found = getattr(dataset, "classes", None)
    if isinstance(found, list | tuple):
        return tuple(
            name if isinstance(name, str) else ", ".join(name) if isinstance(name, tuple) else str(name) for name in found
        )
    return _class_names(dataset.dataset) if hasattr(dataset, "dataset") else ()
