"""Restoring images: a trained run compared with the classical tools of scikit-image, on any folder of images.

    python benchmarks/restore.py RUN IMAGES [-n 40] [--tasks denoise-25,upscale] [--samples 8] [--method spectral] [--steps 15]

IMAGES are read as the run's training images were, and only those are used that the run held out (by content), so that none
was trained on. Noise is not clipped; PSNR (dB) is averaged per image. BM3D is measured where a package `bm3d` is installed;
`linear` is the best linear estimate, from the training images' mean and covariance.
`coverage` is how often the clean value lies in the 90 % interval (Student's) of the samples' own mean and standard deviation;
values that were measured without noise are not counted.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage, stats
from skimage import restoration
from torch import Tensor
from torch.nn import functional

from unnoise.data.dataset import split
from unnoise.data.pixels import HALF_RANGE
from unnoise.data.sources import DataConfig, find_source
from unnoise.diffusion.gaussian import GaussianDenoiser
from unnoise.model import Model
from unnoise.restoration.noise import GaussianNoise, PoissonNoise, SpeckleNoise, estimate_sigma
from unnoise.restoration.operators import Blur, Mask, Operator
from unnoise.restoration.posteriors import POSTERIORS, Measurement, denoise
from unnoise.restoration.restore import Restored
from unnoise.restoration.tasks import Deblur, Dejpeg, Denoise, Inpaint, SaltAndPepper, Task, Upscale
from unnoise.utils.rng import BatchRng

Classical = Callable[[np.ndarray], np.ndarray]  # (H, W, C) on [0, 1]


def psnr(x: Tensor, y: Tensor, where: Tensor | None = None) -> float:
    """Per image, on average."""
    error = (x.clamp(-1, 1) - y).square()
    if where is not None:
        error = error[..., where]
    return round(float((10 * torch.log10(4 / error.flatten(1).mean(1))).mean()), 2)


def per_image(y: Tensor, tool: Classical) -> Tensor:
    """A classical tool on each of y (N, C, H, W)."""
    pixels = (y.permute(0, 2, 3, 1).double().numpy() + 1) / 2
    done = [tool(p).reshape(p.shape) for p in pixels]  # some tools drop the channel of a grey image
    return torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2).float() * 2 - 1


def nlm(sigma: float) -> Classical:
    """Non-local means; `sigma` on [0, 1]."""

    def call(p: np.ndarray) -> np.ndarray:
        axis = 2 if p.shape[2] == 3 else None  # it fails on a single channel
        p = p.squeeze()
        return restoration.denoise_nl_means(p, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, channel_axis=axis)

    return call


def bm3d(sigma: float) -> Classical | None:
    if importlib.util.find_spec("bm3d") is None:
        return None
    import bm3d as package

    return lambda p: package.bm3d_rgb(p, sigma) if p.shape[2] == 3 else package.bm3d(p, sigma)


def anscombe(peak: float) -> Classical | None:
    """BM3D between Anscombe's root, which makes the noise of counts nearly normal, and its inverse (Makitalo & Foi 2011)."""
    largest = 2 * (2 * peak + 0.375) ** 0.5  # of twice the peak
    denoise = bm3d(1 / largest)

    def call(p: np.ndarray) -> np.ndarray:
        assert denoise is not None
        d = np.maximum(denoise(2 * np.sqrt(np.maximum(peak * p, 0) + 0.375) / largest) * largest, 2 * 0.375**0.5)
        counts = d**2 / 4 + 1.5**0.5 / (4 * d) - 11 / (8 * d**2) + 5 * 1.5**0.5 / (8 * d**3) - 1 / 8
        return np.maximum(counts, 0) / peak

    return None if denoise is None else call


def wiener(blur: Blur) -> Classical:
    kernel = blur.kernel.double().numpy()
    edge = 2 * len(kernel)  # mirrored: scikit-image assumes periodic images

    def channel(p: np.ndarray) -> np.ndarray:
        wider = np.pad(p, edge, mode="reflect")
        return restoration.wiener(wider, kernel, 0.002, clip=False)[edge:-edge, edge:-edge]

    return lambda p: np.stack([channel(p[..., c]) for c in range(p.shape[2])], axis=2)


def biharmonic(mask: Tensor) -> Classical:
    return lambda p: restoration.inpaint_biharmonic(p, mask.numpy() == 0, channel_axis=2)


def median(p: np.ndarray) -> np.ndarray:
    """Of 3x3, only where a value is black or white."""
    return np.where((p <= 0) | (p >= 1), ndimage.median_filter(p, size=(3, 3, 1)), p)


def total_variation(p: np.ndarray) -> np.ndarray:
    return restoration.denoise_tv_chambolle(p, weight=0.03, channel_axis=2)


