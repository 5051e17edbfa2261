"""The cache: a list of files decoded once into one uint8 array on disk, which later runs and other processes only open.

    CACHE/<key>/pixels.npy   uint8 (N, H, W, C)        hashes.npy  labels are the listing's own
    CACHE/<key>/about.json   what it is; written last, so that a folder that has it is complete

The key is a hash of the list of files (names, sizes, times of change), of how they are fitted and of what can be read here. An
entry being built has the suffix `.tmp` and records the state of each file, so that building goes on after a crash.
"""

import functools
import hashlib
import math
import os
import re
import shutil
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np
from PIL import Image

from unnoise.data.dataset import ImageDataset, OnDisk, Source, hash_images
from unnoise.data.decode import Header, decode, read_header
from unnoise.data.fit import Fit
from unnoise.data.notes import describe_crop, describe_files, describe_values
from unnoise.data.wide import File, has_tifffile
from unnoise.utils import atomic
from unnoise.utils.errors import UserError

VERSION = 4  # of decoding and of this layout: a new one decodes again
IN_MEMORY = 2**30  # bytes: smaller sets are read whole
CHUNK, CHUNK_BYTES = 512, 2**26  # images and bytes between two records of what is done, at most
LARGE = 2**24  # pixels of an image of which no two are decoded at once
CHECKED = 16  # images of an entry that are held against their hashes whenever it is opened
ENTRY = re.compile(r"[0-9a-f]{24}(\.tmp)?")  # the name of an entry's folder
TODO, DONE, SKIPPED = 0, 1, 2


