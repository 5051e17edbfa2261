r"""The law of scaling: how good a U-Net of some width gets in some steps, as measured (docs/scaling.md).

    loss = E + B [ r(side) (width / 32)^-a + (steps / 1000)^-b ],        r(side) = R (side / 8)^q

E, what no network can know, and B depend on the images, and say nothing about which network to take; a, b, R and q are fitted to
`benchmarks/scaling-trials.jsonl`: digits 8x8, Fashion-MNIST 28x28 and photographs 64x64. Width is that of the first level of
`unnoise.networks.unet.AutoUNet`; a step of n images counts as sqrt(n / 32) steps, which lies between what few steps (1) and many
(n / 32) showed. Those trials had attention at 64 positions and fewer; 13 without it lie on the same law.
"""

import math

WIDTHS = (16, 32, 48, 64, 96, 128, 192, 256)
WIDTH_EXPONENT = 0.72  # a
STEPS_EXPONENT = 0.71  # b
RATIO, RATIO_EXPONENT = 0.37, 0.76  # R, q
MEASURED_SIDES = 8, 64
MIN_STEPS = 100  # with fewer no network has learned what images look like
MANY_EPOCHS, AUGMENTATION = 100.0, 0.15
BASE_RATES = {"muon": 4e-3, "adamw": 2e-3, "adam": 2e-3}  # at width 32


def excess_loss(width: int, steps: float, batch: int, side: int) -> float:
    """The loss above E, in units of B."""
    ratio = RATIO * math.pow(side / 8, RATIO_EXPONENT)
    counted = max(1e-3, steps) * math.sqrt(batch / 32)
    return ratio * math.pow(width / 32, -WIDTH_EXPONENT) + math.pow(counted / 1000, -STEPS_EXPONENT)


def learning_rate(width: int, optimizer: str) -> float:
    """The rate that learns most: half and twice of it are no better by more than 1 % of the loss, where steps are not few."""
    return BASE_RATES[optimizer] * math.sqrt(32 / width)


def augmentation(epochs: float) -> float:
    """The probability of each kind of augmentation (`unnoise.data.augment`), by how often training sees each image."""
    return AUGMENTATION if epochs > MANY_EPOCHS else 0.0


def batch_size(side: int) -> int:
    """Images per step on a CPU: of large ones few, since steps are what is short there."""
    return 32 if side <= 32 else 16


def was_measured(size: tuple[int, int]) -> bool:
    """Whether images of (height, width) lie within the sizes measured."""
    return MEASURED_SIDES[0] <= min(size) and max(size) <= MEASURED_SIDES[1]
