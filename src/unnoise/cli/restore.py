"""`unnoise restore`."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, name_of, progress_bar, sampling_asked, say
from unnoise.cli.restore_options import Degradation, Mode, parse_noise
from unnoise.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from unnoise.diffusion.sampling import SamplingConfig
    from unnoise.model import Model
    from unnoise.restoration.restore import Restored
    from unnoise.restoration.restorer import Restorer
    from unnoise.restoration.tasks import Task

MIN_SIGMA = 1e-3  # on [-1, 1]: an eighth of a grey level is no noise
MAX_OOD = 2.0  # times the held-out loss
DETAILS = "details"  # a folder in --out
PARTS = ("degraded", "difference", "std", "strip")


def restore(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    images: Annotated[Positional[tuple[Path, ...]], arg(help="images, or folders of them")],
    task: Annotated[str, arg(help="denoise, salt-and-pepper, inpaint, upscale, deblur, colourise, dejpeg")] = "denoise",
    sigma: Annotated[float | None, arg(help="the noise's standard deviation in 1/255; denoise: estimated if not given")] = None,
    noise: Annotated[str | None, arg(help="other noise: poisson:PEAK, speckle:SIGMA or camera:GAIN,READ")] = None,
    mask: Annotated[Path | None, arg(help="inpaint: an image that is white where pixels are missing")] = None,
    factor: Annotated[int | None, arg(help="upscale: how many times; 4 by default")] = None,
    blur: Annotated[float | None, arg(help="deblur: the blur's standard deviation in pixels; 1.5 by default")] = None,
    motion: Annotated[str | None, arg(help="deblur: LENGTH,DEGREES of a motion")] = None,
    quality: Annotated[int | None, arg(help="dejpeg: the JPEG's quality; read from the file if not given")] = None,
    mode: Annotated[str | None, arg(help="mean: least error; sample: one, sharper; average: the mean of samples")] = None,
    samples: Annotated[int | None, arg(help="how many samples an average and its deviation are of; 8 by default")] = None,
    method: Annotated[str | None, arg(help="mmps, spectral, diffpir, ddnm; experimental: dps")] = None,
    label: Annotated[str | None, arg(help="the images' class, if the run was trained with labels")] = None,
    add_noise: Annotated[float | None, arg(help="try it out: degrade clean images first, with this noise; 0: none")] = None,
    out: Annotated[Path, arg(help="folder for the results")] = Path("restored"),
    seed: Annotated[int, arg(help="of added noise and of samples")] = 0,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Denoise and restore images of any size with a trained model.

    Each gets OUT/NAME.png and, in OUT/details, NAME-difference.png (grey: nothing changed), NAME-strip.png (before, after,
    difference, deviation) and, of several samples, NAME-std.png (bright: uncertain). Originals are never written over.

    Examples: unnoise restore runs/photos noisy.png
              unnoise restore runs/photos noisy.png --sigma 25 --mode sample
              unnoise restore runs/photos holed.png --task inpaint --mask holes.png
              unnoise restore runs/photos small/ --task upscale --factor 4 --out large
              unnoise restore runs/photos clean.png --task deblur --blur 1.5 --add-noise 2
    """
    from unnoise.model import Model
    from unnoise.restoration.noise import GaussianNoise

    degradation = Degradation(task, noise, mask, factor, blur, motion, quality)
    degradation.check(sigma, add_noise)
    if noise is not None and isinstance(kind := parse_noise(noise), GaussianNoise):  # the same as --sigma
        degradation, sigma = replace(degradation, noise=None), kind.sigma
        add_noise = kind.sigma if add_noise == 0 else add_noise
    white = task == "denoise" and degradation.noise is None
    how = Mode(mode or ("mean" if white else "average"), samples, method, seed, label)
    how.check(white, noisy=bool(sigma or add_noise or degradation.noise) or task == "dejpeg", changes=changes or {})
    paths = _find_images(images, out)
    _refuse_overwriting(paths, mask, out)
    model = Model.load(run)
    sampling = sampling_asked(model, None, None, changes)
    with progress_bar(len(paths) * how.sample_count, "samples" if how.sample_count > 1 else "images") as advance:
        restoration = _Restoration(model, degradation, how, sampling, sigma, add_noise, out, advance)
        jobs = [restoration.prepare(path) for path in paths]  # all, before anything is written
        for number, job in enumerate(jobs):
            restoration.run(number, job)
    return 0


