"""A run to the Hugging Face hub, with a model card that is its report card."""

import re
from dataclasses import replace
from pathlib import Path

from unnoise import hub
from unnoise.recipe import RunInfo, without_paths
from unnoise.registry import to_json
from unnoise.reports.blocks import Figure, Page
from unnoise.reports.card import card
from unnoise.reports.render import to_markdown
from unnoise.run_folder import RunFolder
from unnoise.utils import atomic
from unnoise.utils.errors import UserError

PRIVATE = ("evaluation-nearest.png", "report-example.png")  # show images that the run was trained on, or held out
IMAGE = re.compile(r"!\[[^\]]*\]\(<([^>]+)>\)")
USE = """
## How to use it

    pip install 'unnoise[hub]'
    unnoise sample hf:{repo} -n 16

or in Python `unnoise.load("hf:{repo}").sample(16)`.

## Intended use

To generate images like those it was trained on, {size}, and as a prior to restore such images. Not to pass for photographs
of what exists. A model can have learned single images by heart: what is known of that stands below.
"""


def push(run: Path, repo: str, license: str | None = None, private: bool = False) -> str:
    """Write a run to the hub's repository OWNER/NAME, made if it is not there, in one commit; gives its address.

    Weights, recipe, logs, evaluation and the model card with the grids of samples; no checkpoints, no image of the data, and of
    absolute paths in the recipe the last part alone. `license` is the identifier of the hub, None leaves it unsaid. Raises
    UserError for a run without weights, and where the hub refuses.
    """
    hub.repository(f"hf:{repo}")
    if license is not None and not re.fullmatch(r"[a-z0-9.+-]+", license):
        raise UserError(f"`license` is an identifier of the hub, such as mit or cc-by-4.0, not '{license}'")
    folder = RunFolder.open(run)
    if not folder.model.is_file():
        raise UserError(f"'{run}' has no model.safetensors yet: train it with 'unnoise train --resume {run}'")
    client = hub.api()
    files = contents(folder, repo, license)
    from huggingface_hub import CommitOperationAdd

    try:
        client.create_repo(repo, private=private or None, exist_ok=True)
        operations = [CommitOperationAdd(name, value) for name, value in files.items()]
        client.create_commit(repo, operations, commit_message="A run of unnoise")
    except Exception as e:  # network, no token, not allowed: each raises its own kind
        raise UserError(f"the hub did not take '{repo}' ({hub.first_line(e)}): 'hf auth login' gives it your token") from e
    return f"{client.endpoint}/{repo}"


def contents(folder: RunFolder, repo: str, license: str | None = None) -> dict[str, bytes | Path]:
    """The files of the repository by name: their bytes, or where they are."""
    card = model_card(folder, repo, license)
    recipe = atomic.dump_json(without_paths(to_json(folder.read_info())))
    own = {name: folder.path / name for name in hub.LIMITS if name != "recipe.json" and (folder.path / name).is_file()}
    images = {name: folder.path / name for name in IMAGE.findall(card)}
    return {"README.md": card.encode(), "recipe.json": recipe.encode(), **own, **images}


def model_card(folder: RunFolder, repo: str, license: str | None = None) -> str:
    """The report card as markdown below the hub's facts, without images of the data."""
    info = folder.read_info()
    facts = ["library_name: unnoise", "pipeline_tag: unconditional-image-generation", "tags: [diffusion, image-generation]"]
    facts += [f"license: {license}"] if license else []
    title, _, rest = to_markdown(_without_data(card(folder), repo)).partition("\n\n*")
    return "\n".join(["---", *facts, "---", title, _use(info, repo), f"*{rest}"])


def _use(info: RunInfo, repo: str) -> str:
    return USE.format(repo=repo, size=f"{info.shape[1]}x{info.shape[2]} pixels")


def _without_data(page: Page, repo: str) -> Page:
    sections = []
    for section in page.sections:
        blocks = tuple(b for b in section.blocks if not (isinstance(b, Figure) and b.path in PRIVATE))
        sections.append(replace(section, blocks=blocks))
    return replace(page, title=repo.rpartition("/")[2], sections=tuple(s for s in sections if s.blocks))
