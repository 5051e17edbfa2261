"""A trained model, ready for use: `Model.open("runs/digits").draw(16)`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unnoise import checkpoint, figures, files
from unnoise.data.decode import Fit, decode_or_refuse
from unnoise.data.pictures import Pictures
from unnoise.denoiser import Denoiser
from unnoise.draws import PictureNoise, stream
from unnoise.errors import UserError, nearest
from unnoise.explore import begin_at, invert
from unnoise.gaussian import Moments
from unnoise.guidance import NoGuidance
from unnoise.precision import autocast
from unnoise.processes import choose_device
from unnoise.recipe import RunInfo, load_run
from unnoise.restore.noise_level import refine_sigma
from unnoise.restore.operators import Crop, Operator
from unnoise.restore.posterior import Posterior, denoise, denoise_by_sampling
from unnoise.restore.restoring import Restored, fitted, follow, restore
from unnoise.restore.tiles import Tiled
from unnoise.sampler import Sampling, SamplingRecord, starting_point, trajectory
from unnoise.solvers import DDIM, DDPM
from unnoise.training import held_out_loss

MOST_LARGER = 4  # times the pixels trained on: larger pictures are taken a tile at a time


class InPrecision(Denoiser):
    """The denoiser in bfloat16 where that pays, and in nothing else: what is seen of a picture is compared in float32."""

    def __init__(self, denoiser: Denoiser, device: str, bf16: bool) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.device, self.bf16 = denoiser, denoiser.schedule, device, bf16

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        with autocast(self.device, self.bf16):
            x_hat: Tensor = self.denoiser(x_t, t, label)
        return x_hat


@dataclass(frozen=True)
class Model:
    """A denoiser with its recipe and its run folder."""

    denoiser: Denoiser
    info: RunInfo
    folder: Path | None = None

    @cached_property
    def moments(self) -> Moments | None:
        """The training pictures' mean and covariance, if the run folder has them."""
        return None if self.folder is None else Moments.find(self.folder)

    @classmethod
    def open(cls, folder: Path | str, device: str | None = None) -> "Model":
        """From a run folder: needs recipe.json and model.safetensors, and moments.safetensors only to start from data."""
        folder = Path(folder)
        info = load_run(folder)
        if not (folder / "model.safetensors").is_file():
            raise UserError(f"'{folder}' has no model.safetensors yet: train it with 'unnoise train --resume {folder}'")
        device = device or choose_device()
        denoiser = info.recipe.build_denoiser(info.shape, len(info.classes))
        checkpoint.load_model(folder / "model.safetensors", denoiser)
        info = replace(info, device=device, bf16=info.bf16 and torch.device(device).type == torch.device(info.device).type)
        return cls(denoiser.eval().requires_grad_(False).to(device), info, folder)

    @cached_property
    def guide(self) -> Denoiser | None:
        """The run's own early average, if the run folder has it."""
        path = None if self.folder is None else self.folder / "guide.safetensors"
        if path is None or not path.is_file():
            return None
        denoiser = self.info.recipe.build_denoiser(self.info.shape, len(self.info.classes))
        checkpoint.load_model(path, denoiser)
        return denoiser.eval().to(self.info.device)

    def guided(self, sampling: Sampling) -> Denoiser:
        """The denoiser with the guidance that is asked for. Raises UserError where this run can't have it."""
        how = sampling.guidance
        if how.needs_labels and not self.info.classes:
            raise UserError("class guidance needs labels, and this run was trained without: choose --sampling.guidance auto")
        return how.wrap(self.denoiser, self.guide if how.needs_guide else None)

    def labels(self, numbers: Sequence[int], seed: int = 0) -> Tensor | None:
        """A class for each of these pictures, every class equally likely; None where there are no classes."""
        if not self.info.classes:
            return None
        drawn = [int(stream(seed, "label", n).integers(len(self.info.classes))) for n in numbers]
        return torch.tensor(drawn, device=self.info.device)

    def label_of(self, name: str) -> int:
        """The number of the class of this name. Raises UserError naming the nearest one."""
        classes = self.info.classes
        if not classes:
            raise UserError("this run was trained without labels: leave --label away, or train one with --labels folder")
        if name not in classes:
            raise UserError(f"unknown label '{name}': {nearest(name, classes)}")
        return classes.index(name)

    def _noise_at_1(self, noise: PictureNoise, count: int, start: str) -> Tensor:
        like = torch.empty(count, *self.info.shape, device=self.info.device)
        return starting_point(self.denoiser, noise, like, start, self.moments if start == "data" else None)

    def sample(
        self, numbers: Sequence[int], seed: int = 0, sampling: Sampling | None = None, label: Tensor | None = None
    ) -> Tensor:
        """The pictures with these numbers, (B, C, H, W) in [-1, 1]; without `label` classes are drawn."""
        for record in self.trajectory(numbers, seed, sampling, label):
            x = record.x
        return x.clamp(-1, 1)

    def draw(self, count: int, seed: int = 0, batch: int = 250, sampling: Sampling | None = None) -> Iterator[np.ndarray]:
        """Pictures 0 .. count-1 in batches, uint8 (B, H, W, C). Picture n depends on (seed, n) alone."""
        for first in range(0, count, batch):
            numbers = range(first, min(first + batch, count))
            yield figures.to_uint8(self.sample(numbers, seed, sampling))

    def trajectory(self, numbers: Sequence[int], seed: int = 0, sampling: Sampling | None = None,
                   label: Tensor | None = None) -> Iterator[SamplingRecord]:  # fmt: skip
        """The way of these pictures from noise, a record a step; without `label` classes are drawn."""
        sampling = sampling or self.info.recipe.sampling
        noise = PictureNoise(seed, numbers)
        x = self._noise_at_1(noise, len(numbers), sampling.start)
        return self._run(x, sampling, noise, self.labels(numbers, seed) if label is None else label)

    def _run(self, x: Tensor, sampling: Sampling, noise: PictureNoise, label: Tensor | None,
             begin: float = 1.0) -> Iterator[SamplingRecord]:  # fmt: skip
        records = trajectory(self.guided(sampling), x, sampling, noise, label, begin)
        while True:  # in autocast only while a step is made: between two records the caller's own code runs
            with autocast(self.info.device, self.info.bf16):
                record = next(records, None)
            if record is None:
                return
            yield record

    def vary(self, x: Tensor, strength: float, numbers: Sequence[int], seed: int = 0, sampling: Sampling | None = None,
             label: Tensor | None = None) -> Tensor:  # fmt: skip
        """Pictures like x (1 or B, C, H, W): noised to `strength` of the way, and drawn from there (SDEdit, Meng et al. 2022).

        Gives (B, C, H, W) for the B numbers. Raises UserError for a strength outside (0, 1] and a size not trained on.
        """
        if tuple(x.shape[1:]) != self.info.shape:
            raise UserError(f"this run draws pictures of {self.info.shape[1]}x{self.info.shape[2]}, "
                            f"and the one to begin from has {x.shape[2]}x{x.shape[3]}: resize it")  # fmt: skip
        sampling = sampling or self.info.recipe.sampling
        begin = begin_at(sampling, self.denoiser, strength)
        noise, t = PictureNoise(seed, numbers, "vary"), torch.tensor(begin, dtype=torch.float64)
        clean = x.to(self.info.device).expand(len(numbers), *self.info.shape)
        x_t = self.denoiser.schedule.alpha(t) * clean + self.denoiser.schedule.sigma(t) * noise.normal_like(clean)
        for record in self._run(x_t, sampling, noise, self.labels(numbers, seed) if label is None else label, begin):
            x_t = record.x
        return x_t.clamp(-1, 1)

    def invert(self, x: Tensor, sampling: Sampling | None = None, label: Tensor | None = None) -> Tensor:
        """The noise from which `follow` draws x (B, C, H, W) again."""
        with autocast(self.info.device, self.info.bf16):
            return invert(self.denoiser, x.to(self.info.device), sampling or self.info.recipe.sampling, label)

    def follow(self, noise: Tensor, sampling: Sampling | None = None, label: Tensor | None = None) -> Tensor:
        """The pictures (B, C, H, W) that noise (B, C, H, W) at t = 1 leads to, by DDIM without guidance: `invert` undone."""
        sampling = replace(sampling or self.info.recipe.sampling, sampler=DDIM(), clamp_estimate=False, guidance=NoGuidance())
        for record in self._run(noise, sampling, PictureNoise(0, []), label):
            noise = record.x
        return noise.clamp(-1, 1)

    def noise_of(self, number: int, seed: int = 0) -> Tensor:
        """What picture `number` begins from, (C, H, W)."""
        return self._noise_at_1(PictureNoise(seed, [number]), 1, "noise")[0]

    def read_picture(self, path: Path, fitted: bool = False, any_channels: bool = False) -> Tensor:
        """A picture file as (1, C, H, W) on [-1, 1], `fitted` to the size trained on as the training pictures were.

        Raises UserError if it can't be read or its channels don't fit, unless `any_channels` will do.
        """
        data = self.info.recipe.data
        picture = decode_or_refuse(path, Fit(self.info.shape[1:] if fitted else None, data.resize, data.background))
        kinds = {1: "grey", 3: "colour"}
        own, has = self.info.shape[0], len(picture.getbands())
        if own != has and not any_channels:
            raise UserError(f"'{path}' is {kinds[has]} and this run was trained on {kinds.get(own, own)} pictures: "
                            "convert it first, or take another run")  # fmt: skip
        pixels = np.asarray(picture).reshape(picture.height, picture.width, has)
        return Pictures(pixels[None]).tensor()

    def denoise(self, y: Tensor, sigma: float, label: str | None = None) -> Tensor:
        """E[x | y] for y (B, C, H, W) on [-1, 1] with noise of `sigma` in it, by one call of the network.

        Edges are mirrored outwards to a size that the network takes. Raises UserError for noise beyond the schedule's, values
        that are not finite, and pictures smaller than the network's multiple.
        """
        denoiser, wider = self._widened(y)
        x = denoise(denoiser, wider, sigma, self._all_of(label, len(y)))
        return x[..., : y.shape[2], : y.shape[3]].cpu()

    def draw_clean(self, y: Tensor, sigma: float, samples: int = 8, sampling: Sampling | None = None, seed: int = 0,
                   label: str | None = None, told: Callable[[float], None] = lambda _: None) -> Restored:  # fmt: skip
        """Draws from p(x | y), sharper than its mean: the sampler goes on from y's own time. As `denoise` for the rest."""
        denoiser, wider = self._widened(y)
        sampling = self._unclamped(sampling)
        draws = []
        for k in range(samples):
            noise = PictureNoise(seed, range(len(y)), f"restore {k}")
            draws.append(follow(denoise_by_sampling(denoiser, wider, sigma, sampling, noise, self._all_of(label, len(y))), told))
        ends, means = (torch.stack(parts) for parts in zip(*draws, strict=True))
        return Restored(ends, means.mean(0)).cut((y.shape[2], y.shape[3]))

    def _widened(self, y: Tensor) -> tuple[Denoiser, Tensor]:
        """The denoiser for y, and y made to fit it."""
        if not torch.isfinite(y).all():
            raise UserError("the picture has values that are not finite: mend it first")
        h, w = y.shape[2:]
        high, wide = fitted((h, w), (1, 1), self._least((h, w)))
        wider = np.pad(y.cpu().numpy(), [(0, 0), (0, 0), (0, high - h), (0, wide - w)], mode="symmetric")
        return self._of_size((high, wide)), torch.from_numpy(wider).to(self.info.device)

    def check_restoring(self, size: tuple[int, int], label: str | None) -> None:
        """Raises UserError where pictures of this size, or of this class, can't be restored."""
        self._least(size)
        self._all_of(label, 1)

    def _least(self, size: tuple[int, int]) -> int:
        """The network's multiple. Raises UserError for pictures below it."""
        multiple = self.info.recipe.network.multiple
        if min(size) < multiple:
            raise UserError(
                f"this run's network needs pictures of at least {multiple}x{multiple} pixels, not {size[0]}x{size[1]}"
            )
        return multiple

    def _unclamped(self, sampling: Sampling | None) -> Sampling:
        """Without any cut to [-1, 1] on the way; the recipe's sampling by default."""
        sampling = sampling or self.info.recipe.sampling
        sampler = replace(sampling.sampler, clamp=False) if isinstance(sampling.sampler, DDPM) else sampling.sampler
        return replace(sampling, sampler=sampler, clamp_estimate=False)

    def _all_of(self, label: str | None, count: int) -> Tensor | None:
        """Raises UserError where the network was never trained without a label, and none is given."""
        if label is not None:
            return torch.full((count,), self.label_of(label), device=self.info.device)
        if self.info.classes and not self.info.recipe.training.label_dropout:
            raise UserError("this run always saw labels in training (label_dropout 0): say which one with --label")
        return None

    def _of_size(self, size: tuple[int, int]) -> Denoiser:
        """The denoiser, taking pictures much larger than those trained on a tile at a time."""
        denoiser, (h, w) = InPrecision(self.denoiser, self.info.device, self.info.bf16), self.info.shape[1:]
        if size[0] * size[1] <= MOST_LARGER * h * w or size[0] < h or size[1] < w:
            return denoiser
        return Tiled(denoiser, (h, w))

    def refined_sigma(self, y: Tensor, guess: float, label: str | None = None) -> float:
        """The noise in y (1, C, H, W), from a guess, by what the denoiser leaves of it; both on [-1, 1]."""
        most = float(self.denoiser.schedule.ratio(torch.ones((), dtype=torch.float64)))
        return refine_sigma(y, max(guess, 0.002), partial(self.denoise, label=label), most)

    def restore(self, y: Tensor, operator: Operator, variance: Tensor | float, size: tuple[int, int], samples: int = 8,
                method: Posterior | None = None, sampling: Sampling | None = None, seed: int = 0, label: str | None = None,
                told: Callable[[float], None] = lambda _: None) -> Restored:  # fmt: skip
        """What the pictures of `size` (height, width) may have been of which `operator` gave y, with noise of `variance`.

        As `unnoise.restore.restoring.restore`, for a picture of any size: beyond its edges it is drawn until it fits. Nothing
        is cut to [-1, 1] on the way, and it begins from noise, whatever the recipe says of sampling.
        """
        (c, *trained), device = self.info.shape, self.info.device
        whole = fitted(size, (trained[0], trained[1]), self._least(size))
        found = restore(self._of_size(whole), y.to(device), operator if whole == size else operator @ Crop(size),
                        torch.as_tensor(variance).to(device), (c, *whole), method, self._unclamped(sampling), samples, seed,
                        self._all_of(label, len(y)), told)  # fmt: skip
        return found.cut(size)

    def strangeness(self, x: Tensor) -> float | None:
        """The loss on the middle of pictures x (B, C, H, W) over that on held-out ones: much above 1 is another kind of picture.

        None where the run has no held-out loss or x is smaller than what was trained on.
        """
        lines = [] if self.folder is None else files.read_records(self.folder / "held-out.jsonl")
        h, w = self.info.shape[1:]
        top, left = (x.shape[2] - h) // 2, (x.shape[3] - w) // 2
        if not lines or top < 0 or left < 0:
            return None
        pictures = Pictures(figures.to_uint8(x[..., top : top + h, left : left + w]))
        plan, info = self.info.recipe.training, self.info
        return float(np.mean(held_out_loss(self.denoiser, pictures, plan, info.device, info.bf16))) / float(lines[-1]["loss"])