def _find_images(given: tuple[Path, ...], out: Path) -> list[Path]:
    """Images as they were given, and those in folders, but for results in `out`."""
    from unnoise.data.decode import EXTENSIONS

    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
            inside = [p for p in inside if path.resolve() == out.resolve() or out.resolve() not in p.resolve().parents]
            if not inside:
                raise UserError(f"no images in '{path}': give files or a folder that holds some")
            found += inside
        else:
            found.append(path)
    if not found:
        raise UserError("give at least one image to restore")
    return found


def _refuse_overwriting(paths: list[Path], mask: Path | None, out: Path) -> None:
    written = [w for p in paths for w in (out / f"{p.stem}.png", *(out / DETAILS / f"{p.stem}-{part}.png" for part in PARTS))]
    places = [p.resolve() for p in (*paths, *([mask] if mask else []), *written)]
    if len(set(places)) < len(places):
        twice = next(p for p in places if places.count(p) > 1)
        raise UserError(f"'{twice.name}' would be written over: choose another --out, or restore images of one name apart")


@dataclass(frozen=True)
class _Job:
    """An image read once: its pixels (H, W, C), the task, how to degrade it first, and its white noise, known or estimated."""

    path: Path
    pixels: "np.ndarray"
    task: "Task"
    degradation: "Task | None"
    sigma: float | None
    estimated: bool


