"""A training step of the notebook's network at 64x64: as a notebook writes it, and as this project runs it.

    python benchmarks/notebook_speed.py [--batch 16] [--rounds 6]

The first is plain PyTorch: its own network, default layout, float32, a default Adam. The second is `unnoise.training.loop.train`
with the `notebook` preset, everything that a step does included. They take turns in one process, so that other load on the
machine affects both; the fastest round of each counts, and the ratio is what matters.
"""

import argparse
import math
import time
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unnoise.data.dataset import ImageDataset
from unnoise.presets import PRESETS
from unnoise.recipe import override
from unnoise.training.loop import train
from unnoise.utils.precision import bf16_pays
from unnoise.utils.runtime import Runtime


class PlainBlock(nn.Module):
    def __init__(self, i: int, o: int, up: bool) -> None:
        super().__init__()
        self.time = nn.Linear(32, o)
        self.first = nn.Conv2d(2 * i if up else i, o, 3, padding=1)
        self.last = nn.ConvTranspose2d(o, o, 4, 2, 1) if up else nn.Conv2d(o, o, 4, 2, 1)
        self.second = nn.Conv2d(o, o, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(o), nn.BatchNorm2d(o)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.norm1(functional.relu(self.first(x)))
        h = h + functional.relu(self.time(time))[..., None, None]
        h = self.norm2(functional.relu(self.second(h)))
        out: Tensor = self.last(h)
        return out


class PlainUnet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = [64, 128, 256, 512, 1024]
        self.time = nn.Linear(32, 32)
        self.conv_in = nn.Conv2d(3, 64, 3, padding=1)
        self.downs = nn.ModuleList(PlainBlock(i, o, False) for i, o in pairwise(widths))
        self.ups = nn.ModuleList(PlainBlock(i, o, True) for i, o in pairwise(widths[::-1]))
        self.conv_out = nn.Conv2d(64, 3, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.exp(torch.arange(16) * -(math.log(10000) / 15))
        time = functional.relu(self.time(torch.cat([angles.sin(), angles.cos()], dim=1)))
        x, skips = self.conv_in(x), []
        for down in self.downs:
            x = down(x, time)
            skips.append(x)
        for up in self.ups:
            x = up(torch.cat([x, skips.pop()], dim=1), time)
        out: Tensor = self.conv_out(x)
        return out


def plain_steps(x: Tensor, batch: int) -> Iterator[float]:
    """The notebook's loop, its data already in memory as float tensors."""
    torch.manual_seed(0)
    network = PlainUnet()
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 300), 0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    while True:
        clean = x[torch.randint(len(x), (batch,))]
        optimizer.zero_grad()
        t = torch.randint(0, 300, (batch,))
        noise = torch.randn_like(clean)
        scale = alpha_bar[t][:, None, None, None]
        loss = functional.l1_loss(network(scale.sqrt() * clean + (1 - scale).sqrt() * noise, t), noise)
        loss.backward()
        optimizer.step()
        yield loss.item()


def our_steps(images: ImageDataset, batch: int, bf16: bool) -> Iterator[float]:
    recipe = override(PRESETS["notebook"], {"training.batch": batch, "training.epochs": None, "training.steps": 10**6})
    state = recipe.build_state(images.shape, 0)
    for record in train(state, images, recipe.training, Runtime(bf16=bf16), flip=True):
        yield record.loss


def take_turns(loops: Mapping[str, Iterator[float]], rounds: int) -> dict[str, float]:
    """Seconds a step of each, in its fastest round of two steps, all taking turns; the first step of each is not typical."""
    fastest = dict.fromkeys(loops, math.inf)
    for k in range(rounds + 1):
        for name, steps in loops.items():
            start = time.perf_counter()
            list(islice(steps, 2 if k else 1))
            if k:
                fastest[name] = min(fastest[name], (time.perf_counter() - start) / 2)
    return fastest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=6)
    a = parser.parse_args()
    images = ImageDataset(np.random.default_rng(0).integers(0, 256, (256, 64, 64, 3), dtype=np.uint8))
    bf16, gain = bf16_pays("cpu")
    loops = {"plain": plain_steps(images.tensor(), a.batch), "ours": our_steps(images, a.batch, bf16)}
    fastest = take_turns(loops, a.rounds)
    for name, seconds in fastest.items():
        print(f"{name:6} {a.batch / seconds:6.2f} images/s")
    print(
        f"ratio  {fastest['plain'] / fastest['ours']:6.2f}   ({'bf16' if bf16 else 'fp32'}; bf16 measured {gain:.2f} times fp32)"
    )


if __name__ == "__main__":
    main()