@dataclass(frozen=True)
class Listing:
    """What a source holds, before any of it is decoded.

    `open_file(k)` gives file k; `stamps` change when its content does; `crop(k, image)` is applied before it is fitted. The
    rest is as in `ImageDataset`; `skipped` are entries that are no files at all, `notes` say what is left out.
    """

    where: str
    names: Sequence[str]
    open_file: Callable[[int], File]
    stamps: Sequence[str]
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    test: np.ndarray | None = None
    crop: Callable[[int, Image.Image], Image.Image] | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def key(self, fit: Fit) -> str:
        digest = hashlib.blake2b(repr((VERSION, fit, self.where, has_tifffile())).encode(), digest_size=12)
        for name, stamp in zip(self.names, self.stamps, strict=True):
            digest.update(f"{name}\0{stamp}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()


class FileSource(Source):
    """A source of image files, which are listed before any is decoded."""

    @abstractmethod
    def listing(self) -> Listing:
        """What it holds. Raises UserError where that is nothing."""

    def read(self, fit: Fit, cache: Path | None = None) -> ImageDataset:
        return read_listing(self.listing(), fit, cache)


def cache_folder() -> Path:
    """Where decoded images are kept: $UNNOISE_CACHE, else the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("UNNOISE_CACHE") or platformdirs.user_cache_path("unnoise"))


def read_listing(listing: Listing, fit: Fit, cache: Path | None = None) -> ImageDataset:
    """The images of a listing, decoded now or before. Raises UserError if none can be read or the cache not written."""
    from filelock import FileLock

    folder = (cache or cache_folder()) / listing.key(fit)
    if _find_damage(folder, len(listing.names)) is not None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(folder.with_suffix(".lock")):  # one process decodes, others wait for it
                if _find_damage(folder, len(listing.names)) is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    _build(listing, fit, folder)
        except OSError as e:
            raise UserError(f"can't keep decoded images in '{folder.parent}' ({e.strerror or e}): "
                            "choose another `cache`") from e  # fmt: skip
    about = atomic.read_json(folder / "about.json")
    with suppress(OSError):  # another user's cache can be read only
        os.utime(folder / "about.json")  # the time of last use
    done = np.flatnonzero(np.load(folder / "state.npy") == DONE)
    pixels: np.ndarray | OnDisk = OnDisk(folder / "pixels.npy")
    if about["bytes"] <= IN_MEMORY:
        pixels = np.load(folder / "pixels.npy")
    labels, test = (None if a is None else a[done] for a in (listing.labels, listing.test))
    complete = len(done) == len(listing.names)
    skipped, notes = (*listing.skipped, *about["skipped"]), (*listing.notes, *about["notes"])
    return ImageDataset(pixels, labels, listing.classes, test, None if complete else done, skipped, notes,
                    np.load(folder / "hashes.npy")[done])  # fmt: skip


def _find_damage(folder: Path, count: int) -> str | None:
    """What is wrong with an entry of `count` files, None for nothing, as far as its shapes and some of its images show it."""
    try:
        about, pixels = atomic.read_json(folder / "about.json"), np.load(folder / "pixels.npy", mmap_mode="r")
        state, hashes = np.load(folder / "state.npy"), np.load(folder / "hashes.npy")
        if pixels.dtype != np.uint8 or pixels.shape != (count, *about["shape"]) or not len(state) == len(hashes) == count:
            return "its arrays have other shapes than it says"
        done = np.flatnonzero(state == DONE)
        some = done[np.linspace(0, len(done) - 1, min(len(done), CHECKED)).round().astype(int)]
        changed = some[hash_images(pixels[some]) != hashes[some]]
        return f"the pixels of image {changed[0]} have changed" if len(changed) else None
    except (OSError, ValueError, KeyError, TypeError) as e:
        return f"{type(e).__name__}: {e}"


def _build(listing: Listing, fit: Fit, folder: Path) -> None:
    n = len(listing.names)
    headers, broken = scan(listing, fit)
    good = [h for h in headers if h is not None]
    if not good:
        first = next(iter(broken.values()), "there are none")
        raise UserError(f"none of the {n} files in '{listing.where}' can be read as an image; the first: {first}")
    shape = (*_size(good, fit, listing), 1 if all(h.grey for h in good) else 3)
    work = folder.with_suffix(".tmp")
    work.mkdir(exist_ok=True)
    state, hashes = _resume(work, (n, *shape))
    for k in broken:
        state[k] = SKIPPED
    large = {k for k, h in enumerate(headers) if h is not None and h.height * h.width > LARGE}
    _decode_all(listing, fit, shape, work, state, hashes, broken, large)
    if not (state == DONE).any():
        shutil.rmtree(work)
        raise UserError(f"none of the {n} files in '{listing.where}' can be read as an image; the first: {broken[min(broken)]}")
    about = {"version": VERSION, "where": listing.where, "images": int((state == DONE).sum()), "shape": shape,
             "bytes": n * math.prod(shape), "fit": repr(fit), "made": time.time(),
             "skipped": [broken[k] for k in sorted(broken)],
             "notes": [*describe_files(good), *(describe_crop(good, fit) if listing.crop is None else ()),
                       *describe_values(headers, listing.open_file, fit)]}  # fmt: skip
    atomic.sweep(work)
    atomic.write_json(work / "about.json", about)
    atomic.flush_folder(work)
    work.rename(folder)
    atomic.flush_folder(folder.parent)


def _decode_all(
    listing: Listing, fit: Fit, shape: tuple[int, ...], work: Path, state: np.ndarray, hashes: np.ndarray,
    broken: dict[int, str], large: set[int],
) -> None:  # fmt: skip
    """Decode what is still to do into `work`/pixels.npy, noting after each chunk what is done, and why what is not.

    Of the images that are `large` one at a time is in memory.
    """
    record, one_at_a_time = math.prod(shape), Lock()

    def one(k: int) -> np.ndarray | str:
        try:
            crop = None if listing.crop is None else functools.partial(listing.crop, k)
            with one_at_a_time if k in large else nullcontext():
                image = decode(listing.open_file(k), fit, crop).convert("L" if shape[2] == 1 else "RGB")
            return np.asarray(image).reshape(1, *shape)
        except Exception as e:  # any decoder may fail in its own way on a broken file
            return _reason(listing.names[k], e)

    chunk_size = max(1, min(CHUNK, CHUNK_BYTES // record))
    with _array_file(work / "pixels.npy", (len(state), *shape)) as (file, start), ThreadPoolExecutor(os.cpu_count()) as pool:
        # Pillow decodes and resizes outside the interpreter's lock.
        for chunk in _progress("decoding", np.flatnonzero(state == TODO), chunk_size):
            for k, pixels in zip(chunk, pool.map(one, chunk), strict=True):
                if isinstance(pixels, str):
                    broken[k], state[k] = pixels, SKIPPED
                    continue
                hashes[k], state[k] = hash_images(pixels)[0], DONE
                file.seek(start + k * record)
                file.write(pixels.tobytes())
            file.flush()
            os.fsync(file.fileno())
            atomic.write(work / "hashes.npy", lambda p: np.save(p, hashes))
            atomic.write(work / "state.npy", lambda p: np.save(p, state))


def scan(listing: Listing, fit: Fit) -> tuple[list[Header | None], dict[int, str]]:
    """Every file's header, or the reason that it has none."""

    def one(k: int) -> Header | str:
        try:
            return read_header(listing.open_file(k), fit)
        except Exception as e:  # as above
            return _reason(listing.names[k], e)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [h for chunk in _progress("scanning", np.arange(len(listing.names)), CHUNK) for h in pool.map(one, chunk)]
    headers = [h if isinstance(h, Header) else None for h in found]
    return headers, {k: h for k, h in enumerate(found) if isinstance(h, str)}


def _reason(name: str, error: Exception) -> str:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{name!r}: {said}"


def _size(headers: Sequence[Header], fit: Fit, listing: Listing) -> tuple[int, int]:
    """The size asked for, or the one that all images have."""
    if fit.size is not None:
        return fit.size
    sizes = {(h.height, h.width) for h in headers}
    if len(sizes) > 1:
        raise UserError(f"the images have {len(sizes)} different sizes: say which to train at, e.g. data.size 64")
    h, w = sizes.pop()
    if listing.crop is not None:
        w, h = listing.crop(0, Image.new("L", (w, h))).size
    return h, w


def _progress(title: str, items: np.ndarray, size: int) -> Iterator[list[int]]:
    """In chunks, with a bar where the work is long."""
    from rich.progress import track

    chunks = [items[i : i + size].tolist() for i in range(0, len(items), size)]
    yield from track(chunks, title, transient=True, disable=len(items) < 2 * size)


def _resume(work: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What an interrupted build has done: the state of each file, and the hash of each image."""
    n = shape[0]
    try:
        state, hashes = np.load(work / "state.npy"), np.load(work / "hashes.npy")
        if len(state) == n and np.load(work / "pixels.npy", mmap_mode="r").shape == shape:
            return np.where(state == DONE, DONE, TODO), hashes
    except (OSError, ValueError):  # nothing there, or incomplete
        pass
    (work / "pixels.npy").unlink(missing_ok=True)
    return np.full(n, TODO, dtype=np.uint8), np.zeros(n, dtype=np.uint64)


@contextmanager
def _array_file(path: Path, shape: tuple[int, ...]) -> Iterator[tuple[IO[bytes], int]]:
    """A .npy of uint8 to be filled in any order, and the offset of its data."""
    if not path.is_file():
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    start = np.load(path, mmap_mode="r").offset
    with path.open("r+b") as file:
        yield file, start


@dataclass(frozen=True)
class CacheEntry:
    """One set of decoded images in the cache."""

    folder: Path
    where: str
    images: int
    bytes: int
    complete: bool


def list_cache(cache: Path | None = None) -> list[CacheEntry]:
    """What is in the cache, the most recently used first."""
    root = cache or cache_folder()
    entries = []
    ours = [p for p in root.glob("*") if ENTRY.fullmatch(p.name) and p.is_dir() and not p.is_symlink()]
    for folder in sorted(ours, key=lambda p: -p.stat().st_mtime):
        about = {}
        with suppress(OSError, ValueError):
            about = atomic.read_json(folder / "about.json")
        where = about.get("where", "interrupted; goes on when it is read again")
        entries.append(CacheEntry(folder, where, about.get("images", 0), _bytes(folder), bool(about)))
    return entries


def clear_cache(cache: Path | None = None) -> int:
    """Remove all of it; gives the number of bytes freed. Only folders that this module made are touched."""
    entries = list_cache(cache)
    for entry in entries:
        shutil.rmtree(entry.folder)
        entry.folder.with_suffix(".lock").unlink(missing_ok=True)
    return sum(entry.bytes for entry in entries)


def _bytes(folder: Path) -> int:
    found = (p.stat() for p in folder.iterdir())
    return sum(getattr(s, "st_blocks", -(-s.st_size // 512)) * 512 for s in found)  # Windows does not tell blocks
