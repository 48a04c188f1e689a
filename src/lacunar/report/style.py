"""How figures look: one colour per modality, readable by colour-blind eyes, on light and on dark paper."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DASHES", "GRID", "INK", "MOST_LINES", "PALETTE", "colours", "line_style", "new_figure", "quiet", "svg"]

#: Okabe and Ito's colours without black and yellow: they stay apart in every common colour vision, on white and on
#: dark grey.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6bb1", "#7f7f7f")
#: Lines of one colour.
DASHES = ("-", "--", "-.", ":")
#: Lines that a figure can show and still be read.
MOST_LINES = 10
#: Stand-ins for text and grid lines. In a page they become the page's own colours, so that they follow its theme.
INK, GRID = "#1b1f24", "#c9ced6"
#: Width of a figure in inches; a page scales it to the width it has.
WIDTH = 7.6

_SETTINGS: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "lacunar", "text.parse_math": False, "font.family": "DejaVu Sans",
    "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": GRID, "xtick.color": INK,
    "ytick.color": INK, "axes.titlesize": 9.5, "axes.titlelocation": "left", "axes.titleweight": "bold",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": GRID, "grid.linewidth": 0.6, "legend.frameon": False, "legend.fontsize": 8.5,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "lines.linewidth": 1.6,
    "xtick.major.size": 0, "ytick.major.size": 0, "axes.unicode_minus": True,
}  # fmt: skip


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each modality: the same in every figure of a page."""
    return {str(name): PALETTE[m % len(PALETTE)] for m, name in enumerate(names)}


def line_style(number: int) -> dict[str, Any]:
    """Colour and dashes of one of many lines: every colour in full, then every colour dashed."""
    return {"color": PALETTE[number % len(PALETTE)], "linestyle": DASHES[number // len(PALETTE) % len(DASHES)]}


@contextmanager
def quiet() -> Iterator[None]:
    """The settings that figures are drawn and written under, whatever the user's own are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure that needs no window and no global state."""
    return Figure(figsize=(width, height), layout="constrained")


def no_grid(axes: Axes, axis: str = "both") -> None:
    """Without grid lines along an axis."""
    axes.grid(False, axis=axis)  # type: ignore[arg-type]


def svg(figure: Figure, prefix: str) -> str:
    """A figure as inline SVG that follows the colours and the font of the page around it.

    Args:
        figure: what the functions of :mod:`lacunar.report.figures` return.
        prefix: put before every id in the drawing, so that drawings in one page do not meet.
    """
    buffer = io.StringIO()
    with quiet(), warnings.catch_warnings():
        # The browser has the letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="0 0 ([\d.]+) [^"]*"', head)
    assert box is not None
    # Points to pixels, and a little more: as large as the text around it, and no larger on a wide page.
    width = f"max-width: {float(box.group(1)) * 1.45:.0f}px"
    head = f'<svg {box.group(0)} width="100%" style="{width}" stroke-linejoin="round" aria-hidden="true"'
    # Inside tags only: a name may hold what looks like an attribute.
    body = re.sub(r"<[^>]*>", lambda tag: _themed(tag.group(0), prefix), body)
    return f"{head}>{body}".strip()


def _themed(tag: str, prefix: str) -> str:
    tag = tag.replace("xlink:href=", "href=")
    tag = re.sub(r'\bid="', f'id="{prefix}-', tag)
    tag = tag.replace('href="#', f'href="#{prefix}-').replace("url(#", f"url(#{prefix}-")
    tag = re.sub(r"font-family: [^;\"]*", "font-family: inherit", tag)
    tag = re.sub(r"font: (?:(bold|\d00) )?([\d.]+)px [^;\"]*", _font, tag)
    return tag.replace(INK, "currentColor").replace(GRID, "var(--grid, #c9ced6)")


def _font(found: re.Match[str]) -> str:
    weight = f"font-weight: {found.group(1)}; " if found.group(1) else ""
    return f"{weight}font-size: {found.group(2)}px; font-family: inherit"
