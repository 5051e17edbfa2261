r"""Measurement operators A of y = A(x) + noise. They take (B, C, H, W) on [-1, 1] and are composed with `@`.

The adjoint of a linear one, <A x, y> = <x, A^T y>, is its vector-Jacobian product, exact and by automatic differentiation; so
a user's own function is an operator too.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unnoise.data.pixels import HALF_RANGE
from unnoise.utils import rng
from unnoise.utils.errors import UserError

MAX_REACH = 1000  # pixels, of a blur
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Operator(ABC):
    """One kind of measurement of an image."""

    linear: bool = True
    method: str = "spectral"  # the posterior used where none is chosen: the cheaper one, but where mmps was measured to be better

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the measurement, (B, ...)."""

    def image_size(self, measured: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) of the image whose measurement has this (height, width)."""
        return measured

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """A^T y, in the shape of `like` (B, C, H, W)."""
        with torch.enable_grad():
            x = torch.zeros_like(like, requires_grad=True)
            return torch.autograd.grad(self(x), x, y)[0]

    def __matmul__(self, inner: "Operator") -> "Operator":
        return Composed(self, inner)


class Composed(Operator):
    """outer(inner(x))."""

    def __init__(self, outer: Operator, inner: Operator) -> None:
        self.outer, self.inner, self.linear = outer, inner, outer.linear and inner.linear
        methods = {outer.method, inner.method}
        self.method = next(method for method in ("dps", "mmps", "spectral") if method in methods)

    def __call__(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))

    def image_size(self, measured: tuple[int, int]) -> tuple[int, int]:
        return self.inner.image_size(self.outer.image_size(measured))


class Repeated(Operator):
    """The operator on each of `count` batches, one after the other: (count B, C, H, W) -> (count B, ...)."""

    def __init__(self, operator: Operator, count: int) -> None:
        self.operator, self.count, self.linear, self.method = operator, count, operator.linear, operator.method

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([self.operator(batch) for batch in x.chunk(self.count)])


class Identity(Operator):
    """The image itself."""

    def __call__(self, x: Tensor) -> Tensor:
        return x


class Custom(Operator):
    """A user's own function of torch operations. Only linear ones have posteriors in closed form; for others there is DPS."""

    def __init__(self, call: Callable[[Tensor], Tensor], linear: bool = True) -> None:
        self.call, self.linear, self.method = call, linear, "spectral" if linear else "dps"

    def __call__(self, x: Tensor) -> Tensor:
        return self.call(x)


class Crop(Operator):
    """The upper left (height, width): what is beyond was not measured, as where an image is made larger to fit a network."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, x: Tensor) -> Tensor:
        return x[..., : self.size[0], : self.size[1]]


class Mask(Operator):
    """Only some pixels: `mask` (H, W) is 1 where a pixel was measured, 0 where it is missing."""

    method = "mmps"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask.float()

    def __call__(self, x: Tensor) -> Tensor:
        if self.mask.shape[-2:] != x.shape[-2:]:
            raise UserError(f"the mask has {self.mask.shape[-2]}x{self.mask.shape[-1]} pixels and the image "
                            f"{x.shape[-2]}x{x.shape[-1]}: make them the same size")  # fmt: skip
        return x * self.mask.to(x)

    @classmethod
    def random(cls, size: tuple[int, int], missing: float, seed: int = 0) -> "Mask":
        """A fraction `missing` of all pixels, at random, is not measured."""
        u = rng.uniform(rng.stream(seed, "mask"), size[0] * size[1]).reshape(size)
        return cls(u >= missing)

    @classmethod
    def box(cls, size: tuple[int, int], top: int, left: int, height: int, width: int) -> "Mask":
        """A rectangle is not measured."""
        mask = torch.ones(size)
        mask[top : top + height, left : left + width] = 0
        return cls(mask)


KINDS = ("box", "bicubic")


class Downsample(Operator):
    """An image `factor` times smaller on each side: means of boxes, or antialiased bicubic as Pillow's."""

    method = "mmps"

    def __init__(self, factor: int, kind: str = "box") -> None:
        if factor < 1 or kind not in KINDS:
            raise UserError(f"down-sampling needs a factor of at least 1 and a kind of {' or '.join(KINDS)}, "
                            f"not {factor} and '{kind}'")  # fmt: skip
        self.factor, self.kind = factor, kind

    def image_size(self, measured: tuple[int, int]) -> tuple[int, int]:
        return measured[0] * self.factor, measured[1] * self.factor

    def __call__(self, x: Tensor) -> Tensor:
        if self.kind == "box":
            return functional.avg_pool2d(x, self.factor)
        size = x.shape[-2] // self.factor, x.shape[-1] // self.factor
        x = x[..., : size[0] * self.factor, : size[1] * self.factor]
        return functional.interpolate(x, size, mode="bicubic", antialias=True)


