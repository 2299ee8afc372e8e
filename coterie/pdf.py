"""The pages that `coterie.report` writes, as PDF files: what an auditor signs, sends and files.

The PDF is made from the page's own elements, so that it can't say anything else than the page.
"""

import io
import re
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from matplotlib import get_data_path
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.pdfmetrics import getFont, registerFont, registerFontFamily
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import LongTable, Paragraph, SimpleDocTemplate, TableStyle

_FONT, _BOLD, _CHINESE = "DejaVuSans", "DejaVuSans-Bold", "STSong-Light"
_MARGIN = 40
_STYLES = {
    "h1": ParagraphStyle("h1", fontName=_BOLD, fontSize=16, leading=21, spaceAfter=6),
    "h2": ParagraphStyle("h2", fontName=_BOLD, fontSize=11.5, leading=15, spaceBefore=14,
                         spaceAfter=4, keepWithNext=1),
    "p": ParagraphStyle("p", fontName=_FONT, fontSize=8, leading=11.5, spaceAfter=6),
    "bad": ParagraphStyle("bad", fontName=_BOLD, fontSize=8, leading=11.5, spaceAfter=6,
                          textColor=HexColor("#b3261e")),
    "cell": ParagraphStyle("cell", fontName=_FONT, fontSize=7, leading=9.5, splitLongWords=1),
}  # fmt: skip
_LINES = TableStyle(
    [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, HexColor("#cccccc")),
        ("LEFTPADDING", (0, 0), (-1, -1), 3),
        ("RIGHTPADDING", (0, 0), (-1, -1), 3),
    ]
)
_CJK = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]+")


def as_pdf(page: str) -> bytes:
    """A report as a PDF on A4, landscape.

    Chinese is set in the font that PDF readers bring for it; a character that no font here has is
    written as its code point, such as <U+1F600>.

    Args:
        page: HTML as `report` or `network_report` gives it.
    """
    reader = _read(page)
    file = io.BytesIO()
    size = landscape(A4)
    document = SimpleDocTemplate(
        file, pagesize=size, title=reader.title.strip(), leftMargin=_MARGIN, rightMargin=_MARGIN,
        topMargin=_MARGIN, bottomMargin=_MARGIN, invariant=1,
    )  # fmt: skip
    width = size[0] - 2 * _MARGIN
    story = [_drawn(block, width) for block in reader.blocks]
    document.build(story, onFirstPage=_number, onLaterPages=_number)
    return file.getvalue()


def blocks(page: str) -> list["Block"]:
    """What the PDF of a report says, block by block, as reportlab's marked-up text."""
    return _read(page).blocks


@dataclass
class Block:
    """A heading, a paragraph, or a table's rows of (columns spanned, text)."""

    kind: str
    words: str = ""
    bad: bool = False
    rows: list[list[list[Any]]] = field(default_factory=list)


class _Reader(HTMLParser):
    """Reads our own templates' elements into blocks; text is escaped for `Paragraph`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self.blocks: list[Block] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("title", "style"):
            self._inside = tag
        elif tag in ("h1", "h2", "p", "table"):
            self._inside = dict(attributes).get("class") or tag
            self.blocks.append(Block(tag, bad=self._inside.endswith("bad")))
        elif tag == "tr":
            self.blocks[-1].rows.append([])
        elif tag in ("th", "td"):
            span = int(dict(attributes).get("colspan") or 1)
            self.blocks[-1].rows[-1].append([span, "<b>" if tag == "th" else ""])
        elif tag == "br":
            self._add("<br/>")
        elif tag == "b":
            self._add("<b>")

    def handle_endtag(self, tag: str) -> None:
        if tag == "b":
            self._add("</b>")
        elif tag in ("title", "style", "h1", "h2", "p", "table"):
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.title += data
        elif self._inside not in ("", "style"):
            kept = data if self._inside.startswith("verdict") else re.sub(r"\s+", " ", data)
            self._add(_set(kept).replace("\n", "<br/>"))

    def _add(self, words: str) -> None:
        if not self.blocks:
            return
        block = self.blocks[-1]
        if block.kind != "table":
            block.words += words
        elif block.rows and block.rows[-1]:
            block.rows[-1][-1][1] += words


def _read(page: str) -> _Reader:
    _register_fonts()
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader


def _drawn(block: Block, width: float) -> Any:
    if block.kind != "table":
        return Paragraph(block.words, _STYLES["bad" if block.bad else block.kind])
    columns = max(sum(span for span, _ in row) for row in block.rows)
    cells, spans = [], []
    for number, row in enumerate(block.rows):
        line: list[Any] = []
        for span, words in row:
            closed = f"{words}</b>" if words.startswith("<b>") and number == 0 else words
            if span > 1:
                spans.append(("SPAN", (len(line), number), (len(line) + span - 1, number)))
            line += [Paragraph(closed, _STYLES["cell"]), *[""] * (span - 1)]
        cells.append(line + [""] * (columns - len(line)))
    table = LongTable(
        cells, colWidths=[width / columns] * columns, repeatRows=1, splitInRow=1, spaceAfter=8
    )
    table.setStyle(_LINES)
    table.setStyle(TableStyle(spans))
    return table


def _set(words: str) -> str:
    """Escaped text in fonts that have its characters."""
    known = getFont(_FONT).face.charToGlyph
    said = []
    for at, part in enumerate(re.split(f"({_CJK.pattern})", words)):
        if at % 2:
            said.append(f'<font name="{_CHINESE}">{escape(part)}</font>')
        else:
            drawn = (c if c.isspace() or ord(c) in known else f"<U+{ord(c):04X}>" for c in part)
            said.append(escape("".join(drawn)))
    return "".join(said)


def _number(canvas: Any, document: Any) -> None:
    canvas.setFont(_FONT, 7)
    canvas.drawRightString(document.pagesize[0] - _MARGIN, _MARGIN / 2, str(document.page))


@cache
def _register_fonts() -> None:
    """DejaVu, which comes with matplotlib, and the Chinese font that PDF readers bring."""
    folder = Path(get_data_path()) / "fonts" / "ttf"
    for name in (_FONT, _BOLD):
        registerFont(TTFont(name, str(folder / f"{name}.ttf")))
    registerFontFamily(_FONT, normal=_FONT, bold=_BOLD, italic=_FONT, boldItalic=_BOLD)
    registerFont(UnicodeCIDFont(_CHINESE))
