"""Figures of matplotlib as SVG pictures whose texts the reader's own fonts draw.

Texts that come from outside never pass through matplotlib: it lays out a stand-in as wide, and the text is put in its
place afterwards, escaped.  So a dollar sign begins no formula, a tag is no markup, and characters that the fonts of this
computer lack are drawn by those of the reader's.
"""

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from unicodedata import east_asian_width
from xml.sax.saxutils import escape

from matplotlib import rc_context
from matplotlib.figure import Figure

INK, SOFT, GRID = "#16202a", "#4a5967", "#c9d1d9"
WIDTH_IN = 8.6  # of every chart across the page; 72 points an inch
FONTS = "system-ui, 'Noto Sans', 'Noto Sans CJK SC', 'Microsoft YaHei', 'PingFang SC', sans-serif"
_STYLE: dict[str, Any] = {
    "font.size": 9, "axes.titlesize": 9, "axes.titlelocation": "left", "axes.edgecolor": SOFT, "axes.labelcolor": INK,
    "text.color": INK, "xtick.color": INK, "ytick.color": INK, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": GRID, "grid.linewidth": 0.5, "svg.fonttype": "none", "svg.hashsalt": "lineside", "hatch.linewidth": 0.7,
    "lines.linewidth": 1.1, "axes.linewidth": 0.7, "figure.facecolor": "white", "font.family": "DejaVu Sans",
}  # fmt: skip
_HEAD = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)
_FAMILY = re.compile(r"font-family: [^;\"]*")
_FINE = re.compile(r"(?<=\d\.\d\d)\d+")  # a hundredth of a point is finer than any screen
_QUOTED = re.compile(r'"[^"]*"')  # attributes: what stands between tags is read, and keeps its digits
_PLACE = re.compile(r"\u00a7(\d{4})x*")
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST = 28  # columns of a text in a chart; what is longer ends in an ellipsis


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart: its picture as data URI, and the words for those who cannot see it."""

    uri: str
    alt: str


@dataclass(slots=True)
class Canvas:
    """A figure of one or more plots, and the texts that are put into it when it is done."""

    figure: Figure
    _texts: list[str] = field(default_factory=list)

    def text(self, text: str, most: int = _LONGEST) -> str:
        """The stand-in for a text, to be given to matplotlib; ``most`` columns are shown."""
        self._texts.append(shortened(text, most))
        columns = sum(columns_of(character) for character in self._texts[-1])
        return f"\u00a7{len(self._texts) - 1:04d}".ljust(max(5, columns), "x")

    def svg(self) -> str:
        """The picture as SVG."""
        file = io.BytesIO()
        # Without date and maker the same numbers give the same bytes.
        self.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        bare = _QUOTED.sub(lambda found: _FINE.sub("", found[0]), _HEAD.sub("", file.getvalue().decode("utf-8")))
        drawn = _FAMILY.sub("font-family: " + FONTS, bare)
        return _PLACE.sub(lambda found: escape(self._texts[int(found[1])]), drawn)

    def chart(self, alt: str) -> Chart:
        """The picture with what it shows in words."""
        return Chart("data:image/svg+xml;base64," + base64.b64encode(self.svg().encode("utf-8")).decode(), alt)


@contextmanager
def canvas(height_in: float, width_in: float = WIDTH_IN) -> Iterator[Canvas]:
    """An empty figure in the style of the report; draw on it and take its chart within the block."""
    with rc_context(cast(Any, _STYLE)):
        yield Canvas(Figure(figsize=(width_in, height_in), layout="constrained"))


def columns_of(character: str) -> int:
    """How many columns a character takes: two where it is as wide as high."""
    return 2 if east_asian_width(character) in "WF" else 1


def shortened(text: str, most: int) -> str:
    """A text on one line in at most so many columns, without characters that XML does not know."""
    plain = _NOT_XML.sub("\ufffd", " ".join(text.split()))
    kept, used = "", 0
    for character in plain:
        used += columns_of(character)
        if used > most:
            return kept[:-1] + "\u2026"
        kept += character
    return kept
