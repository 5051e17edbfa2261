"""Data sets of Hugging Face's hub, and local parquet files or image folders, by way of the library `datasets`."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unnoise.data.cache import FileSource, Listing
from unnoise.utils.errors import UserError


@dataclass(frozen=True)
class Hub(FileSource):
    """`repo` is OWNER/NAME on the hub or a local folder; needs the extra `hub`.

    Its first column of images is taken and, if it has one, its first column of classes. A `test` split is held out.
    """

    repo: str = ""
    train: str = "train"
    test: str = "test"

    def listing(self) -> Listing:
        found = self._load()
        splits = [found[s] for s in (self.train, self.test) if s in found]
        if not splits or self.train not in found:
            raise UserError(f"'{self.repo}' has no split '{self.train}': it has {', '.join(found)}")
        features = splits[0].features
        kinds = {column: type(feature).__name__ for column, feature in features.items()}
        images = next((c for c, kind in kinds.items() if kind == "Image"), None)
        classes = next((c for c, kind in kinds.items() if kind == "ClassLabel"), None)
        if images is None:
            raise UserError(f"'{self.repo}' has no column of images: it has {kinds}")
        rows = [(s, k) for s in splits for k in range(len(s))]

        def open_file(k: int) -> io.BytesIO | Path:
            part, row = rows[k]
            cell: dict[str, Any] = part[row][images]
            return io.BytesIO(cell["bytes"]) if cell["bytes"] is not None else self._inside(Path(cell["path"]))

        labels = None if classes is None else np.concatenate([np.asarray(s[classes], dtype=np.int64) for s in splits])
        names = () if classes is None else tuple(features[classes].names)
        is_test = np.concatenate([np.full(len(s), i > 0) for i, s in enumerate(splits)])
        stamp = hashlib.blake2b("".join(s._fingerprint for s in splits).encode(), digest_size=8).hexdigest()
        return Listing(self.repo, [f"{k}" for k in range(len(rows))], open_file, [stamp] * len(rows), labels, names,
                       is_test if is_test.any() else None)  # fmt: skip

    def _inside(self, path: Path) -> Path:
        """A file that a cell names. Raises ValueError where it is none of the set's own, but one of the user's."""
        import datasets

        places = [Path(self.repo), Path(datasets.config.HF_DATASETS_CACHE), Path(datasets.config.DOWNLOADED_DATASETS_PATH)]
        if not any(place.resolve() in path.resolve().parents for place in places if place.is_dir()):
            raise ValueError(f"the set names a file outside of itself, {str(path)!r}")
        return path

    def _load(self) -> dict[str, Any]:
        """The splits, with images as their files' bytes: decoding is ours."""
        try:
            import datasets
        except ImportError as e:
            raise UserError("sets of the hub need the library datasets: pip install 'unnoise[hub]'") from e
        try:
            splits = datasets.load_dataset(self.repo)
            for column, feature in next(iter(splits.values())).features.items():
                if isinstance(feature, datasets.Image):
                    splits = splits.cast_column(column, datasets.Image(decode=False))
        except Exception as e:  # network, missing, malformed: each raises its own kind
            said = (str(e).strip().splitlines() or [type(e).__name__])[0]
            raise UserError(f"'{self.repo}' can't be loaded ({said}): give OWNER/NAME of the hub, or a folder of parquet "
                            "files or images")  from e  # fmt: skip
        return dict(splits)
