"""A training step of ours compared with those of other programs: images a second, peak memory, and overhead.

    pip install denoising-diffusion-pytorch ema-pytorch diffusers
    python benchmarks/step_speed.py [--size 64] [--batch 8] [--rounds 4]

Each contender is a training loop around a network, everything that the loop does in a step included (average, clipping,
learning rate), its images in memory. Theirs are written as their own trainers do it, around their own default networks and
around ours of one size (widths 64, 128, 192, patches of 2); theirs in float32, which is their default, and ours in its default
precision. All take turns in one process, so that other load on the machine affects all; the fastest round of each counts, and
ratios are what matters. Peak memory is that of a process of each contender's own. Overhead is the fraction of a step that is
neither forward pass, backward pass nor optimizer.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch
from notebook_speed import our_steps, plain_steps, take_turns
from torch import Tensor, nn
from torch.nn import functional

from unnoise.data.dataset import ImageDataset
from unnoise.networks.unet import UNetConfig
from unnoise.presets import PRESETS
from unnoise.recipe import override
from unnoise.runs.settle import settle
from unnoise.training import loop
from unnoise.utils.precision import bf16_pays
from unnoise.utils.runtime import Runtime

Steps = Iterator[float]
OURS = UNetConfig((64, 128, 192), blocks=1, patch=2)


def make_images(size: int) -> ImageDataset:
    return ImageDataset(np.random.default_rng(0).integers(0, 256, (128, size, size, 3), dtype=np.uint8))


def our_network(size: int) -> nn.Module:
    return OURS.build(3, (size, size), 0)


class AsLucidrains(nn.Module):
    """Our network with what lucidrains' GaussianDiffusion asks of one."""

    channels, out_dim, self_condition, random_or_learned_sinusoidal_cond = 3, 3, False, False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, _: Tensor | None = None) -> Tensor:
        return self.network(x, t.float() / 1000)


class AsDiffusers(nn.Module):
    """Our network with the call of diffusers' UNet2DModel."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor]:
        return (self.network(x, t.float() / 1000),)


def lucidrains(images: ImageDataset, batch: int, network: nn.Module | None = None) -> Steps:
    """Trainer.train of denoising-diffusion-pytorch, defaults: Adam, clipping at 1, an average every 10 steps."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    size = images.shape[1]
    model = GaussianDiffusion(AsLucidrains(network) if network else Unet(dim=64, dim_mults=(1, 2, 4, 8)), image_size=size)
    optimizer, average = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.99)), EMA(model, update_every=10)
    x = (images.tensor() + 1) / 2
    while True:
        loss = model(x[torch.randint(len(x), (batch,))])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        yield loss.item()


def diffusers(images: ImageDataset, batch: int, network: nn.Module | None = None) -> Steps:
    """train_unconditional.py of diffusers, defaults: its six-level network, AdamW, clipping at 1, cosine rate."""
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.optimization import get_scheduler

    down = ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D")
    up = ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4
    model = AsDiffusers(network) if network else UNet2DModel(
        sample_size=images.shape[1], layers_per_block=2, block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=down, up_block_types=up)  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
    scheduler, rate = DDPMScheduler(1000), get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=10_000)
    x = images.tensor()
    while True:
        clean = x[torch.randint(len(x), (batch,))]
        noise, t = torch.randn_like(clean), torch.randint(0, 1000, (batch,))
        loss = functional.mse_loss(model(scheduler.add_noise(clean, noise, t), t)[0], noise)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        yield loss.detach().item()


def ours(images: ImageDataset, batch: int) -> Steps:
    recipe = override(PRESETS["images"], {"network": OURS, "training.batch": batch, "training.steps": 10**6,
                                          "training.learning_rate": 1e-3, "target.sigma_data": 0.5})  # fmt: skip
    state = recipe.build_state(images.shape, 0)
    for record in loop.train(state, images, recipe.training, Runtime(bf16=bf16_pays("cpu", 0.3)[0]), flip=True):
        yield record.loss


def contenders(size: int, batch: int) -> dict[str, Callable[[], Steps]]:
    images = make_images(size)
    return {
        "notebook's loop, notebook's network": lambda: plain_steps(images.tensor(), 2 * batch),
        "our loop, notebook's network": lambda: our_steps(images, 2 * batch, bf16_pays("cpu", 0.3)[0]),
        "lucidrains, its network": lambda: lucidrains(images, batch),
        "diffusers, its network": lambda: diffusers(images, batch),
        "lucidrains, our network": lambda: lucidrains(images, batch, our_network(size)),
        "diffusers, our network": lambda: diffusers(images, batch, our_network(size)),
        "ours, our network": lambda: ours(images, batch),
    }


def overhead(images: ImageDataset, batch: int, preset: str, steps: int) -> float:
    """The fraction of a step that is neither forward pass, backward pass nor optimizer."""
    recipe = override(PRESETS[preset], {"training.batch": batch, "training.minutes": None, "training.steps": 2000,
                                        "data.labels": False})  # fmt: skip
    recipe, *_ = settle(recipe, images, Runtime(), print, time.perf_counter())
    state = recipe.build_state(images.shape, 0)
    inside = 0.0

    def timed(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **options: object) -> object:
            nonlocal inside
            start = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                inside += time.perf_counter() - start

        return wrapped

    real = loop.diffusion_loss, Tensor.backward
    loop.diffusion_loss, Tensor.backward = timed(real[0]), timed(real[1])  # type: ignore[assignment, method-assign]
    for optimizer in state.optimizers:
        optimizer.step = timed(optimizer.step)  # type: ignore[method-assign]
    records = loop.train(state, images, recipe.training, Runtime(bf16=bf16_pays("cpu", 0.3)[0]), flip=True)
    list(islice(records, 3))
    start, inside = time.perf_counter(), 0.0
    list(islice(records, steps))
    fraction = 1 - inside / (time.perf_counter() - start)
    loop.diffusion_loss, Tensor.backward = real  # type: ignore[method-assign]
    return fraction


def peak_memory(name: str, size: int, batch: int) -> float:
    """MiB resident at most in a process of this contender alone, less those of one that only imports everything."""
    words = [sys.executable, __file__, "--size", str(size), "--batch", str(batch), "--alone"]
    found = [int(subprocess.run([*words, n], capture_output=True, text=True, check=True).stdout) for n in (name, "")]
    return (found[0] - found[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    a = parser.parse_args()
    found = contenders(a.size, a.batch)
    if a.alone is not None:
        bf16_pays("cpu", 0.3)
        if a.alone:
            list(islice(found[a.alone](), 3))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    memory = {name: peak_memory(name, a.size, a.batch) for name in found}
    loops = {name: make() for name, make in found.items()}
    fastest = take_turns(loops, a.rounds)
    sizes = {name: a.batch * (2 if "notebook's network" in name else 1) for name in found}
    for name, seconds in fastest.items():
        print(json.dumps({"loop": name, "batch": sizes[name], "images/s": round(sizes[name] / seconds, 2),
                          "peak MiB": round(memory[name])}))  # fmt: skip
    ratio = fastest["notebook's loop, notebook's network"] / fastest["our loop, notebook's network"]
    print(json.dumps({"ours to the notebook's, its network": round(ratio, 2)}))
    for preset, size, batch, steps in (("digits", 8, 32, 60), ("fashion-mnist", 28, 32, 30), ("images", 64, 32, 6)):
        print(json.dumps({"preset": preset, "overhead": round(overhead(make_images(size), batch, preset, steps), 4)}))


if __name__ == "__main__":
    main()
