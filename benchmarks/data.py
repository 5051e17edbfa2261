"""Images a second: the notebook's pipeline, our first pass over a folder, and every later epoch.

    python benchmarks/data.py                     # 300 generated JPEGs of about 1 megapixel
    python benchmarks/data.py --large 5           # also: train on a generated array of 5 GB and measure the memory

The notebook's pipeline is torchvision's: decode, resize to 64x64, flip, to a float tensor on [-1, 1], in a DataLoader with
batches of 150, in the training process as there (the number with two workers is printed too). Ours is what `unnoise train`
does. All in one run: ratios matter.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from unnoise.data.dataset import ImageDataset, OnDisk
from unnoise.data.fit import Fit
from unnoise.data.folder import ImageFolder
from unnoise.diffusion.schedules import Karras
from unnoise.presets import PRESETS
from unnoise.recipe import override
from unnoise.training.batches import Batches
from unnoise.training.config import TrainingConfig
from unnoise.training.loop import train

SIZE = 64


class NotebookDataset(Dataset[torch.Tensor]):
    """As the notebook reads its images."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.iterdir())
        self.transform = transforms.Compose([
            transforms.Resize((SIZE, SIZE)), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
            transforms.Lambda(lambda t: t * 2 - 1),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, k: int) -> torch.Tensor:
        x: torch.Tensor = self.transform(Image.open(self.files[k]).convert("RGB"))
        return x


def make_photographs(folder: Path, count: int) -> None:
    """Smooth shapes with some grain: about as large, as files, as photographs of 1200x800 are."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:800, 0:1200] / 800
    for k in range(count):
        a, b, c = rng.uniform(2, 20, 3)
        waves = np.stack([np.sin(a * x + k), np.cos(b * y), np.sin(c * (x + y))], axis=2)
        pixels = 127 + 90 * waves + rng.normal(0, 12, (800, 1200, 1))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{k:04d}.jpg", quality=90)


def speed(work: Callable[[], int]) -> float:
    """Of `work`, which gives how many images it read, in images a second."""
    start = time.perf_counter()
    return work() / (time.perf_counter() - start)


def compare(count: int) -> None:
    with tempfile.TemporaryDirectory() as work:
        folder, cache = Path(work) / "photographs", Path(work) / "cache"
        folder.mkdir()
        make_photographs(folder, count)
        theirs = {n: speed(lambda n=n: sum(len(x) for x in DataLoader(NotebookDataset(folder), 150, num_workers=n)))  # type: ignore[misc]
                  for n in (0, 2)}  # fmt: skip
        first = speed(lambda: len(ImageFolder(str(folder)).read(Fit((SIZE, SIZE), "squash"), cache)))
        images = ImageFolder(str(folder)).read(Fit((SIZE, SIZE), "squash"), cache)
        batches = Batches(images, TrainingConfig(batch=150), Karras(), flip=True)
        later = speed(lambda: sum(len(batches.read(k)) for k in range(200)))
    print(f"the notebook's pipeline  {theirs[0]:8.0f} images/s (with two workers {theirs[2]:.0f})")
    print(f"our first pass           {first:8.0f} images/s, {first / theirs[0]:.1f} times as many")
    print(f"every later epoch        {later:8.0f} images/s, {later / theirs[0]:.0f} times")


def measure_memory(gigabytes: float) -> None:
    """Train on an array larger than what stays in memory: how much is resident at most?"""
    n = int(gigabytes * 2**30 / (SIZE * SIZE * 3))
    with tempfile.TemporaryDirectory() as work:
        path, rng = Path(work) / "pixels.npy", np.random.default_rng(0)
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, SIZE, SIZE, 3))
        for k in range(0, n, 8192):
            array[k : k + 8192] = rng.integers(0, 256, array[k : k + 8192].shape, dtype=np.uint8)
        del array
        images = ImageDataset(OnDisk(path), known_hashes=np.arange(n, dtype=np.uint64))
        recipe = override(PRESETS["images"], {"network.widths": [16, 32], "training.steps": 300, "training.batch": 32,
                                               "training.learning_rate": 1e-3, "target.sigma_data": 0.5})  # fmt: skip
        peak, done = [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                peak[0] = max(peak[0], psutil.Process().memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        steps = sum(1 for _ in train(recipe.build_state(images.shape, 0), images, recipe.training, flip=True))
        seconds = time.perf_counter() - start
        batches = Batches(images, TrainingConfig(batch=256), Karras(), flip=True)
        reading = speed(lambda: sum(len(batches.read(k)) for k in range(n // 256)))
        done.set()
        watcher.join()
    print(f"{n:,} images, {gigabytes:g} GB: {steps} steps in {seconds:.0f} s, then a whole epoch read at "
          f"{reading:.0f} images/s; at most {peak[0] / 2**30:.2f} GB resident")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--large", type=float, metavar="GB")
    a = parser.parse_args()
    compare(a.count)
    if a.large:
        measure_memory(a.large)


if __name__ == "__main__":
    main()
