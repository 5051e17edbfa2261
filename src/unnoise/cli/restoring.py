"""`unnoise restore`: cleaning and mending pictures with a trained model."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, advancing, sampling_asked, say
from unnoise.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from unnoise.model import Model
    from unnoise.restore.noise_level import Noise
    from unnoise.restore.posterior import Posterior
    from unnoise.restore.tasks import Task
    from unnoise.sampler import Sampling

LEAST_SIGMA = 1e-3  # on [-1, 1]: an eighth of a grey level is no noise
STRANGE = 2.0  # times the held-out loss
MODES = ("mean", "sample", "average")
DETAILS = "details"  # a folder in --out


def restore(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    pictures: Annotated[Positional[tuple[Path, ...]], arg(help="pictures, or folders of them")],
    task: Annotated[str, arg(help="denoise, salt-and-pepper, inpaint, upscale, deblur, colourise, dejpeg")] = "denoise",
    sigma: Annotated[float | None, arg(help="the noise's standard deviation in 1/255; denoise: estimated if not given")] = None,
    noise: Annotated[str | None, arg(help="other noise: poisson:PEAK, speckle:SIGMA or camera:GAIN,READ")] = None,
    mask: Annotated[Path | None, arg(help="inpaint: a picture that is white where pixels are missing")] = None,
    factor: Annotated[int, arg(help="upscale: how many times")] = 4,
    blur: Annotated[float, arg(help="deblur: the blur's standard deviation in pixels")] = 1.5,
    motion: Annotated[str | None, arg(help="deblur: LENGTH,DEGREES of a motion")] = None,
    quality: Annotated[int | None, arg(help="dejpeg: the JPEG's quality; read from the file if not given")] = None,
    mode: Annotated[str | None, arg(help="mean: least error; sample: one sharper draw; average: the mean of draws")] = None,
    samples: Annotated[int, arg(help="how many draws a mean, its spread and strip are made of")] = 8,
    method: Annotated[str, arg(help="mmps (calibrated), or faster: diffpir, ddnm, pigdm; dps for what is not linear")] = "mmps",
    add_noise: Annotated[float | None, arg(help="try it out: do the damage to clean pictures first; 0: no noise")] = None,
    out: Annotated[Path, arg(help="folder for the results")] = Path("restored"),
    seed: Annotated[int, arg(help="of added noise and of samples")] = 0,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Clean and mend pictures of any size with a trained model.

    Each gets OUT/NAME.png and, in OUT/details, NAME-difference.png (grey: nothing changed), NAME-strip.png (before, after,
    difference, spread) and, where several draws are made, NAME-spread.png (bright: in doubt). Originals are never written over.

    Examples: unnoise restore runs/photos noisy.png
              unnoise restore runs/photos noisy.png --sigma 25 --mode sample
              unnoise restore runs/photos holed.png --task inpaint --mask holes.png
              unnoise restore runs/photos small/ --task upscale --factor 4 --out large
              unnoise restore runs/photos clean.png --task deblur --blur 1.5 --add-noise 2
    """
    from unnoise.model import Model
    from unnoise.restore.posterior import POSTERIORS
    from unnoise.restore.tasks import TASKS

    mode = mode or ("mean" if task == "denoise" and noise is None else "average")
    for name, value, valid in (("task", task, TASKS), ("mode", mode, MODES), ("method", method, POSTERIORS)):
        if value not in valid:
            raise UserError(f"unknown {name} '{value}': {nearest(value, valid)}")
    damage = _Damage(task, noise, mask, factor, blur, motion, quality)
    damage.check_levels(sigma, add_noise)
    one_step = task == "denoise" and noise is None and mode == "mean"
    if any("guidance" in name for name in changes or {}):
        raise UserError("restoring is not guided: it follows what is seen of the picture")
    if changes and one_step:
        raise UserError(f"--{next(iter(changes))} is about sampling: add --mode sample")
    if samples < 1:
        raise UserError(f"--samples must be at least 1, not {samples}")
    paths = _files(pictures)
    _refuse_overwriting(paths, out)
    model = Model.open(run)
    sampling = None if one_step else sampling_asked(model, None, None, changes)
    read = [model.read_picture(path, any_channels=task == "colourise") for path in paths]  # all, before anything is written
    known = (sigma, add_noise, noise) != (None, None, None)
    draws = 1 if one_step or mode == "sample" else samples
    with advancing(len(paths) * draws, "draws" if draws > 1 else "pictures") as advance:
        for number, (path, picture) in enumerate(zip(paths, read, strict=True)):
            harm = None if add_noise is None else damage.task(path, model, add_noise)
            what = harm if harm is not None and sigma is None else damage.task(path, model, sigma)
            job = _Job(model, path, out, seed, number, mode, draws, POSTERIORS[method](), sampling, advance)
            job.run(what, harm, picture, known)
    return 0


