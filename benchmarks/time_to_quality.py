"""How good images are after some seconds of training: ours beside other programs, on the same machine, one after the other.

    pip install denoising-diffusion-pytorch ema-pytorch diffusers
    python benchmarks/time_to_quality.py DATA OUT --seconds 60 [--seeds 3] [--precision fp32] [-n 500]
           [--only ours,notebook,lucidrains,diffusers] [--max-calls 250] [--judge 'python judge.py digits']

Each contender trains for the same seconds, then samples N images with its own default sampler (cut to `--max-calls` network
calls). Theirs are written as their own trainers do it: their networks with as many levels as the images
allow (the lowest at least 4 pixels a side), their optimizers and averages, float32 (with `--others-precision bf16`: bfloat16
by autocast, weights with channels last); ours is `unnoise train DATA --minutes`.
Quality is the Frechet distance, and the kernel distance, to as many held-out images in features of a small classifier that is
trained on the training images' labels here; an external judge, any command that prints a line of JSON with `fd` for each .npz,
may check it.
Appends a line of JSON for each to OUT/results.jsonl; what is there is not measured again. A table and a plot follow.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unnoise import __version__
from unnoise.data.dataset import ImageDataset, Split, split
from unnoise.data.pixels import to_uint8
from unnoise.evaluation.distances import frechet_distance, kernel_distance
from unnoise.evaluation.features import classifier_features
from unnoise.networks.simple_unet import SimpleUnet
from unnoise.presets import recipe_for
from unnoise.registry import source_of
from unnoise.utils.precision import autocast

Sample = Callable[[int], Tensor]  # n -> (n, C, H, W) on [-1, 1]
Step = Callable[[], object]


def levels(side: int, most: int) -> int:
    """How often a side can be halved, and at least 4 pixels remain, plus one."""
    count = 1
    while count < most and side % 2 == 0 and side // 2 >= 4:
        side, count = side // 2, count + 1
    return count


def batches(x: Tensor, size: int) -> Iterator[Tensor]:
    while True:
        for index in torch.randperm(len(x)).split(size):
            if len(index) == size or len(x) < size:
                yield x[index]


def notebook(images: ImageDataset, calls: int, layout: torch.memory_format) -> tuple[Step, Sample]:
    """The teaching notebook's loop and network, batch 150, Adam; DDPM in all of its 300 steps."""
    count = levels(images.shape[1], 5)
    network = SimpleUnet(images.shape[0], (64, 128, 256, 512, 1024)[: max(2, count)], 32).to(memory_format=layout)
    beta = torch.linspace(1e-4, 0.02, 300)
    alpha, alpha_bar = 1 - beta, torch.cumprod(1 - beta, 0)
    optimizer, clean = torch.optim.Adam(network.parameters(), lr=1e-3), batches(images.tensor(), min(150, len(images)))

    def step() -> None:
        x = next(clean)
        optimizer.zero_grad()
        t, noise = torch.randint(0, 300, (len(x),)), torch.randn_like(x)
        scale = alpha_bar[t][:, None, None, None]
        functional.l1_loss(network(scale.sqrt() * x + (1 - scale).sqrt() * noise, t.float()), noise).backward()
        optimizer.step()

    def sample(n: int) -> Tensor:
        network.eval()
        x = torch.randn(n, *images.shape)
        for k in reversed(range(300)):
            eps = network(x, torch.full((n,), float(k)))
            x = (x - beta[k] / (1 - alpha_bar[k]).sqrt() * eps) / alpha[k].sqrt()
            if k:
                variance = beta[k] * (1 - alpha_bar[k - 1]) / (1 - alpha_bar[k])
                x = x + variance.sqrt() * torch.randn_like(x)
            x = x.clamp(-1, 1)
        return x

    return step, sample


