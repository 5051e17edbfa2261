"""`unnoise restore`: cleaning and mending pictures with a trained model."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, advancing, sampling_asked, say, to_name
from unnoise.cli.restore_options import Damage, How, parse_noise
from unnoise.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from unnoise.model import Model
    from unnoise.restore.restoring import Restored
    from unnoise.restore.tasks import Task
    from unnoise.sampler import Sampling

LEAST_SIGMA = 1e-3  # on [-1, 1]: an eighth of a grey level is no noise
STRANGE = 2.0  # times the held-out loss
DETAILS = "details"  # a folder in --out


def restore(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    pictures: Annotated[Positional[tuple[Path, ...]], arg(help="pictures, or folders of them")],
    task: Annotated[str, arg(help="denoise, salt-and-pepper, inpaint, upscale, deblur, colourise, dejpeg")] = "denoise",
    sigma: Annotated[float | None, arg(help="the noise's standard deviation in 1/255; denoise: estimated if not given")] = None,
    noise: Annotated[str | None, arg(help="other noise: poisson:PEAK, speckle:SIGMA or camera:GAIN,READ")] = None,
    mask: Annotated[Path | None, arg(help="inpaint: a picture that is white where pixels are missing")] = None,
    factor: Annotated[int | None, arg(help="upscale: how many times; 4 by default")] = None,
    blur: Annotated[float | None, arg(help="deblur: the blur's standard deviation in pixels; 1.5 by default")] = None,
    motion: Annotated[str | None, arg(help="deblur: LENGTH,DEGREES of a motion")] = None,
    quality: Annotated[int | None, arg(help="dejpeg: the JPEG's quality; read from the file if not given")] = None,
    mode: Annotated[str | None, arg(help="mean: least error; sample: one sharper draw; average: the mean of draws")] = None,
    samples: Annotated[int | None, arg(help="how many draws an average and its spread are made of; 8 by default")] = None,
    method: Annotated[str | None, arg(help="mmps, spectral, diffpir, ddnm; experimental: dps")] = None,
    label: Annotated[str | None, arg(help="the pictures' class, if the run was trained with labels")] = None,
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
    from unnoise.restore.noise_level import GaussianNoise

    damage = Damage(task, noise, mask, factor, blur, motion, quality)
    damage.check(sigma, add_noise)
    if noise is not None and isinstance(kind := parse_noise(noise), GaussianNoise):  # the same as --sigma
        damage, sigma, add_noise = replace(damage, noise=None), kind.sigma, kind.sigma if add_noise == 0 else add_noise
    white = task == "denoise" and damage.noise is None
    how = How(mode or ("mean" if white else "average"), samples, method, seed, label)
    how.check(white, noisy=bool(sigma or add_noise or damage.noise) or task == "dejpeg", changes=changes or {})
    paths = _files(pictures, out)
    _refuse_overwriting(paths, mask, out)
    model = Model.open(run)
    sampling = sampling_asked(model, None, None, changes)
    with advancing(len(paths) * how.draws, "draws" if how.draws > 1 else "pictures") as advance:
        restorer = _Restorer(model, damage, how, sampling, sigma, add_noise, out, advance)
        for number, path in enumerate(paths):  # all, before anything is written
            restorer.look(number, path)
        for number, path in enumerate(paths):
            restorer.run(number, path)
    return 0


def _files(given: tuple[Path, ...], out: Path) -> list[Path]:
    """Pictures as they were given, and those in folders, but for results in `out`."""
    from unnoise.data.decode import EXTENSIONS

    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
            inside = [p for p in inside if path.resolve() == out.resolve() or out.resolve() not in p.resolve().parents]
            if not inside:
                raise UserError(f"no pictures in '{path}': give files or a folder that holds some")
            found += inside
        else:
            found.append(path)
    if not found:
        raise UserError("give at least one picture to restore")
    return found


def _refuse_overwriting(paths: list[Path], mask: Path | None, out: Path) -> None:
    parts = ("damaged", "difference", "spread", "strip")
    written = [w for p in paths for w in (out / f"{p.stem}.png", *(out / DETAILS / f"{p.stem}-{part}.png" for part in parts))]
    places = [p.resolve() for p in (*paths, *([mask] if mask else []), *written)]
    if len(set(places)) < len(places):
        twice = next(p for p in places if places.count(p) > 1)
        raise UserError(f"'{twice.name}' would be written over: choose another --out, or restore pictures of one name apart")


@dataclass(frozen=True)
class _Look:
    """A picture y (1, C, h, w) to restore, what was done to it, the clean one if it is known, and the level of white noise."""

    y: "Tensor"
    task: "Task"
    clean: "Tensor | None"
    sigma: float | None
    estimated: bool


@dataclass(frozen=True)
class _Restorer:
    """Restores one picture after the other."""

    model: "Model"
    damage: Damage
    how: How
    sampling: "Sampling"
    sigma: float | None
    add_noise: float | None
    out: Path
    advance: Callable[[float], None]

    def look(self, number: int, path: Path) -> _Look:
        """Raises UserError for whatever is wrong with this picture."""
        from unnoise.draws import PictureNoise
        from unnoise.restore.noise_level import GaussianNoise, estimate_sigma
        from unnoise.restore.posterior import matching_time
        from unnoise.restore.tasks import Denoise

        picture = self.model.read_picture(path, any_channels=self.damage.task == "colourise")
        task = self.damage.as_task(path, self.model, self.sigma if self.sigma is not None else self.add_noise)
        y = picture
        if self.add_noise is not None:
            harm = self.damage.as_task(path, self.model, self.add_noise)
            y = harm.damage(picture, PictureNoise(self.how.seed, [number], "added"))
        clean = None if self.add_noise is None else picture
        self.model.check_restoring(task.check(y), self.how.label)
        if not isinstance(task, Denoise) or not isinstance(task.noise, GaussianNoise | None):
            return _Look(y, task, clean, None, False)
        sigma = estimate_sigma(y[0]) if task.noise is None else task.noise.sigma / 127.5
        if not sigma > LEAST_SIGMA:
            raise UserError(f"no noise to speak of in '{path}' (sigma {127.5 * sigma:.2g} of 255): say how much with --sigma")
        matching_time(self.model.denoiser.schedule, sigma)
        return _Look(y, task, clean, sigma, task.noise is None)

    def run(self, number: int, path: Path) -> None:
        """Restore the picture, write it, and say how it went."""
        look, begun = self.look(number, path), time.perf_counter()
        if look.sigma is None:
            x, spread, said = self._drawn(look)
        else:
            x, spread, said = self._cleaned(look, look.sigma)
        if look.clean is not None:
            said += f"; {_decibels(look.y, x, look.clean)}"
        strange = self.model.strangeness(x)
        if strange is not None and strange > STRANGE:
            said += f"; unlike what the model was trained on ({strange:.1f} times the held-out loss): expect little"
        self._write(path, look, x, spread, said)
        say(f"{self.out / path.stem}.png: {said}; {time.perf_counter() - begun:.1f} s")

    def _cleaned(self, look: _Look, sigma: float) -> tuple["Tensor", "Tensor | None", str]:
        """Of white noise."""
        if look.estimated:
            sigma = self.model.refined_sigma(look.y, sigma, self.how.label)
        said = f"sigma {127.5 * sigma:.1f} of 255" + " (estimated)" * look.estimated
        if self.how.mode != "mean":
            found = self.model.draw_clean(
                look.y, sigma, self.how.draws, self.sampling, self.how.seed, self.how.label, self.advance
            )
            return *self._mean_and_spread(found), said
        x = self.model.denoise(look.y, sigma, self.how.label)
        self.advance(1)
        return x, None, said

    def _drawn(self, look: _Look) -> tuple["Tensor", "Tensor | None", str]:
        """Of all else."""
        from unnoise.restore.posterior import POSTERIORS

        name = self.how.method or look.task.method
        seen, method = look.task.see(look.y), POSTERIORS[name]()
        found = self.model.restore(seen.y, seen.operator, seen.variance, seen.size, self.how.draws, method, self.sampling,
                                   self.how.seed, self.how.label, self.advance)  # fmt: skip
        h, w = look.task.shown_size((look.y.shape[2], look.y.shape[3]))
        x, spread = self._mean_and_spread(found)
        several = self.how.draws > 1
        said = f"{'mean of ' if several else ''}{self.how.draws} draw{'s' * several} by {name}"
        if several and not method.calibrated:
            said += ", their spread not calibrated"
        return x[..., :h, :w], None if spread is None else spread[..., :h, :w], said

    def _mean_and_spread(self, found: "Restored") -> tuple["Tensor", "Tensor | None"]:
        return found.mean, found.std if self.how.draws > 1 else None

    def _told(self, path: Path, said: str) -> str:
        """What was done, to be kept in the picture."""
        options = {**asdict(self.damage), **asdict(self.how), "sigma": self.sigma, "add_noise": self.add_noise}
        given = {name: str(value) for name, value in options.items() if value is not None}
        sampler = None if self.how.mode == "mean" else f"{to_name(self.sampling.sampler)}, {self.sampling.steps} steps"
        return json.dumps(
            {"restored from": path.name, "run": str(self.model.folder), "options": given, "sampler": sampler, "how": said}
        )

    def _write(self, path: Path, look: _Look, x: "Tensor", spread: "Tensor | None", said: str) -> None:
        import torch
        from torch.nn import functional

        from unnoise import figures

        y, size = look.y, (x.shape[2], x.shape[3])
        before = y if y.shape[2:] == x.shape[2:] else functional.interpolate(y, size, mode="nearest")
        details = {"difference": (x - before) / 2}  # grey: nothing changed
        if look.clean is not None:
            details["damaged"] = y
        if spread is not None:
            details["spread"] = 4 * spread.mean(1, keepdim=True) - 1  # white: a quarter of the way from black to white
        shown = (before, x, *(details[part] for part in ("difference", "spread") if part in details))
        strip = figures.to_uint8(torch.cat([p.expand_as(x) for p in shown]))
        try:
            for part in ("damaged", "difference", "spread"):
                place = self.out / DETAILS / f"{path.stem}-{part}.png"
                if part in details:
                    figures.save(figures.to_image(figures.to_uint8(details[part])[0]), place)
                else:
                    place.unlink(missing_ok=True)  # of an earlier run
            figures.save(figures.grid(strip, len(shown), least=256), self.out / DETAILS / f"{path.stem}-strip.png")
            text = {"unnoise restore": self._told(path, said)}
            figures.save(figures.to_image(figures.to_uint8(x)[0]), self.out / f"{path.stem}.png", text)
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
