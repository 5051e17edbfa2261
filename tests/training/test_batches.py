"""What each step sees is a function of (seed, step), whichever process reads it."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from unnoise.data.sources import DataConfig
from unnoise.diffusion.schedules import Flow
from unnoise.training.batches import Batches, Prefetch
from unnoise.training.config import TrainingConfig
from unnoise.training.matching import DistributionMatching
from unnoise.utils.runtime import Runtime


def test_an_epoch_sees_every_image_once() -> None:
    images = DataConfig().load().subset(np.arange(1797) < 50)
    config = TrainingConfig(batch=10, seed=3)
    batches = Batches(images, config, Flow())
    visited = np.concatenate([batches.read(k).flatten(1).numpy() for k in range(5)])
    expected = images.pixels.reshape(50, -1).astype(np.float32) / 127.5 - 1
    assert np.array_equal(visited[np.lexsort(visited.T)], expected[np.lexsort(expected.T)])
    far = Batches(images, config, Flow()).read(17)  # without reading what is before it
    [batches.read(k) for k in range(17)]
    assert torch.equal(batches.read(17), far)


def test_the_last_partial_batch_is_dropped() -> None:
    """As a PyTorch loader with drop_last: 50 images in batches of 15 are three steps an epoch, the order new in each."""
    images = DataConfig().load().subset(np.arange(1797) < 50)
    config = TrainingConfig(batch=15, epochs=2, drop_last=True)
    assert config.steps_asked(50) == 6 and dataclasses.replace(config, drop_last=False).steps_asked(50) == 7
    assert dataclasses.replace(config, steps=4).steps_asked(50) == 4
    assert TrainingConfig(batch=32, epochs=1).steps_asked(10) == 1  # never none
    batches = Batches(images, config, Flow())
    epochs = [{x.numpy().tobytes() for k in range(3) for x in batches.read(3 * e + k)} for e in range(2)]
    assert len(epochs[0]) == len(epochs[1]) == 45 and epochs[0] != epochs[1]
    few = TrainingConfig(batch=60, epochs=3, drop_last=True)  # nothing would be left: batches span epochs instead
    assert few.steps_asked(50) == 3 and len(Batches(images, few, Flow()).read(0)) == 60


def test_each_process_reads_its_part() -> None:
    """Parts of 2, 3 and 5 processes put together are what one process sees, to the bit; also when prefetched."""
    images = DataConfig().load()
    config = TrainingConfig(batch=8, label_dropout=0.4, objective=DistributionMatching())
    whole = Batches(images, config, Flow(), flip=True, augment=0.2)
    for count in (2, 3, 5):
        runtimes = [Runtime(rank=k, world_size=count) for k in range(count)]
        parts = [Batches(images, config, Flow(), runtime, flip=True, augment=0.2) for runtime in runtimes]
        for step in (0, 300):
            for expected, pieces in zip(whole(step)[:-1], zip(*(p(step)[:-1] for p in parts), strict=True), strict=True):
                assert expected is not None and torch.equal(expected, torch.cat([p for p in pieces if p is not None]))
        assert [p(0).first for p in parts] == [p.part.start for p in parts]
    with ThreadPoolExecutor(1) as pool:
        prefetch = Prefetch(whole, pool)
        for step in (0, 1, 2, 7):
            for found, expected in zip(prefetch(step)[:-1], whole(step)[:-1], strict=True):
                assert found is not None and expected is not None and torch.equal(found, expected)
