"""`unnoise runs`."""

import json
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unnoise.cli.options import say
from unnoise.utils.errors import UserError


def runs(
    folder: Annotated[Positional[Path], arg(help="the folder that holds runs")] = Path("runs"),
    json_: Annotated[bool, arg(name="json", help="print one JSON list and nothing else")] = False,
) -> int:
    """List the runs in a folder: state, step, loss (mean of the last 50), best held-out loss.

    Examples: unnoise runs
              unnoise runs other/runs --json
    """
    from unnoise.run_folder import list_runs

    found = list_runs(folder)
    if not found:
        raise UserError(f"no runs in '{folder}': begin one with 'unnoise train' or 'unnoise demo'")
    if json_:
        print(json.dumps([{**vars(r), "folder": str(r.folder)} for r in found]))
        return 0
    for r in found:
        of = f" of {r.total}" if r.total else ""
        losses = [f"{name} {value:.4f}" for name, value in (("loss", r.loss), ("held out", r.best)) if value is not None]
        say(f"{r.folder}: {r.state}, step {r.step}{of}" + (f", {', '.join(losses)}" if losses else ""))
    return 0
