"""onnxruntime-web, which runs the network of an exported page in the browser: fetched once from npm's registry, or given.

Two files of one version of the published package, known by their hashes; they have 14 MB, so this program does not carry them.
"""

import hashlib
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.request import urlopen

from unnoise.data.cache import cache_folder
from unnoise.utils import atomic
from unnoise.utils.errors import UserError

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web {VERSION}"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
FILES = {  # by their names in an exported page: those in the package, and SHA-256
    "ort.js": ("dist/ort.wasm.bundle.min.mjs", "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90"),
    "ort.wasm": ("dist/ort-wasm-simd-threaded.wasm", "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"),
}
MAX_BYTES = 2**27  # of the package, and of a file in it
CHUNK = 2**18
SECONDS = 30  # without an answer

Files = dict[str, bytes]
Say = Callable[[str], object]


def runtime_files(given: Path | None = None, say: Say = str) -> Files:
    """The files by their names in an exported page.

    `given` is the package as a .tgz, its folder, or any folder with the files. Without it the package is fetched from npm's
    registry, which `say` is told of, unless it was before. Raises UserError where it can't be, and for another version.
    """
    if given is not None:
        return _checked(_of_folder(given) if given.is_dir() else _of_package(given), given)
    kept = cache_folder() / f"onnxruntime-web-{VERSION}"
    found = _of_folder(kept)
    if not _wrong(found):
        return found
    say(f"fetching {PACKAGE} from npm's registry, once")
    with tempfile.TemporaryFile() as file:
        _fetch(file)
        found = _checked(_of_package(Path(URL), file), Path(URL))
    for name, content in found.items():
        atomic.write(kept / name, lambda path, content=content: path.write_bytes(content))  # type: ignore[misc]
    return found


def _fetch(file: IO[bytes]) -> None:
    try:
        with urlopen(URL, timeout=SECONDS) as answer:
            while (chunk := answer.read(CHUNK)) and file.tell() <= MAX_BYTES:
                file.write(chunk)
    except OSError as e:
        raise UserError(f"{PACKAGE} can't be fetched ({getattr(e, 'reason', None) or e}): fetch {URL} on another machine, and "
                        "give that file with `runtime`") from e  # fmt: skip
    file.seek(0)


def _of_package(path: Path, file: IO[bytes] | None = None) -> Files:
    """From a .tgz. Raises UserError for what is none."""
    names = {f"package/{inside}": name for name, (inside, _) in FILES.items()}
    try:
        with tarfile.open(path, "r|gz", fileobj=file) as archive:
            parts = ((names[m.name], archive.extractfile(m)) for m in archive if m.name in names and m.size < MAX_BYTES)
            return {name: part.read() for name, part in parts if part is not None}
    except (OSError, tarfile.TarError, EOFError, zlib.error) as e:
        raise UserError(f"'{path}' can't be read as the package {PACKAGE} ({e}): give its .tgz, or its folder") from e


def _of_folder(path: Path) -> Files:
    """From a folder that holds the package, or the files by their names there or here."""
    found = {}
    for name, (inside, _) in FILES.items():
        places = (path / inside, path / Path(inside).name, path / name)
        if place := next((p for p in places if p.is_file()), None):
            found[name] = place.read_bytes()
    return found


def _wrong(files: Files) -> list[str]:
    """What is missing or of another version."""
    return [inside for name, (inside, sha) in FILES.items() if hashlib.sha256(files.get(name, b"")).hexdigest() != sha]


def _checked(files: Files, where: Path) -> Files:
    if wrong := _wrong(files):
        raise UserError(f"'{where}' has no {Path(wrong[0]).name} of {PACKAGE}: give that version, or have it fetched, "
                        "without `runtime`")  # fmt: skip
    return files
