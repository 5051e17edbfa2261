"""What tests of restoration share: a Gaussian prior whose pixels are correlated, small operators, a denoiser of single pixels."""

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.gaussian import Moments
from unnoise.diffusion.schedules import Karras, per_image
from unnoise.restoration.operators import Cosines, Custom, Downsample, Mask, Operator


def make_prior(seed: int = 0, size: int = 4, rank: int = 6) -> tuple[Moments, Tensor, Tensor]:
    """A Gaussian whose pixels are correlated; its mean (N,) and covariance (N, N)."""
    g = torch.Generator().manual_seed(seed)
    n = size * size
    mean = 0.1 * torch.randn(1, size, size, generator=g)
    directions = torch.linalg.qr(torch.randn(n, rank, generator=g)).Q.T  # orthogonal
    basis = (directions * torch.linspace(0.7, 0.2, rank)[:, None]).reshape(rank, 1, size, size).contiguous()
    residual = torch.tensor(0.05)
    flat = basis.reshape(rank, n).double()
    covariance = flat.T @ flat + float(residual) ** 2 * torch.eye(n).double()
    return Moments(mean, basis, residual), mean.flatten().double(), covariance


OPERATORS: dict[str, Operator] = {  # on 4 x 4 images
    "mask": Mask.random((4, 4), 0.5, seed=3),
    "down": Downsample(2),
    "blur": Custom(lambda x: (x + torch.roll(x, 1, -1)) / 2),
}


def matrix_of(operator: Operator, size: int = 4) -> Tensor:
    """A as a matrix (M, N), float64, for images of one channel."""
    n = size * size
    return operator(torch.eye(n).double().reshape(n, 1, size, size)).flatten(1).T


STD = 0.2  # of `SmoothImages`: nearly all values lie within [-1, 1], to which samples are clipped


class SmoothImages(Denoiser):
    """Gaussian grey images of any size, power V(k) ~ 1 / f^4 and smooth as the things in photographs: diagonal in cosines."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = Karras(20.0)

    def power(self, like: Tensor) -> Tensor:
        """V (H, W) for images (B, 1, H, W)."""
        h, w = like.shape[2:]
        power = 1 / (32**-2 + (torch.arange(h) / (2 * h))[:, None].square() + (torch.arange(w) / (2 * w)).square()).square()
        return STD**2 * power / power.mean()

    def sample(self, size: tuple[int, int], seed: int) -> Tensor:
        """(1, 1, H, W)"""
        noise = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(seed))
        return Cosines().adjoint(noise * self.power(noise).sqrt(), noise)

    def wiener(self, y: Tensor, spectrum: Tensor) -> Tensor:
        """E[x | y] for noise of a `spectrum` (H, W) in the same basis: V / (V + S) of each coefficient."""
        v = self.power(y)
        return Cosines().adjoint(v / (v + spectrum) * Cosines()(y), y)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        alpha, sigma = (v.to(x_t) for v in (self.schedule.alpha(t), self.schedule.sigma(t)))
        v = self.power(x_t)
        return Cosines().adjoint(alpha * v / (alpha**2 * v + sigma**2) * Cosines()(x_t), x_t)


class SinglePixels(Denoiser):
    """Looks at one pixel alone, so that tiles and padding can change nothing; keeps the sizes that it was called with.

    Pixels are of N(mean, 0.5^2), where the mean is a tenth of the label, or 0.3 without one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.schedule, self.sizes = Karras(20.0), set[tuple[int, ...]]()

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, **cond: Tensor) -> Tensor:
        self.sizes.add(tuple(x_t.shape[2:]))
        mean = torch.tensor(0.3) if label is None else per_image(0.1 * label, x_t)
        return mean + 0.25 / (0.25 + per_image(self.schedule.sigma(t), x_t) ** 2) * (x_t - mean)
