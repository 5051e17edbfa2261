"""Restoring pictures: a trained run beside the classical tools of scikit-image, in one run, on any folder of pictures.

    python benchmarks/restore.py RUN PICTURES [-n 40] [--tasks denoise-25,upscale] [--samples 8]

PICTURES are read as the run's training pictures were, and only those are used that the run held out (by content), so that none
was trained on. Noise is not clipped; PSNR (dB) is averaged per picture. BM3D is measured where a package `bm3d` is installed.
`coverage` is how often the clean value lies within the 5 % to 95 % of the samples' spread, mean and 1.645 standard deviations.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from skimage import restoration
from torch import Tensor
from torch.nn import functional

from unnoise.data.pictures import split
from unnoise.data.sources import DataPlan, find_source
from unnoise.draws import PictureNoise
from unnoise.model import Model
from unnoise.restore.noise_level import GaussianNoise, PoissonNoise, SpeckleNoise, estimate_sigma
from unnoise.restore.operators import Blur, Mask
from unnoise.restore.posterior import POSTERIORS
from unnoise.restore.tasks import Deblur, Dejpeg, Denoise, Inpaint, SaltAndPepper, Task, Upscale

Classical = Callable[[np.ndarray], np.ndarray]  # (H, W, C) on [0, 1]


def psnr(x: Tensor, y: Tensor, where: Tensor | None = None) -> float:
    """Per picture, on average."""
    error = (x.clamp(-1, 1) - y).square()
    if where is not None:
        error = error[..., where]
    return float((10 * torch.log10(4 / error.flatten(1).mean(1))).mean())


def per_picture(y: Tensor, tool: Classical) -> Tensor:
    """A tool of scikit-image on each of y (N, C, H, W)."""
    done = [tool((p.permute(1, 2, 0).double().numpy() + 1) / 2) for p in y]
    return torch.from_numpy(np.stack(done)).permute(0, 3, 1, 2).float() * 2 - 1


def nlm(sigma: float) -> Classical:
    """`sigma` on [0, 1]."""
    return lambda p: restoration.denoise_nl_means(p, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, channel_axis=2)


def bm3d(sigma: float) -> Classical | None:
    if importlib.util.find_spec("bm3d") is None:
        return None
    import bm3d as package

    return lambda p: package.bm3d_rgb(p, sigma) if p.shape[2] == 3 else package.bm3d(p, sigma)


def wiener(blur: Blur) -> Classical:
    kernel = blur.kernel.double().numpy()
    return lambda p: np.stack([restoration.wiener(p[..., c], kernel, 0.02, clip=False) for c in range(p.shape[2])], axis=2)


def biharmonic(kept: Tensor) -> Classical:
    return lambda p: restoration.inpaint_biharmonic(p, kept.numpy() == 0, channel_axis=2)


def tasks(size: tuple[int, int], colour: bool) -> dict[str, tuple[Task, dict[str, Classical | None]]]:
    half, fifth = (Mask.random(size, missing).kept for missing in (0.5, 0.8))
    side = 3 * size[0] // 8
    box = Mask.box(size, (size[0] - side) // 2, (size[1] - side) // 2, side, side).kept
    found: dict[str, tuple[Task, dict[str, Classical | None]]] = {}
    for level in (25, 50, 100):
        s = level / 255
        found[f"denoise-{level}"] = Denoise(GaussianNoise(level)), {"nlm": nlm(s), "bm3d": bm3d(s)}
    found["upscale"] = Upscale(4), {}
    found["inpaint-50"] = Inpaint(half), {"biharmonic": biharmonic(half)}
    found["inpaint-80"] = Inpaint(fifth), {"biharmonic": biharmonic(fifth)}
    found["box"] = Inpaint(box), {"biharmonic": biharmonic(box)}
    found["deblur"] = Deblur(1.5, noise=GaussianNoise(2.55)), {"wiener": wiener(Blur.gaussian(1.5))}
    found["poisson"] = Denoise(PoissonNoise(30)), {"nlm": nlm(0.12)}
    found["speckle"] = Denoise(SpeckleNoise(0.2)), {"nlm": nlm(0.1)}
    found["salt-and-pepper"] = SaltAndPepper(0.1), {}
    found["jpeg-10"] = Dejpeg.of_quality(10, colour), {}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("pictures")
    parser.add_argument("-n", type=int, default=40)
    parser.add_argument("--tasks")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--method", default="mmps")
    parser.add_argument("--steps", type=int)
    a = parser.parse_args()
    model = Model.open(a.run)
    data = model.info.recipe.data
    pictures = DataPlan(find_source(a.pictures), model.info.shape[1:], data.resize, held_out=data.held_out, labels=False).load()
    clean = split(pictures, data.held_out).held_out.tensor(slice(0, a.n))
    size = (clean.shape[2], clean.shape[3])
    known = tasks(size, clean.shape[1] == 3)
    for name in a.tasks.split(",") if a.tasks else known:
        task, classical = known[name]
        y = torch.cat([task.damage(x[None], PictureNoise(0, [k], "benchmark")) for k, x in enumerate(clean)])
        where = task.operator(size).kept == 0 if name == "box" and isinstance(task, Inpaint) else None
        line: dict[str, object] = {"task": name, "pictures": len(clean)}
        if y.shape == clean.shape:
            line["input"] = round(psnr(y, clean, where), 2)
        begun = time.perf_counter()
        if isinstance(task, Denoise) and isinstance(task.noise, GaussianNoise):
            sigma = task.noise.sigma / 127.5
            line["ours"] = round(psnr(model.denoise(y, sigma), clean), 2)
            blind = [model.denoise(p[None], model.refined_sigma(p[None], estimate_sigma(p))) for p in y]
            line["ours, sigma unknown"] = round(psnr(torch.cat(blind), clean), 2)
        else:
            seen = [task.see(p[None]) for p in y]
            values, variance = (
                torch.cat([getattr(s, part).expand(1, *s.y.shape[1:]) for s in seen]) for part in ("y", "variance")
            )
            operator = seen[0].operator
            if isinstance(operator, Mask) and operator.kept.ndim == 4:  # found in each picture
                operator = Mask(torch.cat([s.operator.kept for s in seen]))  # type: ignore[attr-defined]
            sampling = model.info.recipe.sampling
            if a.steps:
                from dataclasses import replace

                sampling = replace(sampling, steps=a.steps)
            found = model.restore(values, operator, variance, size, a.samples, POSTERIORS[a.method](), sampling)
            line["ours, mean"] = round(psnr(found.mean, clean, where), 2)
            line["ours, sample"] = round(psnr(found.samples[0], clean, where), 2)
            spread = found.std * (1 + 1 / a.samples) ** 0.5
            inside = (found.mean - clean).abs() <= 1.645 * spread
            line["coverage"] = round(float((inside if where is None else inside[..., where]).float().mean()), 3)
        line["seconds a picture"] = round((time.perf_counter() - begun) / len(clean), 2)
        if isinstance(task, Upscale):
            line["bicubic"] = round(psnr(functional.interpolate(y, size, mode="bicubic"), clean), 2)
        for tool, call in classical.items():
            if call is not None:
                line[tool] = round(psnr(per_picture(y, call), clean, where), 2)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
