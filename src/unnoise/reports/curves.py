"""Curves as SVG within a page: its colours are variables of the page's style, so that they suit dark and light."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unnoise.run_folder import Curve

SIZE = 4.4, 2.6  # inches
POINTS = 400  # of a curve
INK, FIRST, SECOND, FAINT = "#000001", "#000002", "#000003", "#000004"  # stand for colours of the page
COLOURS = {INK: "currentColor", FIRST: "var(--first)", SECOND: "var(--second)", FAINT: "var(--faint)"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 8.5, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "grid.color": FAINT, "grid.alpha": 0.3, "grid.linewidth": 0.5,
    "axes.grid": True, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A curve with its name; `dots` where it was measured now and then."""

    curve: Curve
    label: str
    colour: str
    dots: bool = False


def loss_svg(loss: Curve, held_out: Curve | None) -> str:
    """The loss of each step, a running mean of it and, where there is one, the loss on held-out images."""
    steps, values = loss
    width = max(1, len(values) // 50)
    mean = np.convolve(values, np.ones(width) / width, mode="valid").tolist()
    lines = [Line(loss, "each step", FAINT), Line((steps[width - 1 :], mean), f"mean of {width}", FIRST)]
    return curves_svg([*lines, *([Line(held_out, "held out", SECOND, dots=True)] if held_out else [])], "loss")


def rate_svg(rates: Curve) -> str:
    """The fraction of copies among samples, by step."""
    return curves_svg([Line(rates, "copies among samples", FIRST, dots=True)], "fraction", (-0.03, 1.03))


def curves_svg(lines: Sequence[Line], what: str, limits: tuple[float, float] | None = None) -> str:
    """An `svg` element of curves over steps, its axis logarithmic where all is positive and no `limits` are given."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": what}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            axes.plot(*_thinned(line.curve), color=line.colour, label=line.label, linewidth=0.6 if line.colour == FAINT else 1.4,
                      marker="o" if line.dots else None, markersize=3)  # fmt: skip
        axes.set(xlabel="step", ylabel=what)
        if limits is not None:
            axes.set_ylim(limits)
        elif all(min(line.curve[1]) > 0 for line in lines):
            axes.set_yscale("log")
            axes.yaxis.set(major_locator=LogLocator(subs=(1, 2, 3, 5)), major_formatter="{x:g}", minor_formatter=NullFormatter())
        axes.legend()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _element(buffer.getvalue())


def _thinned(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """At most POINTS of a curve, evenly spaced."""
    chosen = np.unique(np.linspace(0, len(curve[0]) - 1, min(POINTS, len(curve[0]))).round().astype(int))
    return np.asarray(curve[0], float)[chosen], np.asarray(curve[1], float)[chosen]


def _element(svg: str) -> str:
    """The element alone, as wide as the page: no prologue, no metadata, no names that other curves of the page have too."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
    svg = re.sub(r' (?:xmlns(?::xlink)?="[^"]*"|id="[a-zA-Z0-9.]+_\d+"|version="1.1")', "", svg)
    opening, rest = svg.split(">", 1)
    svg = re.sub(r' (?:width|height)="[^"]*"', "", opening) + ">" + rest
    for stand_in, colour in COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return svg