def lucidrains(images: ImageDataset, calls: int, layout: torch.memory_format) -> tuple[Step, Sample]:
    """Trainer.train of denoising-diffusion-pytorch, defaults: Adam, clipping at 1, an average every 10 steps; DDIM."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    c, side = images.shape[:2]
    network = Unet(dim=64, dim_mults=(1, 2, 4, 8)[: levels(side, 4)], channels=c).to(memory_format=layout)
    model = GaussianDiffusion(network, image_size=side, timesteps=1000, sampling_timesteps=min(250, calls))
    optimizer, average = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.99)), EMA(model, update_every=10)
    clean = batches((images.tensor() + 1) / 2, 16)

    def step() -> None:
        model(next(clean)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()

    return step, lambda n: average.ema_model.eval().sample(batch_size=n) * 2 - 1


def diffusers(images: ImageDataset, calls: int, layout: torch.memory_format) -> tuple[Step, Sample]:
    """train_unconditional.py of diffusers, defaults: its network, AdamW, clipping at 1, cosine rate; DDPM."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
    from diffusers.optimization import get_scheduler

    c, side = images.shape[:2]
    widths = (128, 128, 256, 256, 512, 512)[: levels(side, 6)]
    attends = [k == len(widths) - 2 for k in range(len(widths))]
    network = UNet2DModel(
        sample_size=side, in_channels=c, out_channels=c, layers_per_block=2, block_out_channels=widths,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)))  # fmt: skip
    network.to(memory_format=layout)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
    scheduler, rate = DDPMScheduler(1000), get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=10_000)
    clean = batches(images.tensor(), 16)

    def step() -> None:
        x = next(clean)
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        functional.mse_loss(network(scheduler.add_noise(x, noise, t), t)[0], noise).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()

    def sample(n: int) -> Tensor:
        pipeline = DDPMPipeline(network.eval(), scheduler)
        pipeline.set_progress_bar_config(disable=True)
        found = pipeline(batch_size=n, num_inference_steps=min(1000, calls), output_type="np").images
        return torch.from_numpy(found).permute(0, 3, 1, 2) * 2 - 1

    return step, sample


OTHERS = {"notebook": notebook, "lucidrains": lucidrains, "diffusers": diffusers}


def run_other(name: str, images: ImageDataset, seconds: float, seed: int, n: int, calls: int, bf16: bool) -> dict:
    torch.manual_seed(seed)
    begun = time.perf_counter()
    step, sample = OTHERS[name](images, calls, torch.channels_last if bf16 else torch.contiguous_format)
    count = 0
    while time.perf_counter() - begun < seconds:
        with autocast("cpu", bf16):
            step()
        count += 1
    trained = time.perf_counter()
    with torch.no_grad(), autocast("cpu", bf16):
        parts = [sample(min(125, n - k)).float().clamp(-1, 1) for k in range(0, n, 125)]
    return {
        "steps": count,
        "seconds": trained - begun,
        "sampling": time.perf_counter() - trained,
        "images": to_uint8(torch.cat(parts)),
    }


def run_ours(data: Path, folder: Path, seconds: float, seed: int, n: int, precision: str, options: list[str]) -> dict:
    command = [sys.executable, "-m", "unnoise", "train", str(data), "--minutes", str(seconds / 60), "--run", str(folder),
               "--seed", str(seed), "--training.precision", precision, *options]  # fmt: skip
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    trained = time.perf_counter()
    out = folder / "images.npz"
    subprocess.run([sys.executable, "-m", "unnoise", "sample", str(folder), "-n", str(n), "--out", str(out)], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    with np.load(out) as file:
        pixels = file[file.files[0]]
    info = json.loads((folder / "recipe.json").read_text())
    return {"steps": info["total_steps"], "seconds": trained - begun, "sampling": time.perf_counter() - trained, "images": pixels,
            "widths": info["recipe"]["network"]["widths"]}  # fmt: skip


def measure(
    options: argparse.Namespace, name: str, seed: int, parts: Split, features: Callable[[np.ndarray], np.ndarray]
) -> dict:
    precision = options.precision if name == "ours" else options.others_precision
    where = options.out / f"{name}-{options.seconds:g}-{precision}-{seed}"
    if name == "ours":
        found = run_ours(
            options.train_data, where, options.seconds, seed, options.n, options.precision, shlex.split(options.ours)
        )
    else:
        bf16 = options.others_precision == "bf16"
        found = run_other(name, parts.train, options.seconds, seed, options.n, options.max_calls, bf16)
    pixels = found.pop("images")
    path = options.out / f"{where.name}.npz"
    np.savez(path, images=pixels)
    real, count = features(parts.held_out.pixels), min(len(pixels), len(parts.held_out))
    mine = features(pixels)
    found |= {"fd": frechet_distance(mine[:count], real[:count]), "kid": kernel_distance(mine, real)}
    if options.judge:
        printed = subprocess.run([*shlex.split(options.judge), str(path)], capture_output=True, text=True, check=True).stdout
        found["judge"] = json.loads(printed.splitlines()[-1])
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}


