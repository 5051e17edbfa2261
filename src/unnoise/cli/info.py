"""`unnoise info`."""

import json
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unnoise.cli.options import say
from unnoise.utils.errors import UserError, nearest


def info(what: Annotated[Positional[str], arg(help="a run folder or a preset")]) -> int:
    """Print a preset's or a run's whole recipe: every field that an option can change.

    Examples: unnoise info digits
              unnoise info runs/digits
    """
    from unnoise.hub import is_on_hub
    from unnoise.presets import PRESETS
    from unnoise.registry import to_json
    from unnoise.run_folder import RunFolder

    if what not in PRESETS and not Path(what).is_dir() and not is_on_hub(what):
        raise UserError(f"no run folder or preset '{what}': {nearest(what, PRESETS)}")
    say(json.dumps(to_json(PRESETS[what] if what in PRESETS else RunFolder.open(what).read_info()), indent=2))
    return 0
