"""A trained model, ready for use: `Model.open("runs/digits").draw(16)`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unnoise import checkpoint, figures
from unnoise.data.decode import decode
from unnoise.data.pictures import Pictures
from unnoise.denoiser import Denoiser
from unnoise.draws import PictureNoise, stream
from unnoise.errors import UserError
from unnoise.gaussian import Moments
from unnoise.precision import autocast
from unnoise.processes import choose_device
from unnoise.recipe import RunInfo, load_run
from unnoise.restore.posterior import denoise, denoise_by_sampling
from unnoise.sampler import Sampling, SamplingRecord, sample, starting_point, trajectory

MOST_LARGER = 16  # times the pixels trained on: attention's memory grows with their square


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
        info = replace(info, device=device, bf16=info.bf16 and device == info.device)
        return cls(denoiser.eval().to(device), info, folder)

    def labels(self, numbers: Sequence[int], seed: int = 0) -> Tensor | None:
        """A class for each of these pictures, every class equally likely; None where there are no classes."""
        if not self.info.classes:
            return None
        drawn = [int(stream(seed, "label", n).integers(len(self.info.classes))) for n in numbers]
        return torch.tensor(drawn, device=self.info.device)

    def sample(
        self, numbers: Sequence[int], seed: int = 0, sampling: Sampling | None = None, label: Tensor | None = None
    ) -> Tensor:
        """The pictures with these numbers, (B, C, H, W) in [-1, 1]; without `label` classes are drawn."""
        label = self.labels(numbers, seed) if label is None else label
        sampling = sampling or self.info.recipe.sampling
        with autocast(self.info.device, self.info.bf16):
            moments = self.moments if sampling.start == "data" else None
            return sample(self.denoiser, self.info.shape, numbers, sampling, seed, label, self.info.device, moments)

    def draw(self, count: int, seed: int = 0, batch: int = 250, sampling: Sampling | None = None) -> Iterator[np.ndarray]:
        """Pictures 0 .. count-1 in batches, uint8 (B, H, W, C). Picture n depends on (seed, n) alone."""
        for first in range(0, count, batch):
            numbers = range(first, min(first + batch, count))
            yield figures.to_uint8(self.sample(numbers, seed, sampling))

    def trajectory(self, numbers: Sequence[int], seed: int = 0, sampling: Sampling | None = None) -> Iterator[SamplingRecord]:
        """The way of these pictures from noise, a record a step."""
        sampling = sampling or self.info.recipe.sampling
        noise = PictureNoise(seed, numbers)
        like = torch.empty(len(numbers), *self.info.shape, device=self.info.device)
        moments = self.moments if sampling.start == "data" else None
        x = starting_point(self.denoiser, noise, like, sampling.start, moments)
        records = trajectory(self.denoiser, x, sampling, noise, self.labels(numbers, seed))
        while True:  # in autocast only while a step is made: between two records the caller's own code runs
            with autocast(self.info.device, self.info.bf16):
                record = next(records, None)
            if record is None:
                return
            yield record

    def read_picture(self, path: Path) -> Tensor:
        """A picture file as (1, C, H, W) on [-1, 1]. Raises UserError if it can't be read or its channels don't fit."""
        try:
            picture = decode(path)
        except Exception as e:  # any decoder may fail in its own way on a broken file
            raise UserError(f"'{path}' can't be read as a picture ({e or type(e).__name__})") from e
        kinds = {1: "grey", 3: "colour"}
        own, has = self.info.shape[0], len(picture.getbands())
        if own != has:
            raise UserError(f"'{path}' is {kinds[has]} and this run was trained on {kinds.get(own, own)} pictures: "
                            "convert it first, or take another run")  # fmt: skip
        pixels = np.asarray(picture).reshape(picture.height, picture.width, has)
        return Pictures(pixels[None]).tensor()

    def denoise(self, y: Tensor, sigma: float, sampling: Sampling | None = None, seed: int = 0) -> Tensor:
        """Clean y (B, C, H, W) on [-1, 1] with noise of `sigma` in it: the mean of what it can have been or, given a
        `sampling`, one draw from it. Edges are mirrored outwards to a size that the network takes.

        Raises UserError for pictures of more than `MOST_LARGER` times the pixels of those trained on.
        """
        h, w = y.shape[2:]
        trained = self.info.shape[1:]
        if h * w > MOST_LARGER * trained[0] * trained[1]:
            raise UserError(f"a picture of {h}x{w} has more than {MOST_LARGER} times the pixels that this run was trained on "
                            f"({trained[0]}x{trained[1]}): cut it into parts or make it smaller")  # fmt: skip
        multiple = self.info.recipe.network.multiple
        wider = np.pad(y.cpu().numpy(), [(0, 0), (0, 0), (0, -h % multiple), (0, -w % multiple)], mode="symmetric")
        padded = torch.from_numpy(wider).to(self.info.device)
        with autocast(self.info.device, self.info.bf16):
            if sampling is None:
                x = denoise(self.denoiser, padded, sigma)
            else:
                noise = PictureNoise(seed, range(len(y)), "restore")
                x = denoise_by_sampling(self.denoiser, padded, sigma, sampling, noise)
        return x[..., :h, :w].cpu()
