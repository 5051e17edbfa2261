"""`unnoise push`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unnoise.cli.options import say


def push(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    repo: Annotated[Positional[str], arg(help="OWNER/NAME on the hub; made if it is not there")],
    license: Annotated[str | None, arg(help="what others may do with the weights: mit, cc-by-4.0, ...")] = None,
    private: Annotated[bool, arg(help="make a new repository that only you see")] = False,
) -> int:
    """Publish a run on the Hugging Face hub, with its report card as the model card.

    `hf auth login` gives your token once. Others then name it wherever a run is named: hf:OWNER/NAME.

    Examples: unnoise push runs/digits me/digits --license mit
              unnoise push runs/photos me/photos --private
    """
    from unnoise.export.hub import push as push_run

    address = push_run(run, repo, license, private)
    if license is None:
        say("no --license: others may look at it, and do nothing more")
    say(f"{address}. Next: unnoise sample hf:{repo} -n 16")
    return 0
