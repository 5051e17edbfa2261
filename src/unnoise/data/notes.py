"""What a user should know of the files that were read: formats, modes, sizes, and values that look as if they need a word."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import numpy as np

from unnoise.data.decode import SCALED, Header, read_values
from unnoise.data.fit import Fit
from unnoise.data.wide import File, Wide

LOOKED_AT = 24  # files whose values are looked at
DULL = 0.25  # of all values that 8 or 16 bits hold: images that use less are so dark or flat that the range is in doubt
CROPPED = 0.75  # of an image that is kept, below which cropping is said
OPAQUE = 0.5  # the fraction of an alpha band that is at an end of its range, at least
FIRST_ONLY = {
    "MPO": "of {} photographs with a second image, as phones add, the photograph itself is taken",
    "TIFF": "of {} files with several pages the first is taken; data.bands takes pages as bands",
    "": "of {} animated images the first frame is taken",
}


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
    several = Counter(FIRST_ONLY.get(h.format, FIRST_ONLY[""]) for h in headers if h.frames > 1)
    notes += [what.format(n) for what, n in several.items()]
    if profiled := sum(h.profile for h in headers):
        notes.append(f"{profiled} have a colour profile: left as it is")
    return notes


def kept_by_crop(aspects: np.ndarray, target: float) -> np.ndarray:
    """The fraction of images of these ratios of width to height (N,) that cropping to the ratio `target` keeps."""
    return np.minimum(aspects / target, target / aspects)


def describe_crop(headers: Sequence[Header], fit: Fit) -> list[str]:
    """How much of the images cropping cuts away, where that is much, and what keeps it."""
    if fit.size is None or fit.resize != "crop":
        return []
    (h, w), aspect = fit.size, float(np.median([header.width / header.height for header in headers]))
    kept = float(kept_by_crop(np.array(aspect), w / h))
    if kept >= CROPPED:
        return []
    shape = f"{aspect:.1f} times as wide as high" if aspect > w / h else f"{1 / aspect:.1f} times as high as wide"
    whole = ",".join(str(max(8, round(max(fit.size) * side / 8) * 8)) for side in (min(1, 1 / aspect), min(1, aspect)))
    return [f"cropped to {h}x{w}, which keeps the middle {kept:.0%} of the usual image, {shape}: data.size {whole} keeps more, "
            "data.resize squash or pad all"]  # fmt: skip


def _counted(values: Iterable[str]) -> str:
    return ", ".join(f"{n} {value}" for value, n in Counter(values).most_common(6))


def describe_values(headers: Sequence[Header | None], open_file: Callable[[int], File], fit: Fit) -> list[str]:
    """By the values of some of the files, where they may need a range or bands."""
    known = [(k, h) for k, h in enumerate(headers) if h is not None]
    grey = [k for k, h in known if not h.deep and h.mode == "L" and h.format not in SCALED]
    deep = [k for k, h in known if h.deep]
    four = [k for k, h in known if h.format == "TIFF" and h.mode == "RGBA"]
    ranges = [] if fit.range is not None else [*_dull(grey, 8, open_file), *_dull(deep, 16, open_file)]
    return ranges if fit.bands is not None else [*ranges, *_no_alpha(four, open_file)]


def _some(files: list[int], open_file: Callable[[int], File]) -> list[Wide]:
    """The values of some of these files, evenly spaced."""
    values = []
    for i in np.linspace(0, len(files) - 1, min(len(files), LOOKED_AT)).round().astype(int):
        with suppress(Exception):  # a file that no decoder can read is named elsewhere
            values.append(read_values(open_file(files[i])))
    return [v for v in values if v.values.dtype.kind in "iu"]


def _dull(files: list[int], bits: int, open_file: Callable[[int], File]) -> list[str]:
    values = [some.values for some in _some(files, open_file)]
    note = range_note(values, bits)
    return [f"{len(files)} files have {bits} bits, but {note}"] if note else []


def range_note(values: Sequence[np.ndarray], bits: int) -> str:
    """What to say of images whose values use so little of their bits that the range is in doubt, else nothing."""
    low, high = min((int(v.min()) for v in values), default=0), max((int(v.max()) for v in values), default=0)
    if not 0 < high - low < DULL * (2**bits - 1):
        return ""
    held = f"0,{2 ** high.bit_length() - 1}" if 2 * low < high else f"{low},{high}"
    seen = ", of those looked at" if len(values) > 1 else ""
    return (f"values from {low} to {high} only{seen}, so that they come out {'dark' if 2 * low < high else 'flat'}: "
            f"give data.range, e.g. {held}")  # fmt: skip


def _no_alpha(files: list[int], open_file: Callable[[int], File]) -> list[str]:
    doubtful = 0
    for values in (looked_at := [some.values[..., -1] for some in _some(files, open_file) if some.alpha]):
        ends = (values == 0) | (values == np.iinfo(values.dtype).max)
        doubtful += bool(ends.mean() < OPAQUE)
    if 2 * doubtful <= len(looked_at) or not looked_at:
        return []
    return [f"{len(files)} TIFFs have a fourth band that is taken as transparency but does not look so: if it is another one, as "
            "near infrared, give data.bands 1,2,3"]  # fmt: skip
