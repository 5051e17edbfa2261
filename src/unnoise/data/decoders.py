"""Optional decoders: why a folder's images are others than they were, where one has been installed or removed since."""

from collections.abc import Iterator

import numpy as np

from unnoise.data.cache import FileSource
from unnoise.data.dataset import ImageDataset
from unnoise.data.decode import kind_of_file, read_header
from unnoise.data.fit import Fit


def explain_change(source: object, images: ImageDataset, fit: Fit, fingerprint: str) -> str:
    """Why `images`, read from the source now, do not have the fingerprint that they had; empty where it is no decoder's doing."""
    wanted = next((note for note in (*images.notes, *images.skipped) if "pip install" in note), None)
    if wanted is not None:
        return f"not all of it is read here, {wanted}"
    if not isinstance(source, FileSource):
        return ""
    packages = np.array(list(_packages(source, fit)))
    packages = packages if images.index is None else packages[images.index]
    for package in sorted(set(packages) - {""}):
        by_it = packages == package
        if images.subset(~by_it).fingerprint() == fingerprint:
            return f"it was without the images that {package} reads ({by_it.sum()}), which was installed since: uninstall that"
    return ""


def _packages(source: FileSource, fit: Fit) -> Iterator[str]:
    """For each file the package that alone reads it, if that is optional."""
    listing = source.listing()
    for k in range(len(listing.names)):
        kind = kind_of_file(file := listing.open_file(k))
        if kind is not None and kind.name == "TIFF":
            try:
                yield "tifffile" if " bands of " in read_header(file, fit).mode else ""
            except Exception:  # it is not among the images
                yield ""
        else:
            yield "pillow-heif" if kind is not None and kind.module == "pillow_heif" else ""
