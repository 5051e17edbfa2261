r"""Normal numbers of a counter-based generator: number k of a key can be had without those before it, on any device.

Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3) turns a counter of four 64-bit
words into four random ones under a key of two. A round, of ten, is

    (R0, L0, R1, L1) <- (hi(M1 R1) ^ L0 ^ K0,  lo(M1 R1),  hi(M0 R0) ^ L1 ^ K1,  lo(M0 R0)),    K <- K + W

On the CPU the words are NumPy's, elsewhere the same are computed there in int64, which wraps as unsigned words do: they are equal
to the bit. Two halves of 32 bits make two normal numbers (Box & Muller 1958) in float32. Devices differ in the last places of
log, sin and cos: by about 1e-6 at most (not measured).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unnoise.utils.runtime import copy_to, is_asynchronous

MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157  # M0, M1
WEYL = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B  # W: of the golden ratio, and the square root of 3 minus 1
ROUNDS = 10
LOW = 2**32 - 1


def normal(key: int, rows: slice, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Standard normal float32 numbers (rows, *shape), at most 6.8 in size: row k is a function of (key, k, its size).

    `key` has 128 bits.
    """
    size = math.prod(shape)
    blocks = -(-size // 8)
    words = random_words(key, rows.start * blocks, (rows.stop - rows.start) * blocks, device)
    return box_muller(words.view(-1, 4 * blocks))[:, :size].reshape(-1, *shape)


def random_words(key: int, first: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """The 64-bit words (count, 4), as int64, of counters `first` + 1 to `first` + `count` < 2^64: NumPy begins at 1."""
    if first + count >= 2**64:
        raise ValueError(f"counters go to 2^64 - 1, not to {first + count}")
    if not is_asynchronous(device):
        words = np.random.Philox(key=key, counter=first).random_raw(4 * count)
        return torch.from_numpy(words.view(np.int64)).view(count, 4)
    return philox(key, first, count, device)


def philox(key: int, first: int, count: int, device: torch.device | str) -> Tensor:
    """The same, computed by torch. Both halves of a counter go through each operation together, as rows of (2, count)."""
    counter = torch.arange(count, device=device) + _signed(first + 1)
    right, left = torch.stack([counter, torch.zeros_like(counter)]), torch.zeros(2, count, dtype=torch.int64, device=device)
    multipliers = _column(MULTIPLIERS, device)
    keys = _column([(key >> 64 * j) + k * WEYL[j] for k in range(ROUNDS) for j in (0, 1)], device).split(2)
    for round_key in keys:
        high, low = multiply(multipliers, right)
        right, left = high.flip(0) ^ left ^ round_key, low.flip(0)
    return torch.stack([right[0], left[0], right[1], left[1]], 1)


def multiply(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The high and low words of the 128-bit products of unsigned 64-bit words, by products of their halves."""
    (a1, a0), (b1, b0) = _halves(a), _halves(b)
    (m1, m0), (n1, n0) = _halves(a1 * b0), _halves(a0 * b1)
    carry = (_halves(a0 * b0)[0] + m0 + n0) >> 32
    return a1 * b1 + m1 + n1 + carry, a * b


def box_muller(words: Tensor) -> Tensor:
    """Normal numbers (N, 2 n) of random words (N, n), n even: sqrt(-2 log u) times cos and sin of an angle.

    u is in [2^-33, 1]: its smallest values, the tail, have all digits of float32. In place, since memory is what takes time.
    """
    z = words.view(torch.int32).float().mul_(2.0**-32)  # in [-1/2, 1/2]
    u, v = z.chunk(2, 1)
    radius, angle = u.sub_(u.floor()).add_(2.0**-33).log_().mul_(-2).sqrt_(), v.mul_(2 * math.pi)
    sin = angle.sin().mul_(radius)
    radius.mul_(angle.cos())
    angle.copy_(sin)
    return z


def _halves(word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low, each in 0 .. 2^32 - 1."""
    return word >> 32 & LOW, word & LOW


def _signed(word: int) -> int:
    """The int64 of the same bits."""
    return (word + 2**63) % 2**64 - 2**63


def _column(words: Sequence[int], device: torch.device | str) -> Tensor:
    return copy_to(torch.tensor([[_signed(w)] for w in words]), device)
