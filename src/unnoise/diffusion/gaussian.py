r"""A Gaussian model of the images: mean and covariance measured from them, and the denoiser that is exact for it.

    x ~ N(mean, B B^T + residual_std^2 I)        B (D, K): the K principal directions, each as long as its standard deviation

(probabilistic principal components, Tipping & Bishop 1999). Three uses: a start for sampling where a schedule ends short of
pure noise, the linear (Wiener) optimum that a learned denoiser must beat, and an exact denoiser to test samplers with.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.schedules import Schedule, per_image
from unnoise.utils.errors import UserError
from unnoise.utils.rng import BatchRng


@dataclass(frozen=True)
class Moments:
    """`mean` (C, H, W); `basis` (K, C, H, W), orthogonal; `residual_std` (), the standard deviation in all other directions."""

    mean: Tensor
    basis: Tensor
    residual_std: Tensor

    @classmethod
    def measure(cls, x: Tensor, components: int = 64) -> "Moments":
        """The maximum-likelihood ones for images (N, C, H, W), N > 1 (Tipping & Bishop 1999, equations 7 and 8)."""
        n, dimensions = len(x), x[0].numel()
        if n < 2:
            raise UserError(f"mean and covariance need at least 2 images, not {n}")
        mean = x.mean(0)
        centred = (x - mean).flatten(1)
        k = min(components, n - 1, dimensions)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the range finder's own random numbers (Halko et al. 2011)
            _, s, v = torch.svd_lowrank(centred, q=min(k + 8, n, dimensions), niter=4)
        s, v = s[:k] / (n - 1) ** 0.5, v[:, :k]
        remainder = (centred.square().sum() / (n - 1) - s.square().sum()).clamp(min=0)
        residual_std = (remainder / max(1, dimensions - k)).sqrt() if dimensions > k else torch.zeros_like(remainder)
        lengths = (s.square() - residual_std.square()).clamp(min=0).sqrt()
        return cls(mean, (v * lengths).T.reshape(k, *x.shape[1:]).contiguous(), residual_std)

    def sample(self, rng: BatchRng, like: Tensor) -> Tensor:
        """Gaussian images in the shape, dtype and device of `like` (B, C, H, W)."""
        z = rng.normal_like(like)
        coordinates = rng.normal_like(like.new_empty(len(like), len(self.basis)))
        principal = torch.tensordot(coordinates, self.basis.to(like), dims=1)
        x: Tensor = self.mean.to(like) + principal + self.residual_std.to(like) * z
        return x


class GaussianDenoiser(Denoiser):
    """E[x | x_t] for Gaussian images: of all denoisers linear in x_t, the one of least squared error (Wiener).

    Along a direction of standard deviation s the gain on x_t - alpha mean is alpha s^2 / (alpha^2 s^2 + sigma^2).
    """

    mean: Tensor
    directions: Tensor
    std: Tensor
    residual_std: Tensor

    def __init__(self, schedule: Schedule, moments: Moments) -> None:
        super().__init__()
        self.schedule = schedule
        flat = moments.basis.flatten(1)  # (K, D)
        length = flat.norm(dim=1)
        self.register_buffer("mean", moments.mean)
        self.register_buffer("directions", flat / length.clamp(min=1e-12)[:, None])
        self.register_buffer("std", torch.hypot(length, moments.residual_std))
        self.register_buffer("residual_std", moments.residual_std)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        t = t.expand(len(x_t))
        alpha, sigma = self.schedule.alpha(t).to(x_t)[:, None], self.schedule.sigma(t).to(x_t)[:, None]  # (B, 1)

        def gain(s: Tensor) -> Tensor:
            return alpha * s.square() / ((alpha * s).square() + sigma.square()).clamp(min=1e-30)

        centred = (x_t - per_image(alpha, x_t) * self.mean).flatten(1)  # (B, D)
        along = centred @ self.directions.T  # (B, K)
        elsewhere = gain(self.residual_std.reshape(1))
        x_hat = elsewhere * centred + ((gain(self.std) - elsewhere) * along) @ self.directions
        return self.mean + x_hat.reshape(x_t.shape)