def tasks(size: tuple[int, int], colour: bool) -> dict[str, tuple[Task, dict[str, Classical | None]]]:
    half, fifth = (Mask.random(size, missing).mask for missing in (0.5, 0.8))
    side = 3 * size[0] // 8
    box = Mask.box(size, (size[0] - side) // 2, (size[1] - side) // 2, side, side).mask
    found: dict[str, tuple[Task, dict[str, Classical | None]]] = {}
    for level in (15, 25, 50, 100):
        s = level / 255
        found[f"denoise-{level}"] = Denoise(GaussianNoise(level)), {"nlm": nlm(s), "bm3d": bm3d(s)}
    found["upscale"] = Upscale(4), {}
    found["inpaint-50"] = Inpaint(half), {"biharmonic": biharmonic(half)}
    found["inpaint-80"] = Inpaint(fifth), {"biharmonic": biharmonic(fifth)}
    found["box"] = Inpaint(box), {"biharmonic": biharmonic(box)}
    found["deblur"] = Deblur(1.5, noise=GaussianNoise(2.55)), {"wiener": wiener(Blur.gaussian(1.5))}
    found["poisson"] = Denoise(PoissonNoise(30)), {"nlm": nlm(0.12), "bm3d after Anscombe": anscombe(30)}
    found["speckle"] = Denoise(SpeckleNoise(0.2)), {"nlm": nlm(0.1)}
    found["salt-and-pepper"] = SaltAndPepper(0.1), {"median": median}
    found["jpeg-10"] = Dejpeg.of_quality(10, colour), {"total variation": total_variation}
    return found


def measure(task: Task, y: Tensor) -> Measurement:
    """One measurement of all degraded images y (N, C, h, w)."""
    each = [task.measure(p[None]) for p in y]
    values, variance = (torch.cat([getattr(m, part).expand(1, *m.y.shape[1:]) for m in each]) for part in ("y", "variance"))
    masks = [m.operator.mask for m in each if isinstance(m.operator, Mask) and m.operator.mask.ndim == 4]
    operator = Mask(torch.cat(masks)) if masks else each[0].operator  # detected in each image, or the same for all
    return Measurement(values, operator, variance, each[0].shape)


def coverage(found: Restored, clean: Tensor, operator: Operator) -> float:
    count = len(found.samples)
    reach = float(stats.t.ppf(0.95, count - 1)) * (1 + 1 / count) ** 0.5
    inside = (found.samples.mean(0) - clean).abs() <= reach * found.std
    if isinstance(operator, Mask):
        inside = inside[(operator.mask == 0).expand_as(inside)]
    return round(float(inside.float().mean()), 3)


def ours(model: Model, task: Task, y: Tensor, clean: Tensor, where: Tensor | None, a: argparse.Namespace) -> dict[str, float]:
    restorer = model.restorer(model.sampling(steps=a.steps))
    if not (isinstance(task, Denoise) and isinstance(task.noise, GaussianNoise)):
        measurement, method = measure(task, y), POSTERIORS[a.method or task.operator().method]()
        found = restorer.restore(measurement, method, a.samples)
        line = {"ours, mean": psnr(found.mean, clean, where), "ours, sample": psnr(found.samples[0], clean, where)}
        return line if a.samples < 2 else {**line, "coverage": coverage(found, clean, measurement.operator)}
    sigma = task.noise.sigma / HALF_RANGE
    line = {"ours": psnr(restorer.denoise(y, sigma), clean)}
    estimated = [restorer.refine_sigma(p[None], estimate_sigma(p)) for p in y]
    blind = torch.cat([restorer.denoise(p[None], s) for p, s in zip(y, estimated, strict=True)])
    line["ours, sigma unknown"] = psnr(blind, clean)
    line["sigma, mean estimate"] = round(HALF_RANGE * float(np.mean(estimated)), 2)
    if model.moments is not None:
        line["linear"] = psnr(denoise(GaussianDenoiser(model.denoiser.schedule, model.moments), y, sigma), clean)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("images")
    parser.add_argument("-n", type=int, default=40)
    parser.add_argument("--tasks")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--method")
    parser.add_argument("--steps", type=int)
    a = parser.parse_args()
    model = Model.load(a.run)
    data = model.info.recipe.data
    images = DataConfig(find_source(a.images), model.info.shape[1:], data.resize, held_out=data.held_out, labels=False).load()
    clean = split(images, data.held_out).held_out.tensor(slice(0, a.n))
    size = (clean.shape[2], clean.shape[3])
    known = tasks(size, clean.shape[1] == 3)
    for name in a.tasks.split(",") if a.tasks else known:
        task, classical = known[name]
        y = torch.cat([task.degrade(x[None], BatchRng(0, [k], "benchmark")) for k, x in enumerate(clean)])
        where = task.operator().mask == 0 if name == "box" and isinstance(task, Inpaint) else None
        line: dict[str, object] = {"task": name, "images": len(clean)}
        line["input"] = psnr(y if y.shape == clean.shape else functional.interpolate(y, size, mode="bicubic"), clean, where)
        start = time.perf_counter()
        line |= ours(model, task, y, clean, where, a)
        line["seconds an image"] = round((time.perf_counter() - start) / len(clean), 2)
        line |= {tool: psnr(per_image(y, call), clean, where) for tool, call in classical.items() if call is not None}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