def table(rows: list[dict]) -> None:
    print("| | seconds | precision | steps | Frechet distance, median (all seeds) | judge's fd / c2st | seconds for the images |")
    print("|---|---|---|---|---|---|---|")
    keys = sorted({(r["name"], r["asked"], r["precision"]) for r in rows}, key=str)
    for key in keys:
        mine = [r for r in rows if (r["name"], r["asked"], r["precision"]) == key]
        distances = sorted(r["fd"] for r in mine)
        judged = [r["judge"] for r in mine if "judge" in r]
        said = f"{np.median([j['fd'] for j in judged]):.2f} / {np.median([j['c2st'] for j in judged]):.3f}" if judged else ""
        print(
            f"| {key[0]} | {key[1]:g} | {key[2]} | {np.median([r['steps'] for r in mine]):.0f} | {np.median(distances):.2f} "
            f"({', '.join(f'{d:.2f}' for d in distances)}) | {said} | {np.median([r['sampling'] for r in mine]):.1f} |"
        )


def plot(rows: list[dict], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, key, label in zip(figure.subplots(1, 2, sharey=True), ("seconds", "sampling"),
                                ("seconds of training", "seconds of sampling"), strict=True):  # fmt: skip
        for name in dict.fromkeys(r["name"] for r in rows):
            mine = sorted((r[key], r["fd"]) for r in rows if r["name"] == name)
            axes.plot(*zip(*mine, strict=True), "o", label=name)
        axes.set(xlabel=label, xscale="log", yscale="log")
    axes.legend(frameon=False)
    figure.axes[0].set_ylabel("Frechet distance")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--others-precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--only", default="ours,notebook,lucidrains,diffusers")
    parser.add_argument("--max-calls", type=int, default=250)
    parser.add_argument("--held-out", type=float, default=0.2, help="fraction held out, where the data has no test images")
    parser.add_argument("--judge")
    parser.add_argument("--ours", default="", help="further options of unnoise train")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    recipe = recipe_for(source_of(options.data))[1]
    parts = split(recipe.data.load(), options.held_out)
    # Ours trains on an .npz of the training images alone.
    options.train_data = options.out / "train.npz"
    labels = {} if parts.train.labels is None else {"labels": parts.train.labels}
    np.savez(options.train_data, images=parts.train.pixels, **labels)
    features = classifier_features(parts.train)
    real = parts.held_out.pixels[: options.n]
    floor = frechet_distance(features(parts.train.pixels[: len(real)]), features(real))
    print(f"unnoise {__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads; {len(parts.train)} images to "
          f"train on; {len(real)} of these have a Frechet distance of {floor:.2f} to as many held out", flush=True)  # fmt: skip
    results = options.out / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for seed in range(options.seeds):
        for name in options.only.split(","):
            about = {
                "name": name,
                "asked": options.seconds,
                "precision": options.precision if name == "ours" else options.others_precision,
                "seed": seed,
            }
            if any(about.items() <= row.items() for row in rows):
                continue
            rows.append(about | measure(options, name, seed, parts, features))
            with results.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(rows[-1], flush=True)
    table(rows)
    plot(rows, options.out / "time-to-quality.png")


if __name__ == "__main__":
    main()
