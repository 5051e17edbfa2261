r"""Pictures as one Gaussian: mean and covariance measured from them, and the denoiser that is exact for it.

    x ~ N(mean, B B^T + rest^2 I),    B (D, K): the K directions in which pictures differ most, as long as they do

(probabilistic principal components, Tipping & Bishop 1999). Three uses: a start for sampling where a schedule ends short of
pure noise, the linear (Wiener) optimum that a learned denoiser must beat, and an exact denoiser to test samplers with.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unnoise import files
from unnoise.denoiser import Denoiser
from unnoise.draws import PictureNoise
from unnoise.errors import UserError
from unnoise.noise import Schedule, per_picture


@dataclass(frozen=True)
class Moments:
    """`mean` (C, H, W); `basis` (K, C, H, W), orthogonal directions; `rest` (), the spread in every direction besides."""

    mean: Tensor
    basis: Tensor
    rest: Tensor

    @classmethod
    def measure(cls, x: Tensor, components: int = 64) -> "Moments":
        """The most likely ones for pictures (N, C, H, W), N > 1 (Tipping & Bishop 1999, equations 7 and 8)."""
        n, dimensions = len(x), x[0].numel()
        if n < 2:
            raise UserError(f"mean and covariance need at least 2 pictures, not {n}")
        mean = x.mean(0)
        centred = (x - mean).flatten(1)
        k = min(components, n - 1, dimensions)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the range finder's own draws (Halko et al. 2011)
            _, s, v = torch.svd_lowrank(centred, q=min(k + 8, n, dimensions), niter=4)
        s, v = s[:k] / (n - 1) ** 0.5, v[:, :k]
        left = (centred.square().sum() / (n - 1) - s.square().sum()).clamp(min=0)
        rest = (left / max(1, dimensions - k)).sqrt() if dimensions > k else torch.zeros_like(left)
        lengths = (s.square() - rest.square()).clamp(min=0).sqrt()
        return cls(mean, (v * lengths).T.reshape(k, *x.shape[1:]).contiguous(), rest)

    def draw(self, noise: PictureNoise, like: Tensor) -> Tensor:
        """Gaussian pictures in the shape, dtype and device of `like` (B, C, H, W)."""
        z = noise.normal_like(like)
        coordinates = noise.normal_like(like.new_empty(len(like), len(self.basis)))
        varied = torch.tensordot(coordinates, self.basis.to(like), dims=1)
        drawn: Tensor = self.mean.to(like) + varied + self.rest.to(like) * z
        return drawn

    def save(self, path: Path) -> None:
        """As one safetensors file, atomically."""
        files.write(path, lambda p: save_file({"mean": self.mean, "basis": self.basis, "rest": self.rest}, p))

    @classmethod
    def find(cls, run: Path) -> "Moments | None":
        """Those of a run folder, if it has any."""
        path = run / "moments.safetensors"
        return cls.load(path) if path.is_file() else None

    @classmethod
    def load(cls, path: Path) -> "Moments":
        """Raises UserError if the file is missing or damaged."""
        try:
            return cls(**load_file(path))
        except Exception as e:  # safetensors raises its own kinds
            raise UserError(f"can't read the pictures' mean and covariance from '{path}' ({e})") from e


class GaussianDenoiser(Denoiser):
    """E[x | x_t] for Gaussian pictures: of all denoisers linear in x_t, the one of least squared error (Wiener).

    Along a direction in which pictures have spread s, x_t - alpha mean counts alpha s^2 / (alpha^2 s^2 + sigma^2).
    """

    mean: Tensor
    directions: Tensor
    spread: Tensor
    rest: Tensor

    def __init__(self, schedule: Schedule, moments: Moments) -> None:
        super().__init__()
        self.schedule = schedule
        flat = moments.basis.flatten(1)  # (K, D)
        length = flat.norm(dim=1)
        self.register_buffer("mean", moments.mean)
        self.register_buffer("directions", flat / length.clamp(min=1e-12)[:, None])
        self.register_buffer("spread", torch.hypot(length, moments.rest))
        self.register_buffer("rest", moments.rest)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        t = t.expand(len(x_t))
        alpha, sigma = self.schedule.alpha(t).to(x_t)[:, None], self.schedule.sigma(t).to(x_t)[:, None]  # (B, 1)

        def gain(s: Tensor) -> Tensor:
            return alpha * s.square() / ((alpha * s).square() + sigma.square()).clamp(min=1e-30)

        centred = (x_t - per_picture(alpha, x_t) * self.mean).flatten(1)  # (B, D)
        along = centred @ self.directions.T  # (B, K)
        elsewhere = gain(self.rest.reshape(1))
        x_hat = elsewhere * centred + ((gain(self.spread) - elsewhere) * along) @ self.directions
        return self.mean + x_hat.reshape(x_t.shape)
