"""Report cards and comparisons of runs within the studio: made anew each time, since a run's own files may be a stranger's."""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from unnoise.reports.card import card
from unnoise.reports.compare import compare, comparison_page
from unnoise.reports.render import policy, to_html
from unnoise.studio.errors import Refusal
from unnoise.studio.requests import api_of

if TYPE_CHECKING:
    from unnoise.reports.blocks import Page


def report(request: Request) -> Response:
    return _answer(card(api_of(request).runs.open(request.path_params["run"])))


def comparison(request: Request) -> Response:
    runs, names = api_of(request).runs, request.query_params.getlist("run")
    if not 2 <= len(names) <= 8:
        raise Refusal(400, f"2 to 8 runs are compared, not {len(names)}: choose two")
    found = compare(*(runs.open(name).path for name in names))
    return _answer(comparison_page(found, runs.root))


def _answer(page: "Page") -> Response:
    """A page in a frame of the studio's, where it can reach nothing."""
    frame = f"{policy()}; frame-ancestors 'self'; sandbox allow-scripts"
    return HTMLResponse(to_html(page), headers={"content-security-policy": frame})
