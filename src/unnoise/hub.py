"""Runs of the Hugging Face hub: `hf:OWNER/NAME`, or `hf:OWNER/NAME@REVISION`, wherever a run is named.

Of the repository only JSON and safetensors are fetched, of known names and sizes, into the cache; then it is a run folder like
any other. Whoever wrote it need not be trusted.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import safe_open

from unnoise.utils import atomic
from unnoise.utils.errors import UserError

NAME = re.compile(r"hf:([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")
MAX_WEIGHTS = 2**34  # bytes of a file of weights
LIMITS = {  # of what is fetched, in bytes
    "recipe.json": atomic.MAX_JSON, "model.safetensors": MAX_WEIGHTS, "guide.safetensors": MAX_WEIGHTS,
    "evaluation.json": atomic.MAX_JSON, "metrics.jsonl": 2**28, "held-out.jsonl": 2**28, "cost.jsonl": 2**24,
}  # fmt: skip
NEEDED = ("recipe.json", "model.safetensors")


def is_on_hub(run: Path | str) -> bool:
    """Whether a run's name is one on the hub."""
    return Path(run).as_posix().startswith("hf:")


def repository(name: Path | str) -> tuple[str, str | None]:
    """OWNER/NAME and the revision, None for the newest. Raises UserError for what is no such name."""
    text = Path(name).as_posix()
    found = NAME.fullmatch(text)
    if found is None:
        raise UserError(f"a run on the hub is hf:OWNER/NAME, or hf:OWNER/NAME@REVISION, not '{text}'")
    return found[1], found[2]


def api() -> Any:
    """The hub's client, for $HF_ENDPOINT or huggingface.co. Raises UserError where the library is missing."""
    try:
        from huggingface_hub import HfApi
    except ImportError as e:
        raise UserError("the hub needs the library huggingface-hub: pip install 'unnoise[hub]'") from e
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="unnoise")


def first_line(error: Exception) -> str:
    """Of what the library says of a failure."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip().rstrip(".")


def local(run: Path | str) -> Path:
    """The folder of a run, fetched where it is one of the hub."""
    return fetch(run) if is_on_hub(run) else Path(run)


def fetch(name: Path | str) -> Path:
    """The folder of a run that was fetched, now or before, at its revision.

    Raises UserError where there is none, where it can't be reached, and for files that are larger than any run's, that are
    damaged, or hold numbers that are not finite.
    """
    from filelock import FileLock

    from unnoise.data.cache import cache_folder  # imports torch, which a name that is not of the hub does not need

    repo, revision = repository(name)
    client = api()
    try:
        info = client.model_info(repo, revision=revision, files_metadata=True)
    except Exception as e:  # network, missing, private: each raises its own kind
        raise UserError(f"'hf:{repo}' can't be reached ({first_line(e)}): check the name, and whether it is private") from e
    sizes = {file.rfilename: file.size for file in info.siblings or [] if file.rfilename in LIMITS}
    if missing := [file for file in NEEDED if file not in sizes]:
        raise UserError(f"'hf:{repo}' is no run of this program: it has no {missing[0]}")
    if large := [file for file, size in sizes.items() if not isinstance(size, int) or size > LIMITS[file]]:
        raise UserError(
            f"'{large[0]}' of 'hf:{repo}' has {sizes[large[0]]} bytes, more than the {LIMITS[large[0]]} that are read"
        )
    place = cache_folder() / "hub" / repo.replace("/", "--") / re.sub(r"\W", "", str(info.sha))
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_suffix(".lock")):  # of several processes one fetches it
        if not (place / "recipe.json").is_file():
            shutil.rmtree(place, ignore_errors=True)
            atomic.write_folder(place, lambda to: _fetch(client, repo, str(info.sha), list(sizes), to))
    return place


def _fetch(client: Any, repo: str, revision: str, files: list[str], to: Path) -> None:
    try:
        for file in files:
            client.hf_hub_download(repo, file, revision=revision, local_dir=to)
    except Exception as e:
        raise UserError(f"'hf:{repo}' can't be fetched ({first_line(e)}): try again") from e
    shutil.rmtree(to / ".cache", ignore_errors=True)  # the library's notes
    for file in files:
        if file.endswith(".safetensors"):
            _check_weights(to / file, repo)


def _check_weights(path: Path, repo: str) -> None:
    """Raises UserError for a file that is no safetensors, or holds a number that is not finite."""
    try:
        with safe_open(path, "pt") as file:
            bad = next((name for name in file.keys() if not bool(file.get_tensor(name).isfinite().all())), None)  # noqa: SIM118
    except Exception as e:  # safetensors raises its own kinds
        raise UserError(f"'{path.name}' of 'hf:{repo}' is damaged ({first_line(e)})") from e
    if bad is not None:
        raise UserError(f"'{path.name}' of 'hf:{repo}' holds numbers in '{bad}' that are not finite: the training of it failed")
