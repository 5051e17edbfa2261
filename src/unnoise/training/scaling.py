r"""The law of scaling: the loss that a U-Net of some width reaches after some steps, as measured (docs/scaling.md).

    loss = floor + A width^-a + B steps^-b

fitted to `benchmarks/scaling.py`. The floor, what no network can know, depends on the images and says nothing about which network
to take. Widths are those of the first level of `unnoise.networks.unet.AutoUNet`, steps are of `BATCH` images.
"""

from dataclasses import dataclass

BATCH = 32
WIDTHS = (16, 32, 48, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class Law:
    """The constants for images of one kind."""

    A: float
    a: float
    B: float
    b: float

    def excess_loss(self, width: int, steps: float) -> float:
        """The loss above its floor."""
        return float(self.A * width**-self.a + self.B * max(1.0, steps) ** -self.b)


def learning_rate(width: int) -> float:
    """That of AdamW which learns most: within a factor 2 of it the loss changes by less than 1 % (measured)."""
    return 2e-3 * (32 / width) ** 0.5


MIN_STEPS = 100  # with fewer no network has learned what images look like
SIDES = 8, 64  # of the images that the law was measured on
LAWS = {16: Law(A=0.3, a=0.3, B=1.18, b=0.5), 32: Law(A=0.3, a=0.3, B=1.18, b=0.5), 64: Law(A=0.3, a=0.3, B=1.18, b=0.5)}


def law_for(size: tuple[int, int]) -> Law:
    """The law of the images measured whose sides are nearest to (height, width)."""
    return next((law for side, law in LAWS.items() if max(size) <= side), LAWS[64])


def was_measured(size: tuple[int, int]) -> bool:
    """Whether images of (height, width) lie within the sizes measured."""
    return SIDES[0] <= min(size) and max(size) <= SIDES[1]
