"""The options of `unnoise restore`: what they mean, and which of them go together."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from unnoise.cli.options import Changes
from unnoise.utils.errors import UserError, nearest

if TYPE_CHECKING:
    from unnoise.model import Model
    from unnoise.restoration.masks import MaskFile
    from unnoise.restoration.noise import Noise
    from unnoise.restoration.tasks import Task

DEFAULT_SAMPLES = 8  # of an average
MODES = ("mean", "sample", "average")
OWN = {"mask": "inpaint", "invert_mask": "inpaint", "factor": "upscale", "blur": "deblur", "motion": "deblur",
       "quality": "dejpeg"}  # options of one task  # fmt: skip


def parse_noise(text: str) -> "Noise":
    """`poisson:30` and the like as noise."""
    from unnoise.restoration.noise import NOISES

    name, _, numbers = text.partition(":")
    if name not in NOISES:
        raise UserError(f"unknown noise '{name}': {nearest(name, NOISES)}")
    try:
        return NOISES[name](*(float(n) for n in numbers.split(",") if n))
    except UserError:  # a number that can't be
        raise
    except (TypeError, ValueError) as e:
        raise UserError(f"--noise is a name and its numbers, e.g. poisson:30 or camera:0.01,0.02, not '{text}'") from e


@dataclass(frozen=True)
class Degradation:
    """What the options say of the degradation."""

    task: str
    noise: str | None
    mask: Path | None
    invert_mask: bool
    factor: int | None
    blur: float | None
    motion: str | None
    quality: int | None

    def check(self, sigma: float | None, add_noise: float | None) -> None:
        """Raises UserError for options that are another task's, and levels of noise that can't be or are said twice."""
        from unnoise.restoration.tasks import TASKS

        if self.task not in TASKS:
            raise UserError(f"unknown task '{self.task}': {nearest(self.task, TASKS)}")
        for option, task in OWN.items():
            if getattr(self, option) not in (None, False) and task != self.task:
                raise UserError(f"--{option.replace('_', '-')} is for --task {task}, not {self.task}: leave it away")
        if self.blur is not None and self.motion is not None:
            raise UserError("--blur and --motion are two kinds of blur: give one")
        if sigma is not None and not 0 < sigma < float("inf"):
            raise UserError(f"--sigma must be greater than 0, not {sigma}")
        if add_noise is not None and not 0 <= add_noise < float("inf"):
            raise UserError(f"--add-noise must be at least 0, not {add_noise}")
        if self.task in ("salt-and-pepper", "dejpeg") and (sigma is not None or self.noise is not None or add_noise):
            raise UserError(f"--task {self.task} knows its own noise: leave --sigma and --noise away, and give --add-noise 0")
        if self.noise is not None and (sigma is not None or add_noise):
            raise UserError("--noise says how strong its noise is: leave --sigma away, and give --add-noise 0")
        if self.task == "denoise" and self.noise is None and add_noise == 0:
            raise UserError("--add-noise must be greater than 0 for white noise, not 0.0")

    @property
    def white(self) -> bool:
        """Whether white noise is all."""
        return self.task == "denoise" and self.noise is None

    @property
    def of_each_file(self) -> bool:
        """Whether each file itself says how it was degraded."""
        return self.task == "dejpeg" and self.quality is None

    def read_mask(self) -> "MaskFile":
        """Raises UserError where there is none, or none that can be meant."""
        if self.mask is None:
            raise UserError("inpaint needs --mask: an image of the same size that is white where pixels are missing")
        return _read_mask(self.mask, self.invert_mask)

    def as_task(self, path: Path, model: "Model", sigma: float | None) -> "Task":
        """The task for the image in `path`, with white noise of `sigma`."""
        from unnoise.restoration import tasks
        from unnoise.restoration.noise import GaussianNoise

        colour = model.info.shape[0] == 3
        kind = parse_noise(self.noise) if self.noise else GaussianNoise(sigma) if sigma else None
        match self.task:
            case "salt-and-pepper":
                return tasks.SaltAndPepper()
            case "inpaint":
                return tasks.Inpaint(self.read_mask().known, kind)
            case "upscale":
                return tasks.Upscale(self.factor or 4, noise=kind)
            case "deblur":
                return tasks.Deblur(self.blur if self.blur is not None else 1.5, *_motion(self.motion), kind)
            case "colourise":
                if not colour:
                    raise UserError("this run was trained on grey images: it can't colourise any")
                return tasks.Colourise(kind)
            case "dejpeg":
                return tasks.Dejpeg.of_file(path) if self.quality is None else tasks.Dejpeg.of_quality(self.quality, colour)
        return tasks.Denoise(kind)


def _motion(text: str | None) -> tuple[float | None, float]:
    """Length, None where there is no motion, and degrees."""
    try:
        length, degrees = (float(n) for n in text.split(",")) if text else (None, 0.0)
    except ValueError as e:
        raise UserError(f"--motion is LENGTH,DEGREES, e.g. 9,30, not '{text}'") from e
    return length, degrees


@cache
def _read_mask(mask: Path, inverted: bool) -> "MaskFile":
    """Read once for all images."""
    from unnoise.restoration.masks import read_mask

    return read_mask(mask, inverted)


@dataclass(frozen=True)
class Mode:
    """What the options say of how to restore."""

    mode: str
    samples: int | None
    method: str | None
    seed: int
    label: str | None

    @property
    def sample_count(self) -> int:
        return (self.samples or DEFAULT_SAMPLES) if self.mode == "average" else 1

    def check(self, white: bool, noisy: bool, changes: Changes) -> None:
        """Raises UserError for what does not go together. `white`: white noise is all; `noisy`: some noise was said."""
        from unnoise.restoration.posteriors import POSTERIORS

        for name, value, valid in (("mode", self.mode, MODES), ("method", self.method, POSTERIORS)):
            if value is not None and value not in valid:
                raise UserError(f"unknown {name} '{value}': {nearest(value, valid)}")
        if self.samples is not None and self.samples < 1:
            raise UserError(f"--samples must be at least 1, not {self.samples}")
        for name in changes:
            if any(word in name for word in ("guidance", "start", "clamp", "dynamic")):
                raise UserError(f"--{name} is for sampling new images: restoration follows the measurement")
        if self.mode == "mean" and not white:
            raise UserError("--mode mean is for white noise: choose average or sample")
        if self.mode == "mean" and changes:
            raise UserError(f"--{next(iter(changes))} is about sampling: add --mode sample")
        if self.samples is not None and self.mode != "average":
            raise UserError("--samples is how many samples an average is made of: add --mode average")
        if self.method is not None and white:
            raise UserError("--method is for other degradations: white noise is the denoiser's own")
        if self.method == "ddnm" and noisy:
            raise UserError("ddnm takes no noise into account: choose mmps or spectral")
