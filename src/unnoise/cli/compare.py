"""`unnoise compare`."""

import json
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unnoise.cli.options import say


def compare(
    runs: Annotated[Positional[tuple[Path, ...]], arg(help="folders of two or more runs")],
    out: Annotated[Path, arg(help="the page to write, .html or .md")] = Path("comparison.html"),
    json_: Annotated[bool, arg(name="json", help="print one JSON object and nothing else")] = False,
) -> int:
    """Put runs side by side: what differs in their recipes, their measures, and which differences are within noise.

    Examples: unnoise compare runs/digits runs/digits-2
              unnoise compare runs/a runs/b runs/c --out abc.html
              unnoise compare runs/a runs/b --json
    """
    from unnoise.reports.compare import compare as find

    found = find(*runs, out=out)
    if json_:
        print(json.dumps(found.to_json()))
        return 0
    say(found.table())
    say(str(out))
    return 0
