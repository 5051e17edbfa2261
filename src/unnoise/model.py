"""A trained model, ready for use: `Model.load("runs/digits").sample(16)`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unnoise.data.decode import decode_image
from unnoise.data.labels import class_index, labels_for
from unnoise.data.pixels import from_uint8, to_uint8
from unnoise.diffusion.denoiser import AutocastDenoiser, Denoiser
from unnoise.diffusion.gaussian import Moments
from unnoise.diffusion.guidance import NoGuidance
from unnoise.diffusion.inversion import invert, start_time
from unnoise.diffusion.samplers import DDIM, Sampler
from unnoise.diffusion.sampling import SamplingConfig, SamplingRecord, starting_point, trajectory
from unnoise.recipe import RunInfo, override
from unnoise.registry import from_json
from unnoise.restoration.files import ImageFile, read_file
from unnoise.restoration.noise import Noise
from unnoise.restoration.operators import Identity, Operator
from unnoise.restoration.posteriors import Measurement, Posterior
from unnoise.restoration.restore import Restored
from unnoise.restoration.restorer import Restorer
from unnoise.run_folder import RunFolder
from unnoise.training.checkpoint import check_model, load_model
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng
from unnoise.utils.runtime import choose_device

INVERSION_STEPS = 100
OUTPUTS = ("uint8", "tensor")


@dataclass(frozen=True)
class Model:
    """A denoiser with its recipe and, where it has one, its run folder. `denoiser` runs in the precision that `info` names."""

    denoiser: Denoiser
    info: RunInfo
    folder: RunFolder | None = None
    moments: Moments | None = None  # the training images' mean and covariance, where they are known

    @classmethod
    def load(cls, path: Path | str, device: str | None = None) -> "Model":
        """From a run folder: needs recipe.json and model.safetensors alone."""
        folder = RunFolder.open(path)
        info = folder.read_info()
        if not folder.model.is_file():
            raise UserError(f"'{path}' has no model.safetensors yet: train it with 'unnoise train --resume {path}'")
        device = device or choose_device()
        bf16 = info.bf16 and torch.device(device).type == torch.device(info.device).type
        info = replace(info, device=device, bf16=bf16)
        return cls(_load_denoiser(folder.model, info), info, folder, folder.read_moments())

    @classmethod
    def of(cls, denoiser: Denoiser, info: RunInfo, folder: RunFolder | None = None, moments: Moments | None = None) -> "Model":
        """From a denoiser in float32, such as one that is still being trained."""
        return cls(_in_precision(denoiser, info), info, folder, moments)

    @property
    def network(self) -> nn.Module:
        """The bare network."""
        inner = self.denoiser.denoiser if isinstance(self.denoiser, AutocastDenoiser) else self.denoiser
        return inner.get_submodule("network")

    @property
    def is_student(self) -> bool:
        """Whether it was distilled: its estimates are then samples by themselves, not means."""
        return self.info.recipe.training.objective.from_teacher

    @cached_property
    def mean_model(self) -> "Model":
        """The model whose estimates are means, as restoration, inversion and likelihoods need: of a student its teacher."""
        if not self.is_student:
            return self
        if self.folder is None or not self.folder.teacher.path.is_dir():
            raise UserError("a student without its teacher, the folder `teacher` of its run, can only sample: give the whole run")
        return Model.load(self.folder.teacher.path, self.info.device)

    @cached_property
    def guide(self) -> Denoiser | None:
        """The run's own early average, if the run folder has it."""
        if self.folder is None or not self.folder.guide.is_file():
            return None
        return _load_denoiser(self.folder.guide, self.info)

    def sample(
        self,
        n: int = 16,
        seed: int = 0,
        steps: int | None = None,
        sampler: Sampler | str | None = None,
        label: str | None = None,
        *,
        output: str = "uint8",
        batch: int = 250,
        sampling: SamplingConfig | None = None,
    ) -> Any:
        """Sample n images: uint8 (N, H, W, C) or, with `output="tensor"`, float32 (N, C, H, W) on [-1, 1].

        Image k depends on (seed, k) alone, but for the last bit, where sums of another `batch` are in another order. `sampler`
        is a Sampler or its name, `label` a class, `all` for each in turn, or None for classes drawn evenly. What is not given is
        as in `sampling`, by default the recipe's. Raises UserError for an unknown name, or guidance that this run can't have.
        """
        if output not in OUTPUTS:
            raise UserError(f"output must be one of {', '.join(OUTPUTS)}, not '{output}'")
        if n < 1 or batch < 1:
            raise UserError(f"n and batch must be at least 1, not {min(n, batch)}")
        config = self.sampling(sampler, steps, sampling)
        batches = (range(first, min(first + batch, n)) for first in range(0, n, batch))
        x = [self.sample_batch(indices, seed, config, labels_for(label, self.info.classes, indices, seed)) for indices in batches]
        return np.concatenate([to_uint8(part) for part in x]) if output == "uint8" else torch.cat(x).cpu()

    def sampling(self, sampler: Sampler | str | None = None, steps: int | None = None,
                 sampling: SamplingConfig | None = None) -> SamplingConfig:  # fmt: skip
        """How this model samples: the recipe's way, or `sampling`, with another sampler or number of steps."""
        chosen = from_json(Sampler, sampler, "sampler") if isinstance(sampler, str) else sampler
        return (sampling or self.info.recipe.sampling).override(chosen, steps)

    def sample_batch(
        self, indices: Sequence[int], seed: int = 0, sampling: SamplingConfig | None = None, label: Tensor | None = None
    ) -> Tensor:
        """The samples of these indices, (B, C, H, W) on [-1, 1]; without `label` (B,) classes are drawn."""
        for record in self.trajectory(indices, seed, sampling, label):
            x = record.x
        return x.clamp(-1, 1)

    def trajectory(self, indices: Sequence[int], seed: int = 0, sampling: SamplingConfig | None = None,
                   label: Tensor | None = None) -> Iterator[SamplingRecord]:  # fmt: skip
        """The trajectory of these samples from noise, a record a step; without `label` (B,) classes are drawn."""
        sampling = sampling or self.info.recipe.sampling
        rng = BatchRng(seed, indices)
        x = self._start(rng, len(indices), sampling.start)
        return trajectory(self.guided(sampling), x, sampling, rng, self.labels(label, indices, seed))

    def guided(self, sampling: SamplingConfig) -> Denoiser:
        """The denoiser with the guidance asked for. Raises UserError where this run can't have it."""
        guidance = sampling.guidance
        if self.is_student and not isinstance(guidance, NoGuidance):
            raise UserError("a student's estimates are samples, which can't be guided: guidance is given when it is distilled, "
                            "'unnoise distill RUN --guidance 1.5'")  # fmt: skip
        if guidance.needs_labels and not self.info.classes:
            raise UserError("class guidance needs labels, and this run was trained without: choose sampling.guidance auto")
        if guidance.needs_labels and not self.info.recipe.training.label_dropout:
            raise UserError("class guidance needs a network that was trained without labels too, and this one always saw them "
                            "(training.label_dropout 0): choose sampling.guidance auto")  # fmt: skip
        if self.lacks_guide(sampling):
            return self.denoiser
        return guidance.wrap(self.denoiser, self.guide if guidance.needs_guide else None)

    def lacks_guide(self, sampling: SamplingConfig) -> bool:
        """Whether it samples without the recipe's own guidance, since the run has no early average yet."""
        guidance = sampling.guidance
        return guidance.needs_guide and guidance == self.info.recipe.sampling.guidance and self.guide is None

    def image_to_image(self, x: Tensor, strength: float, indices: Sequence[int], seed: int = 0,
                       sampling: SamplingConfig | None = None, label: Tensor | None = None) -> Tensor:  # fmt: skip
        """Images like x (1 or B, C, H, W): noised to the fraction `strength` of the way, and sampled from there.

        SDEdit (Meng et al. 2022). Gives (B, C, H, W) for B indices. Raises UserError for a strength outside (0, 1] and a size not
        trained on.
        """
        for record in self.image_to_image_trajectory(x, strength, indices, seed, sampling, label):
            x = record.x
        return x.clamp(-1, 1)

    def image_to_image_trajectory(
        self, x: Tensor, strength: float, indices: Sequence[int], seed: int = 0, sampling: SamplingConfig | None = None,
        label: Tensor | None = None,
    ) -> Iterator[SamplingRecord]:  # fmt: skip
        """The same, a record a step."""
        if tuple(x.shape[1:]) != self.info.shape:
            raise UserError(f"this run samples images of {self.info.shape[1]}x{self.info.shape[2]}, "
                            f"and the one to start from has {x.shape[2]}x{x.shape[3]}: resize it")  # fmt: skip
        sampling, schedule = sampling or self.info.recipe.sampling, self.denoiser.schedule
        start = start_time(sampling, schedule, strength)
        rng, t = BatchRng(seed, indices, "vary"), schedule.at(torch.tensor(start, dtype=torch.float64))
        clean = x.to(self.info.device).expand(len(indices), *self.info.shape)
        x_t = t.mix(clean, rng.normal_like(clean))
        return trajectory(self.guided(sampling), x_t, sampling, rng, self.labels(label, indices, seed), start)

    def invert(self, x: Tensor, sampling: SamplingConfig | None = None, label: Tensor | None = None) -> Tensor:
        """DDIM inversion: the noise from which `sample_from_noise` samples x (B, C, H, W) again.

        By default in 100 steps on the recipe's times: in the few that sample well an image is not found again.
        """
        return invert(self.mean_model.denoiser, x.to(self.info.device), sampling or self._inversion(), label)

    def _inversion(self) -> SamplingConfig:
        recipe = self.mean_model.info.recipe
        most = (recipe.schedule.steps, recipe.sampling.times.max_steps)
        return replace(recipe.sampling, steps=min([INVERSION_STEPS, *(n for n in most if n is not None)]))

    def sample_from_noise(self, noise: Tensor, sampling: SamplingConfig | None = None, label: Tensor | None = None) -> Tensor:
        """The images (B, C, H, W) that noise (B, C, H, W) at t = 1 leads to, by DDIM without guidance: `invert` undone."""
        for record in self.trajectory_from_noise(noise, sampling, label):
            noise = record.x
        return noise.clamp(-1, 1)

    def trajectory_from_noise(self, noise: Tensor, sampling: SamplingConfig | None = None,
                              label: Tensor | None = None) -> Iterator[SamplingRecord]:  # fmt: skip
        """The same, a record a step."""
        model = self.mean_model
        sampling = replace(sampling or self._inversion(), sampler=DDIM(), clamp_estimate=False, guidance=NoGuidance())
        return trajectory(model.denoiser, noise, sampling, BatchRng(0, []), label)

    def noise_of(self, index: int, seed: int = 0) -> Tensor:
        """The noise that sample `index` starts from, (C, H, W)."""
        return self._start(BatchRng(seed, [index]), 1, "noise")[0]

    def restorer(self, sampling: SamplingConfig | None = None) -> Restorer:
        """What restores images with this model; `sampling` is SDE-DPM-Solver++(2M) in 15 steps by default."""
        model = self.mean_model
        divisor = model.info.recipe.network.size_divisor
        return Restorer(model.denoiser, self.info.shape, divisor, sampling or self.info.restoring(), self.info.device)

    def restore(
        self,
        y: Tensor,
        operator: Operator | None = None,
        noise: Noise | None = None,
        *,
        samples: int = 8,
        method: Posterior | None = None,
        seed: int = 0,
        label: str | None = None,
        sampling: SamplingConfig | None = None,
    ) -> Restored:
        """Samples of the images behind y (B, C, h, w) = `operator`(x) + `noise` on [-1, 1], their mean and standard deviation.

        Any size will do. Without an operator y is the image itself, without noise it was rounded to 8 bits. Raises UserError
        where the sizes do not fit, the operator is not one for `method`, or the run needs a `label` and none is given.
        """
        measurement = Measurement.of(y, operator or Identity(), noise, self.info.shape[0])
        return self.restorer(sampling).restore(measurement, method, samples, seed, self.restoration_label(label, len(y)))

    def restoration_label(self, label: str | None, count: int) -> Tensor | None:
        """One class for `count` images; None leaves it open.

        Raises UserError where the network was never trained without a label, and none is given.
        """
        if label is not None:
            return torch.full((count,), class_index(label, self.info.classes), device=self.info.device)
        if self.info.classes and not self.info.recipe.training.label_dropout:
            raise UserError("this run always saw labels in training (label_dropout 0): say which one, `label`")
        return None

    def read_image(self, path: Path | str, fitted: bool = False, any_channels: bool = False) -> Tensor:
        """An image file as (1, C, H, W) on [-1, 1], `fitted` to the size trained on as the training images were.

        Raises UserError if it can't be read or its channels don't fit, unless `any_channels` will do.
        """
        return from_uint8(self.read_pixels(path, fitted, any_channels)[None])

    def read_pixels(self, path: Path | str, fitted: bool = False, any_channels: bool = False) -> np.ndarray:
        """The same as uint8 (H, W, C)."""
        data = self.info.recipe.data
        image = decode_image(Path(path), replace(data.fit, size=self.info.shape[1:] if fitted else None))
        self._check_channels(path, len(image.getbands()), any_channels)
        return np.asarray(image).reshape(image.height, image.width, -1)

    def read_file(self, path: Path, bits: int = 8, any_channels: bool = False) -> ImageFile:
        """An image to restore, with its alpha and, of 16 `bits`, all of them. Raises UserError as `read_image` does."""
        file = read_file(path, self.info.recipe.data.fit, bits)
        self._check_channels(path, file.values.shape[2], any_channels)
        return file

    def reading(self, changes: dict[str, Any]) -> "Model":
        """The same, with other fields of data, such as {"data.range": (0, 4095)}, for the images that it reads."""
        return replace(self, info=replace(self.info, recipe=override(self.info.recipe, changes)))

    def _check_channels(self, path: Path | str, has: int, any_channels: bool) -> None:
        kinds, own = {1: "grey", 3: "colour"}, self.info.shape[0]
        if own != has and not any_channels:
            raise UserError(f"'{path}' is {kinds[has]} and this run was trained on {kinds.get(own, own)} images: "
                            "convert it first, or take another run")  # fmt: skip

    def labels(self, label: Tensor | None, indices: Sequence[int], seed: int) -> Tensor | None:
        """The classes (B,) of these samples: `label`, or where it is None drawn evenly; None for a run without classes."""
        found = labels_for(None, self.info.classes, indices, seed) if label is None else label
        return None if found is None else found.to(self.info.device)

    def _start(self, rng: BatchRng, count: int, start: str) -> Tensor:
        like = torch.empty(count, *self.info.shape, device=self.info.device)
        return starting_point(self.denoiser, rng, like, start, self.moments if start == "data" else None)


def _load_denoiser(path: Path, info: RunInfo) -> Denoiser:
    check_model(path, info.recipe.weight_shapes(info.shape, len(info.classes)))  # before any memory is taken
    denoiser = info.recipe.build_denoiser(info.shape, len(info.classes))
    load_model(path, denoiser)
    return _in_precision(denoiser.eval().requires_grad_(False).to(info.device), info)


def _in_precision(denoiser: Denoiser, info: RunInfo) -> Denoiser:
    return AutocastDenoiser(denoiser, info.device) if info.bf16 else denoiser
