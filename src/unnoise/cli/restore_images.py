"""What `unnoise restore` does with each image: read it, restore it, write the result and say how it went."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from unnoise.cli.options import as_options, name_of, say
from unnoise.cli.restore_files import KEY, PARTS, Place, is_result
from unnoise.cli.restore_options import DEFAULT_SAMPLES, Degradation, Mode
from unnoise.utils.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from unnoise.diffusion.sampling import SamplingConfig
    from unnoise.model import Model
    from unnoise.restoration.files import ImageFile
    from unnoise.restoration.restorer import Restorer
    from unnoise.restoration.tasks import Task
    from unnoise.restoration.undo import Found

MIN_SIGMA = 1e-3  # on [-1, 1]: an eighth of a grey level is no noise
MAX_OOD = 2.0  # times the held-out loss


@dataclass(frozen=True)
class Job:
    """An image read once, the task, how to degrade it first, and its white noise, known or estimated."""

    place: Place
    file: "ImageFile"
    task: "Task"
    degradation: "Task | None"
    sigma: float | None
    estimated: bool


@dataclass(frozen=True)
class Restoration:
    """Restores one image after the other in the same way. Its making raises UserError for what stands in the way of them all."""

    model: "Model"
    degradation: Degradation
    how: Mode
    sampling: "SamplingConfig"
    sigma: float | None
    add_noise: float | None
    bits: int
    out: Path
    overwrite: bool
    advance: Callable[[float], None]

    def __post_init__(self) -> None:
        from unnoise.data.pixels import HALF_RANGE
        from unnoise.restoration.posteriors import matching_time

        self.model.restoration_label(self.how.label, 1)
        if not self.degradation.of_each_file:
            self.degradation.as_task(Path(), self.model, None)
        if self.sigma is not None and self.degradation.white:
            matching_time(self.model.denoiser.schedule, self.sigma / HALF_RANGE)

    @cached_property
    def restorer(self) -> "Restorer":
        return self.model.restorer(self.sampling)

    def prepare(self, place: Place) -> Job:
        """Read an image and decide what to do. Raises UserError for whatever stands in the way of this image."""
        from unnoise.data.pixels import HALF_RANGE
        from unnoise.restoration.noise import GaussianNoise, estimate_sigma
        from unnoise.restoration.posteriors import matching_time
        from unnoise.restoration.tasks import Denoise

        path = place.path
        file = self.model.read_file(path, self.bits, any_channels=self.degradation.task == "colourise")
        task = self.degradation.as_task(path, self.model, self.sigma if self.sigma is not None else self.add_noise)
        before = None if self.add_noise is None else self.degradation.as_task(path, self.model, self.add_noise)
        h, w, channels = file.values.shape
        degraded = (h, w) if before is None else before.degraded_size((h, w))
        self.restorer.check_size(task.check(channels, degraded))
        if not isinstance(task, Denoise) or not isinstance(task.noise, GaussianNoise | None):
            return Job(place, file, task, before, None, False)
        sigma = estimate_sigma(file.tensor()[0]) if task.noise is None else task.noise.sigma / HALF_RANGE
        if not sigma > MIN_SIGMA:
            raise UserError(
                f"no noise to speak of in '{path}' (sigma {sigma * HALF_RANGE:.2g} of 255): say how much with --sigma"
            )
        matching_time(self.model.denoiser.schedule, sigma)
        return Job(place, file, task, before, sigma, task.noise is None)

    def run(self, number: int, job: Job) -> None:
        """Restore an image, write it, and say how it went."""
        from unnoise.utils.rng import BatchRng

        start = time.perf_counter()
        y, clean = job.file.tensor(), None
        if job.degradation is not None:
            y, clean = job.degradation.degrade(y, BatchRng(self.how.seed, [number], "added")), y
        found = self._restore(job, y)
        said = "; ".join([found.said, *map(as_options, job.file.notes)])
        if clean is not None:
            said += f"; {_psnr(y, found.x, clean)}"
        score = self._ood_score(found.x)
        if score is not None and score > MAX_OOD:
            said += f"; unlike the training images ({score:.1f} times the held-out loss): the result may be poor"
        self._write(job, y, found, said)
        say(f"{job.place.result(self.out)}: {said}; {time.perf_counter() - start:.1f} s")

    def _restore(self, job: Job, y: "Tensor") -> "Found":
        from unnoise.restoration.undo import Undoing

        how, label = self.how, self.model.restoration_label(self.how.label, 1)
        undoing = Undoing(self.restorer, label, how.mode, how.samples or DEFAULT_SAMPLES, how.method, how.seed, self.advance)
        return undoing.undo(y, job.task) if job.sigma is None else undoing.denoise(y, job.sigma, job.estimated)

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

    def _text(self, path: Path, said: str) -> dict[str, str]:
        """What was done, to be kept in the image."""
        options = {**asdict(self.degradation), **asdict(self.how), "sigma": self.sigma, "add_noise": self.add_noise}
        given = {name: str(value) for name, value in options.items() if value is not None}
        sampler = None if self.how.mode == "mean" else f"{name_of(self.sampling.sampler)}, {self.sampling.steps} steps"
        run = None if self.model.folder is None else self.model.folder.path.resolve().name
        return {KEY: json.dumps({"restored from": path.name, "run": run, "options": given, "sampler": sampler, "how": said})}

    def _write(self, job: Job, y: "Tensor", found: "Found", said: str) -> None:
        import torch

        from unnoise import figures
        from unnoise.data.pixels import to_pil, to_uint8, to_uint16
        from unnoise.utils.png import write_png16

        x, details = found.x, _details(y, found, job.degradation is not None)
        shown = (_like(y, x), x, *(details[part] for part in ("difference", "std") if part in details))
        strip = to_uint8(torch.cat([p.expand_as(x) for p in shown]))
        result, text = job.place.result(self.out), self._text(job.place.path, said)
        try:
            for part in PARTS[:-1]:
                path = job.place.detail(self.out, part)
                if part in details:
                    figures.save(to_pil(to_uint8(details[part])[0]), path, text, self.overwrite)
                elif is_result(path):
                    path.unlink()  # of an earlier run
            strip_path = job.place.detail(self.out, "strip")
            figures.save(figures.grid(strip, len(shown), min_side=256), strip_path, text, self.overwrite)
            if self.bits == 16:
                write_png16(_with_alpha(to_uint16(x)[0], job.file.alpha), result, text)
            else:
                figures.save(to_pil(_with_alpha(to_uint8(x)[0], job.file.alpha)), result, text, self.overwrite)
        except OSError as e:
            raise UserError(f"can't write to '{self.out}' ({e.strerror or e}): choose another --out") from e


def _details(y: "Tensor", found: "Found", degraded: bool) -> "dict[str, Tensor]":
    """Images beside the result, by what they show."""
    details = {"difference": (found.x - _like(y, found.x)) / 2}  # grey: nothing changed
    if degraded:
        details["degraded"] = y
    if found.std is not None:
        details["std"] = 4 * found.std.mean(1, keepdim=True) - 1  # white: a quarter of the way from black to white
    return details


def _like(y: "Tensor", x: "Tensor") -> "Tensor":
    """y in the size of x."""
    from torch.nn import functional

    return y if y.shape[2:] == x.shape[2:] else functional.interpolate(y, x.shape[2:], mode="nearest")


def _with_alpha(pixels: "np.ndarray", alpha: "np.ndarray | None") -> "np.ndarray":
    """(H, W, C) of 8 or 16 bits with an image's own alpha, brought to its bits and size."""
    import numpy as np
    import torch
    from torch.nn import functional

    if alpha is None:
        return pixels
    highest, size = np.iinfo(pixels.dtype).max, pixels.shape[:2]
    opacity = torch.from_numpy(alpha / np.iinfo(alpha.dtype).max)[None, None]
    if alpha.shape != size:
        opacity = functional.interpolate(opacity, size, mode="bilinear")
    whole = (opacity[0, 0].numpy() * highest).round().astype(pixels.dtype)
    return np.concatenate([pixels, whole[..., None]], axis=2)


def _psnr(y: "Tensor", x: "Tensor", clean: "Tensor") -> str:
    """PSNR before and after, in decibels, where both have the clean image's size."""
    from unnoise.restoration.undo import psnr

    pairs = [("before", y)] if y.shape == clean.shape else []
    return "PSNR " + ", ".join(f"{psnr(p, clean):.2f} dB {name}" for name, p in (*pairs, ("after", x)))
