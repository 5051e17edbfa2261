"""Masks that were painted in any editor: which pixels are missing, and whether that can be meant."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from unnoise.data.decode import read_header
from unnoise.restoration.files import read_file
from unnoise.utils.errors import UserError

LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF")
COMPRESSED = 64  # levels of 255 that compression adds beside an edge
INVERTED = 0.5, 0.9  # fractions missing of all pixels and of those at the edge of the image, beyond which a mask is asked about


@dataclass(frozen=True)
class MaskFile:
    """`known` (H, W) float32 is 1 where a pixel was measured, 0 where it is missing; `said` says how many are."""

    known: Tensor
    said: str


def read_mask(path: Path, inverted: bool = False) -> MaskFile:
    """What is painted is missing: what is not transparent, where alpha varies, else what is not black.

    `inverted` takes the opposite. Pixels that are painted in part, at antialiased edges, are missing. A compressed mask is not
    quite black beside its edges: there only what is painted for a quarter or more is, and what touches it. Raises UserError
    where all pixels are missing or none.
    """
    file = read_file(path)
    by_alpha = file.alpha is not None and file.alpha.min() < file.alpha.max()
    painted = file.alpha if by_alpha and file.alpha is not None else file.values.max(axis=2)
    painted = 255 - painted if inverted else painted
    missing = torch.from_numpy(painted > 0)
    if _is_lossy(path) and not by_alpha:
        core = torch.from_numpy(painted >= COMPRESSED).float()[None, None]
        missing = functional.max_pool2d(core, 3, stride=1, padding=1)[0, 0] > 0
    return MaskFile((~missing).float(), _check(path, missing, by_alpha, inverted))


def _is_lossy(path: Path) -> bool:
    return read_header(path).format in LOSSY


def _check(path: Path, missing: Tensor, by_alpha: bool, inverted: bool) -> str:
    """What to say of a mask. Raises UserError where nothing is left to do, or nothing to do it from."""
    fraction = float(missing.float().mean())
    kept, painted = ("transparent", "opaque") if by_alpha else ("black", "white")
    if inverted:
        kept, painted = painted, kept
    if fraction in (0, 1):
        what = "no pixel is missing" if fraction == 0 else "all pixels are missing"
        raise UserError(f"{what} in the mask '{path}': make it {painted} where pixels are missing and exactly {kept} elsewhere")
    said = f"{path}: {100 * fraction:.3g} % of the pixels are missing, where it is {'not ' + kept}"
    edge = torch.cat([missing[0], missing[-1], missing[:, 0], missing[:, -1]]).float().mean()
    if fraction > INVERTED[0] and edge > INVERTED[1]:
        remedy = "leave --invert-mask away" if inverted else "give --invert-mask"
        said += f", nearly all of the image's edge among them; is it {kept} where pixels are missing? then {remedy}"
    return said