def _files(given: tuple[Path, ...]) -> list[Path]:
    """Pictures as they were given, and those in folders."""
    from unnoise.data.decode import EXTENSIONS

    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
            if not inside:
                raise UserError(f"no pictures in '{path}': give files or a folder that holds some")
            found += inside
        else:
            found.append(path)
    if not found:
        raise UserError("give at least one picture to restore")
    return found


def _refuse_overwriting(paths: list[Path], out: Path) -> None:
    places = [p.resolve() for p in (*paths, *(out / f"{p.stem}.png" for p in paths))]
    if len(set(places)) < len(places):
        twice = next(p for p in places if places.count(p) > 1)
        raise UserError(f"'{twice.name}' would be written over: choose another --out, or restore pictures of one name apart")


def _noise(text: str | None, sigma: float | None) -> "Noise | None":
    """`poisson:30` and the like as noise; else Gaussian of `sigma`, None if there is none."""
    from unnoise.restore.noise_level import NOISES, GaussianNoise

    if text is None:
        return GaussianNoise(sigma) if sigma else None
    name, _, numbers = text.partition(":")
    if name not in NOISES:
        raise UserError(f"unknown noise '{name}': {nearest(name, NOISES)}")
    try:
        return NOISES[name](*(float(n) for n in numbers.split(",") if n))
    except (TypeError, ValueError) as e:
        raise UserError(f"--noise is a name and its numbers, e.g. poisson:30 or camera:0.01,0.02, not '{text}'") from e


@dataclass(frozen=True)
class _Damage:
    """What the options say of the damage."""

    name: str
    noise: str | None
    mask: Path | None
    factor: int
    blur: float
    motion: str | None
    quality: int | None

    def check_levels(self, sigma: float | None, add_noise: float | None) -> None:
        """Raises UserError for levels of noise that can't be, or are said twice."""
        own_noise = self.noise is not None or self.name == "salt-and-pepper"
        least = 0.0 if self.name == "denoise" and not own_noise else -1e-9  # with the damage done first: 0 is no noise
        for option, level, bound in (("--sigma", sigma, 0.0), ("--add-noise", add_noise, least)):
            if level is not None and not bound < level < float("inf"):
                raise UserError(f"{option} must be greater than 0, not {level}")
        if own_noise and (sigma is not None or add_noise):
            raise UserError(f"{'--noise' if self.noise else self.name} says how strong its noise is: leave --sigma away, "
                            "and give --add-noise 0")  # fmt: skip

    def task(self, path: Path, model: "Model", sigma: float | None) -> "Task":
        """For the picture in `path`, with noise of `sigma`."""
        from unnoise.restore import tasks

        kind, colour = _noise(self.noise, sigma), model.info.shape[0] == 3
        if self.name == "colourise" and not colour:
            raise UserError("this run was trained on grey pictures: it can't colour any")
        match self.name:
            case "salt-and-pepper":
                return tasks.SaltAndPepper()
            case "inpaint":
                return tasks.Inpaint(_kept(self.mask), kind)
            case "upscale":
                return tasks.Upscale(self.factor, noise=kind)
            case "deblur":
                return tasks.Deblur(self.blur, *_motion(self.motion), kind)
            case "colourise":
                return tasks.Colourise(kind)
            case "dejpeg":
                return tasks.Dejpeg.of_file(path) if self.quality is None else tasks.Dejpeg.of_quality(self.quality, colour)
        return tasks.Denoise(kind)


def _motion(text: str | None) -> tuple[float, float]:
    """Length and degrees; a length of 0 where there is no motion."""
    try:
        length, degrees = (float(n) for n in text.split(",")) if text else (0.0, 0.0)
    except ValueError as e:
        raise UserError(f"--motion is LENGTH,DEGREES, e.g. 9,30, not '{text}'") from e
    return length, degrees


def _kept(mask: Path | None) -> "Tensor":
    import numpy as np
    import torch

    from unnoise.data.decode import decode_or_refuse

    if mask is None:
        raise UserError("inpaint needs --mask: a picture of the same size that is white where pixels are missing")
    grey = np.asarray(decode_or_refuse(mask).convert("L"))
    return torch.from_numpy((grey < 128).astype(np.float32))