@dataclass(frozen=True)
class _Restoration:
    model: "Model"
    degradation: Degradation
    how: Mode
    sampling: "SamplingConfig"
    sigma: float | None
    add_noise: float | None
    out: Path
    advance: Callable[[float], None]

    def prepare(self, path: Path) -> _Job:
        """Read an image and decide what to do. Raises UserError for whatever stands in the way of this image."""
        from unnoise.data.pixels import HALF_RANGE, from_uint8
        from unnoise.restoration.noise import GaussianNoise, estimate_sigma
        from unnoise.restoration.posteriors import matching_time
        from unnoise.restoration.tasks import Denoise

        pixels = self.model.read_pixels(path, any_channels=self.degradation.task == "colourise")
        task = self.degradation.as_task(path, self.model, self.sigma if self.sigma is not None else self.add_noise)
        before = None if self.add_noise is None else self.degradation.as_task(path, self.model, self.add_noise)
        h, w, channels = pixels.shape
        degraded = (h, w) if before is None else before.degraded_size((h, w))
        self.restorer.check_size(task.check(channels, degraded))
        self.model.restoration_label(self.how.label, 1)
        if not isinstance(task, Denoise) or not isinstance(task.noise, GaussianNoise | None):
            return _Job(path, pixels, task, before, None, False)
        sigma = estimate_sigma(from_uint8(pixels[None])[0]) if task.noise is None else task.noise.sigma / HALF_RANGE
        if not sigma > MIN_SIGMA:
            raise UserError(
                f"no noise to speak of in '{path}' (sigma {sigma * HALF_RANGE:.2g} of 255): say how much with --sigma"
            )
        matching_time(self.model.denoiser.schedule, sigma)
        return _Job(path, pixels, task, before, sigma, task.noise is None)

    @property
    def restorer(self) -> "Restorer":
        return self.model.restorer(self.sampling)

    def run(self, number: int, job: _Job) -> None:
        """Restore an image, write it, and say how it went."""
        from unnoise.data.pixels import from_uint8
        from unnoise.utils.rng import BatchRng

        start = time.perf_counter()
        y, clean = from_uint8(job.pixels[None]), None
        if job.degradation is not None:
            y, clean = job.degradation.degrade(y, BatchRng(self.how.seed, [number], "added")), y
        x, std, said = self._restore(job, y) if job.sigma is None else self._denoise(job, y, job.sigma)
        if clean is not None:
            said += f"; {_psnr(y, x, clean)}"
        score = self._ood_score(x)
        if score is not None and score > MAX_OOD:
            said += f"; unlike the training images ({score:.1f} times the held-out loss): the result may be poor"
        self._write(job.path, y, x, std, said, clean is not None)
        say(f"{self.out / job.path.stem}.png: {said}; {time.perf_counter() - start:.1f} s")

    def _denoise(self, job: _Job, y: "Tensor", sigma: float) -> tuple["Tensor", "Tensor | None", str]:
        """Remove white noise."""
        from unnoise.data.pixels import HALF_RANGE

        label = self.model.restoration_label(self.how.label, 1)
        if job.estimated:
            sigma = self.restorer.refine_sigma(y, sigma, label)
        said = f"sigma {sigma * HALF_RANGE:.1f} of 255" + " (estimated)" * job.estimated
        if self.how.mode != "mean":
            found = self.restorer.sample_denoised(y, sigma, self.how.sample_count, self.how.seed, label, self.advance)
            return *self._mean_and_std(found), said
        x = self.restorer.denoise(y, sigma, label)
        self.advance(1)
        return x, None, said

    def _restore(self, job: _Job, y: "Tensor") -> tuple["Tensor", "Tensor | None", str]:
        """Undo any other degradation."""
        from unnoise.restoration.posteriors import POSTERIORS

        name = self.how.method or job.task.operator().method
        method, label = POSTERIORS[name](), self.model.restoration_label(self.how.label, 1)
        found = self.restorer.restore(job.task.measure(y), method, self.how.sample_count, self.how.seed, label, self.advance)
        h, w = job.task.shown_size((y.shape[2], y.shape[3]))
        x, std = self._mean_and_std(found)
        several = self.how.sample_count > 1
        said = f"{'mean of ' if several else ''}{self.how.sample_count} sample{'s' * several} by {name}"
        if several and not method.calibrated:
            said += ", their deviation not calibrated"
        return x[..., :h, :w], None if std is None else std[..., :h, :w], said

    def _mean_and_std(self, found: "Restored") -> tuple["Tensor", "Tensor | None"]:
        return found.mean, found.std if self.how.sample_count > 1 else None

    def _ood_score(self, x: "Tensor") -> float | None:
        from unnoise.evaluation.ood import ood_score

        info, folder = self.model.info, self.model.folder
        curve = None if folder is None else folder.read_held_out_losses()
        if curve is None:
            return None
        config = info.recipe.training
        return ood_score(
            self.model.denoiser, x, info.shape[1:], config.loss, config.times, curve[1][-1], config.seed, info.device
        )

    def _text(self, path: Path, said: str) -> str:
        """What was done, to be kept in the image."""
        options = {**asdict(self.degradation), **asdict(self.how), "sigma": self.sigma, "add_noise": self.add_noise}
        given = {name: str(value) for name, value in options.items() if value is not None}
        sampler = None if self.how.mode == "mean" else f"{name_of(self.sampling.sampler)}, {self.sampling.steps} steps"
        run = None if self.model.folder is None else self.model.folder.path.resolve().name
        return json.dumps({"restored from": path.name, "run": run, "options": given, "sampler": sampler, "how": said})

    def _write(self, path: Path, y: "Tensor", x: "Tensor", std: "Tensor | None", said: str, degraded: bool) -> None:
        import torch
        from torch.nn import functional

        from unnoise import figures
        from unnoise.data.pixels import to_pil, to_uint8

        size = (x.shape[2], x.shape[3])
        before = y if y.shape[2:] == x.shape[2:] else functional.interpolate(y, size, mode="nearest")
        details = {"difference": (x - before) / 2}  # grey: nothing changed
        if degraded:
            details["degraded"] = y
        if std is not None:
            details["std"] = 4 * std.mean(1, keepdim=True) - 1  # white: a quarter of the way from black to white
        shown = (before, x, *(details[part] for part in ("difference", "std") if part in details))
        strip = to_uint8(torch.cat([p.expand_as(x) for p in shown]))
        try:
            for part in PARTS[:-1]:
                place = self.out / DETAILS / f"{path.stem}-{part}.png"
                if part in details:
                    figures.save(to_pil(to_uint8(details[part])[0]), place)
                else:
                    place.unlink(missing_ok=True)  # of an earlier run
            figures.save(figures.grid(strip, len(shown), min_side=256), self.out / DETAILS / f"{path.stem}-strip.png")
            figures.save(to_pil(to_uint8(x)[0]), self.out / f"{path.stem}.png", {"unnoise restore": self._text(path, said)})
        except OSError as e:
            raise UserError(f"can't write to '{self.out}' ({e.strerror or e}): choose another --out") from e


def _psnr(y: "Tensor", x: "Tensor", clean: "Tensor") -> str:
    """PSNR before and after, in decibels, where both have the clean image's size."""
    h, w = min(x.shape[2], clean.shape[2]), min(x.shape[3], clean.shape[3])
    pairs = [("before", y)] if y.shape == clean.shape else []

    def decibels(p: "Tensor") -> float:
        error = p.clamp(-1, 1)[..., :h, :w] - clean[..., :h, :w]
        return float(10 * (4 / error.double().square().mean()).log10())

    return "PSNR " + ", ".join(f"{decibels(p):.2f} dB {name}" for name, p in (*pairs, ("after", x)))
