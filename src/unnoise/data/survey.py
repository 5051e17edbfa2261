"""A survey of image files by their headers, for those who do not know yet at which size to read them."""

from dataclasses import dataclass

import numpy as np

from unnoise.data.cache import Listing, scan
from unnoise.data.fit import Fit
from unnoise.data.folder import usual_size
from unnoise.data.notes import describe_files, describe_values
from unnoise.data.stats import describe_classes


@dataclass(frozen=True)
class Survey:
    """Sizes (height, width) of all files that can be read, the usual one (None: of none), statistics as pairs of a name and a
    text, and what can't be read, with the reason."""

    sizes: tuple[tuple[int, int], ...]
    usual: tuple[int, int] | None
    rows: tuple[tuple[str, str], ...]
    skipped: tuple[str, ...]


def survey(listing: Listing, fit: Fit) -> Survey:
    """What the headers say; of some files with values of more than 8 bits, these too."""
    headers, broken = scan(listing, fit)
    good = [h for h in headers if h is not None]
    sizes = tuple((h.height, h.width) for h in good)
    skipped = (*listing.skipped, *broken.values())
    rows = [("images", f"{len(good)} in '{listing.where}'")]
    if good:
        short = np.array([min(size) for size in sizes])
        rows.append(("short side", f"{short.min()} to {short.max()} pixels, median {int(np.median(short))}"))
        rows += [("files", note) for note in (*describe_files(good), *describe_values(headers, listing.open_file, fit))]
    rows += [("files", note) for note in listing.notes]
    if listing.labels is not None:
        kept = np.array([h is not None for h in headers])
        rows += describe_classes(listing.labels[kept], listing.classes)
    rows.append(("unreadable", f"{len(skipped)}, by their headers; data.size decodes all"))
    return Survey(sizes, usual_size(list(sizes)), tuple(rows), skipped)