@dataclass(frozen=True)
class _Job:
    """One picture to restore."""

    model: "Model"
    path: Path
    out: Path
    seed: int
    number: int
    mode: str
    samples: int
    method: "Posterior"
    sampling: "Sampling | None"
    advance: Callable[[float], None]

    def run(self, task: "Task", harm: "Task | None", picture: "Tensor", known: bool) -> None:
        """Restore one picture, or damage a clean one first by `harm`; `known` says whether the noise's level was given."""
        from unnoise.draws import PictureNoise
        from unnoise.restore.noise_level import GaussianNoise
        from unnoise.restore.tasks import Denoise

        y = picture if harm is None else harm.damage(picture, PictureNoise(self.seed, [self.number], "added"))
        begun = time.perf_counter()
        if isinstance(task, Denoise) and isinstance(task.noise, GaussianNoise | None):
            x, spread, said = self._denoised(task, y, known)
        else:
            x, spread, said = self._drawn(task, y)
        said += f"; {time.perf_counter() - begun:.1f} s"
        if harm is not None:
            said += f"; {_decibels(y, x, picture)}"
        strange = self.model.strangeness(x)
        if strange is not None and strange > STRANGE:
            said += f"; unlike what the model was trained on ({strange:.1f} times the held-out loss): expect little"
        self._write(y, x, spread, said, harm is not None)
        say(f"{self.out / self.path.stem}.png: {said}")

    def _denoised(self, task: "Task", y: "Tensor", known: bool) -> tuple["Tensor", "Tensor | None", str]:
        import torch

        from unnoise.restore.noise_level import GaussianNoise, estimate_sigma

        if isinstance(task.noise, GaussianNoise) and known:
            level = task.noise.sigma / 127.5
        else:
            level = estimate_sigma(y[0])
            if not level > LEAST_SIGMA:
                raise UserError(
                    f"no noise to speak of in '{self.path}' (sigma {127.5 * level:.2g} of 255): say how much with --sigma"
                )
            level = self.model.refined_sigma(y, level)
        said = f"sigma {127.5 * level:.1f} of 255" + ("" if known else " (estimated)")
        draws = []
        for k in range(self.samples):
            draws.append(self.model.denoise(y, level, self.sampling, self.seed + k))
            self.advance(1)
        found = torch.stack(draws)
        return found.mean(0), found.std(0) if self.samples > 1 else None, said

    def _drawn(self, task: "Task", y: "Tensor") -> tuple["Tensor", "Tensor | None", str]:
        seen = task.see(y)
        found = self.model.restore(seen.y, seen.operator, seen.variance, seen.size, self.samples, self.method, self.sampling,
                                   self.seed, self.advance)  # fmt: skip
        h, w = task.shown_size((y.shape[2], y.shape[3]))
        several = self.samples > 1
        said = f"{'mean of ' if several else ''}{self.samples} draw{'s' * several}"
        if several and not self.method.calibrated:
            said += ", their spread not calibrated"
        return found.mean[..., :h, :w], found.std[..., :h, :w] if several else None, said

    def _write(self, y: "Tensor", x: "Tensor", spread: "Tensor | None", said: str, damaged: bool) -> None:
        import torch
        from torch.nn import functional

        from unnoise import figures

        told = {"unnoise restore": json.dumps({"restored from": self.path.name, "how": said, "run": str(self.model.folder)})}
        before = y if y.shape[2:] == x.shape[2:] else functional.interpolate(y, (x.shape[2], x.shape[3]), mode="nearest")
        details = {"damaged": y} if damaged else {}
        details["difference"] = (x - before) / 2  # grey: nothing changed
        if spread is not None:
            details["spread"] = 4 * spread.mean(1, keepdim=True) - 1  # white: half of all there is between black and white
        shown = (before, x, *(details[k] for k in ("difference", "spread") if k in details))
        strip = figures.to_uint8(torch.cat([p.expand_as(x) for p in shown]))
        try:
            for name, part in details.items():
                figures.save(figures.to_image(figures.to_uint8(part)[0]), self.out / DETAILS / f"{self.path.stem}-{name}.png")
            figures.save(figures.grid(strip, len(shown), least=256), self.out / DETAILS / f"{self.path.stem}-strip.png")
            figures.save(figures.to_image(figures.to_uint8(x)[0]), self.out / f"{self.path.stem}.png", told)
        except OSError as e:
            raise UserError(f"can't write to '{self.out}' ({e.strerror or e}): choose another --out") from e


def _decibels(y: "Tensor", x: "Tensor", clean: "Tensor") -> str:
    """PSNR before and after, where both have the clean picture's size."""
    from skimage.metrics import peak_signal_noise_ratio

    h, w = min(x.shape[2], clean.shape[2]), min(x.shape[3], clean.shape[3])
    pairs = [("before", y)] if y.shape == clean.shape else []
    truth = clean.numpy()[..., :h, :w]

    def decibels(p: "Tensor") -> float:
        found: float = peak_signal_noise_ratio(truth, p.clamp(-1, 1).numpy()[..., :h, :w], data_range=2)
        return found

    return "PSNR " + ", ".join(f"{decibels(p):.2f} dB {name}" for name, p in (*pairs, ("after", x)))
