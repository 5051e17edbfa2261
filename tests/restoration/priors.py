"""What tests of restoration share: a Gaussian prior whose pixels are correlated, small operators, a denoiser of single pixels."""

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.gaussian import Moments
from unnoise.diffusion.schedules import Karras, per_image
from unnoise.restoration.operators import Custom, Downsample, Mask, Operator


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