class Blur(Operator):
    """Convolution with a kernel (k, k), k odd, that sums to 1; edges are mirrored."""

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = kernel / kernel.sum()

    def __call__(self, x: Tensor) -> Tensor:
        k, channels = self.kernel.shape[-1] // 2, x.shape[1]
        if min(x.shape[-2:]) <= k:
            raise UserError(f"a blur that reaches {k} pixels is too wide for an image of {x.shape[-2]}x{x.shape[-1]}")
        weight = self.kernel.to(x).expand(channels, 1, *self.kernel.shape)
        return functional.conv2d(functional.pad(x, (k, k, k, k), mode="reflect"), weight, groups=channels)

    @classmethod
    def gaussian(cls, sigma: float) -> "Blur":
        """Of standard deviation `sigma` pixels."""
        if not 0 < sigma < MAX_REACH:
            raise UserError(f"the width of a blur must be greater than 0 pixels and below {MAX_REACH}, not {sigma}")
        reach = math.ceil(3 * sigma)
        line = torch.exp(-torch.arange(-reach, reach + 1).double().square() / (2 * sigma**2))
        return cls(torch.outer(line, line).float())

    @classmethod
    def motion(cls, length: float, degrees: float) -> "Blur":
        """Along a line of `length` pixels, at `degrees` from the horizontal, counter-clockwise."""
        if not (0 < length < MAX_REACH and math.isfinite(degrees)):
            raise UserError(f"the length of a motion must be greater than 0 pixels and below {MAX_REACH}, and its angle a number "
                            f"of degrees, not {length} and {degrees}")  # fmt: skip
        reach = max(1, math.ceil(length / 2))
        points = torch.linspace(-length / 2, length / 2, 16 * reach + 1, dtype=torch.float64)
        angle = math.radians(degrees)
        x, y = points * math.cos(angle) + reach, -points * math.sin(angle) + reach
        kernel = torch.zeros(2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
        for dy in (0, 1):  # each point divided among its four neighbours
            for dx in (0, 1):
                row, column = y.floor() + dy, x.floor() + dx
                weight = (1 - (y - row).abs()) * (1 - (x - column).abs())
                inside = (row <= 2 * reach) & (column <= 2 * reach)
                kernel.index_put_((row[inside].long(), column[inside].long()), weight[inside], accumulate=True)
        return cls(kernel.float())


class Grey(Operator):
    """A colour image's luma, one channel (ITU-R BT.601)."""

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            raise UserError(f"only colour images can be made grey, and this one has {x.shape[1]} channels")
        return (x * torch.tensor(LUMA).to(x)[:, None, None]).sum(1, keepdim=True)


class Signs(Operator):
    """Each pixel times 1 or -1, at random: `Downsample(4) @ Signs(seed)` is a camera with a coded mask."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        signs = rng.stream(self.seed, "signs").integers(0, 2, (h, w)) * 2 - 1
        return x * torch.from_numpy(signs).to(x)


class Cosines(Operator):
    """The orthonormal cosine transform of each channel, in which stationary noise has a spectrum."""

    def __call__(self, x: Tensor) -> Tensor:
        return cosines(x.shape[-2]).to(x) @ x @ cosines(x.shape[-1]).to(x).T


@lru_cache(maxsize=8)
def cosines(n: int) -> Tensor:
    """The matrix of the orthonormal cosine transform of n values, (n, n) float64, one frequency per row."""
    k, position = torch.arange(n).double()[:, None], torch.arange(n).double()
    matrix = torch.cos(math.pi * (2 * position + 1) * k / (2 * n)) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


class BlockDCT(Operator):
    """Luma and chroma in blocks of 8x8 cosine coefficients, as in a JPEG file, chroma halved if `subsampled`.

    Orthonormal: the measurement is (B, N), all coefficients, luma's first, on the scale of x. Sides must be multiples of 8,
    or of 16 if `subsampled`.
    """

    def __init__(self, subsampled: bool = True) -> None:
        self.subsampled = subsampled

    def __call__(self, x: Tensor) -> Tensor:
        planes = [x]
        if x.shape[1] == 3:
            r, g, b = x.unbind(1)
            luma = LUMA[0] * r + LUMA[1] * g + LUMA[2] * b
            planes = [p[:, None] for p in (luma, (b - luma) / 1.772, (r - luma) / 1.402)]
            if self.subsampled:
                planes[1:] = [self._halved(p) for p in planes[1:]]
        return torch.cat([self._blocks(p).flatten(1) for p in planes], dim=1)

    def _halved(self, plane: Tensor) -> Tensor:
        """As an encoder halves it."""
        return functional.avg_pool2d(plane, 2)

    def _blocks(self, plane: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, blocks, 8, 8) coefficients."""
        b, _, h, w = plane.shape
        blocks = plane.reshape(b, h // 8, 8, w // 8, 8).transpose(2, 3).reshape(b, -1, 8, 8)
        matrix = cosines(8).to(plane)
        return matrix @ blocks @ matrix.T

    def steps(self, tables: list[np.ndarray], channels: int, size: tuple[int, int]) -> Tensor:
        """The quantisation step of each coefficient, (N,): `tables` (8, 8) for luma and, in colour, chroma, on 0 to 255."""
        tables = [table / HALF_RANGE for table in tables]
        luma = torch.from_numpy(tables[0]).float().flatten().repeat(size[0] * size[1] // 64)
        if channels == 1:
            return luma
        count = size[0] * size[1] // (256 if self.subsampled else 64)
        return torch.cat([luma, torch.from_numpy(tables[-1]).float().flatten().repeat(2 * count)])


class DecodedDCT(BlockDCT):
    """The coefficients that a decoded file had: its chroma was upsampled with weights 3/4 and 1/4, which is inverted exactly."""

    def _halved(self, plane: Tensor) -> Tensor:
        line = torch.tensor([-0.25, 0.75, 0.75, -0.25]).to(plane)
        wider = functional.pad(plane, (1, 1, 1, 1), mode="replicate")
        return functional.conv2d(wider, torch.outer(line, line)[None, None], stride=2)
