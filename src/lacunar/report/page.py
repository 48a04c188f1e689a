"""A page made of sections, tables and figures: one HTML file that needs nothing beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure

from lacunar.report.style import PALETTE, svg

__all__ = ["Column", "Drawing", "Entries", "Page", "Preformatted", "Row", "Section", "Table", "Text", "Tile"]


@dataclass
class Text:
    """A paragraph; a ``strong`` one is a warning."""

    kind: ClassVar[str] = "text"
    text: str
    strong: bool = False


@dataclass
class Entries:
    """A list of short sentences."""

    kind: ClassVar[str] = "list"
    entries: list[str]


@dataclass
class Preformatted:
    """Text whose line breaks mean something."""

    kind: ClassVar[str] = "pre"
    text: str
    title: str = ""

    @property
    def folded(self) -> bool:
        return bool(self.title) and self.text.count("\n") > 30


@dataclass
class Drawing:
    """A figure, what it shows to somebody who cannot see it, and what to look for."""

    kind: ClassVar[str] = "figure"
    figure: Figure
    alt: str
    caption: str = ""
    svg: Any = None


@dataclass
class Column:
    """Heading of a table's column."""

    title: str
    number: bool = True
    hint: str = ""


@dataclass
class Row:
    """Cells of a table's row, the first its heading; ``members`` draws a dot for each modality before it."""

    cells: list[str]
    members: Sequence[bool] | None = None
    note: str = ""
    mark: str = ""


@dataclass
class Table:
    """A table; long ones are folded away."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: list[Column]
    rows: list[Row]

    @property
    def folded(self) -> bool:
        return len(self.rows) > 40


@dataclass
class Tile:
    """One number that matters."""

    name: str
    value: str
    detail: str = ""


Block = Text | Entries | Preformatted | Drawing | Table


@dataclass
class Section:
    """A heading and what stands below it."""

    anchor: str
    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass
class Page:
    """Everything that a report says."""

    title: str
    verdict: str
    names: Sequence[str]
    tiles: list[Tile] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    footer: str = ""
    kind: str = "lacunar report"

    def html(self) -> str:
        """The page as one string. Every text is escaped; the drawings' text was by matplotlib."""
        from importlib.resources import files

        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup

        sections = [section for section in self.sections if section.blocks]
        number = 0
        for section in sections:
            for block in section.blocks:
                if isinstance(block, Drawing):
                    number += 1
                    block.svg = Markup(svg(block.figure, f"figure{number}"))
        environment = Environment(
            loader=PackageLoader("lacunar.report", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        css = files("lacunar.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
        return environment.get_template("page.html.j2").render(
            title=self.title,
            kind=self.kind,
            verdict=self.verdict,
            tiles=self.tiles,
            sections=sections,
            footer=self.footer,
            css=Markup(css),
            tint=[PALETTE[m % len(PALETTE)] for m in range(len(self.names))],
        )


def number(value: Any, digits: int = 3) -> str:
    """A number for people: a dash where there is none."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")  # a narrow space that does not break
    if isinstance(value, float):
        return f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.4g}"
    return str(value)
