"""What a user should know of the files that were read: formats, modes, sizes, and values that look as if they need a word."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import numpy as np

from unnoise.data.decode import Fit, Header, read_values
from unnoise.data.wide import File

LOOKED_AT = 24  # files whose values are looked at
DARK = 0.25  # of the largest value that the type holds: below it an image is so dark that the range is in doubt
OPAQUE = 0.5  # the fraction of an alpha band that is at an end of its range, at least
FIRST_ONLY = {"GIF": "are animated: the first frame of each is taken", "MPO": "are photographs with a second image, as phones "
              "add: the photograph itself is taken", "TIFF": "have several pages: the first of each is taken, or pages as bands "
              "by data.bands"}  # fmt: skip


def describe_files(headers: Sequence[Header]) -> list[str]:
    """By what their headers say."""
    sizes = Counter(f"{h.height}x{h.width}" for h in headers)
    often = ", ".join(f"{size} ({n})" for size, n in sizes.most_common(3))
    notes = [
        f"{_counted(h.format for h in headers)}; modes {_counted(h.mode for h in headers)}",
        f"{len(sizes)} sizes (height x width), the most frequent {often}",
    ]
    grey = sum(h.grey for h in headers)
    if 0 < grey < len(headers):
        notes.append(f"{grey} are grey and {len(headers) - grey} colour: all taken as colour")
    several = Counter(FIRST_ONLY.get(h.format, FIRST_ONLY["GIF"]) for h in headers if h.frames > 1)
    notes += [f"{n} {what}" for what, n in several.items()]
    if profiled := sum(h.profile for h in headers):
        notes.append(f"{profiled} have a colour profile: left as it is")
    return notes


def _counted(values: Iterable[str]) -> str:
    return ", ".join(f"{n} {value}" for value, n in Counter(values).most_common(6))


def describe_values(headers: Sequence[Header | None], open_file: Callable[[int], File], fit: Fit) -> list[str]:
    """By the values of some of the files, where they may need a range or bands."""
    deep = [k for k, h in enumerate(headers) if h is not None and h.deep and fit.range is None]
    four = [k for k, h in enumerate(headers) if h is not None and h.format == "TIFF" and h.mode == "RGBA" and fit.bands is None]
    return [*_dark(deep, open_file), *_no_alpha(four, open_file)]


def _some(files: list[int], open_file: Callable[[int], File]) -> list[np.ndarray]:
    """The values of some of these files, evenly spaced."""
    values = []
    for i in np.linspace(0, len(files) - 1, min(len(files), LOOKED_AT)).round().astype(int):
        with suppress(Exception):  # a file that no decoder can read is named elsewhere
            values.append(read_values(open_file(files[i])))
    return [v for v in values if v.dtype.kind in "iu"]


def _dark(files: list[int], open_file: Callable[[int], File]) -> list[str]:
    peak = max((int(v.max()) for v in _some(files, open_file)), default=65535)
    if not 0 < peak < DARK * 65535:
        return []
    bits = max(1, peak.bit_length())
    return [f"{len(files)} have 16 bits, and no value of those looked at is above {peak}, so they come out dark: if they hold "
            f"{bits} bits, give data.range 0,{2**bits - 1}"]  # fmt: skip


def _no_alpha(files: list[int], open_file: Callable[[int], File]) -> list[str]:
    doubtful = 0
    for values in (looked_at := [v[..., -1] for v in _some(files, open_file)]):
        ends = (values == 0) | (values == np.iinfo(values.dtype).max)
        doubtful += bool(ends.mean() < OPAQUE)
    if 2 * doubtful <= len(looked_at) or not looked_at:
        return []
    return [f"{len(files)} TIFFs have a fourth band that is taken as transparency but does not look so: if it is another one, as "
            "near infrared, give data.bands 1,2,3"]  # fmt: skip
