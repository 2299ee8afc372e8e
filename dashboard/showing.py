"""How figures, tables and charts are shown everywhere: with unit, download and a way on."""

import re
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.session import plain
from dashboard.texts import heading, text
from dashboard.times import moment

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
MOST_SENTENCES = 100
"""Rows of a table that is drawn in full."""
_HASHES = ("plan", "head", "catalogue (SHA-256)")
_LONG = re.compile(r"\b[0-9a-f]{32,}\b")
MOST_RECORDS = 12
"""Rows that are drawn as cards; more are a table."""
PAGE_ROWS = 500
"""Rows drawn of a table; the download has all of them."""


def table(
    frame: pd.DataFrame,
    key: str,
    *,
    empty_says: str = "",
    next_step: str = "",
    **options: Any,
) -> Any:
    """A table with its download; where there is nothing, why and what to do next.

    Args:
        key: unique on the page; also the name of the downloaded file.
        options: of `st.dataframe`.

    Returns:
        What `st.dataframe` returns (a selection if asked for one); None if there are no rows.
    """
    if frame.empty:
        empty(empty_says or text("showing.empty"), next_step)
        return None
    shown = st.dataframe(
        _said(frame).head(PAGE_ROWS),
        hide_index=True,
        placeholder="–",
        key=f"table-{key}",
        column_config=_headings(frame),
        **options,
    )
    if len(frame) > PAGE_ROWS:
        st.caption(text("showing.rows", shown=PAGE_ROWS, total=len(frame)))
    download(frame, key)
    return shown


def sentences(frame: pd.DataFrame, key: str, *, empty_says: str = "", next_step: str = "") -> None:
    """A short table whose cells are read in full, with its download; as `table` where it is empty.

    Others' words in it are shown as they are.
    """
    if len(frame) > MOST_SENTENCES or frame.empty:
        table(frame, key, empty_says=empty_says, next_step=next_step)
        return
    shown = _said(frame).map(lambda cell: _lines(cell) if isinstance(cell, str) else cell)
    st.table(shown.rename(columns={c: heading(str(c)) for c in frame.columns}), hide_index=True)
    download(frame, key)


def records(frame: pd.DataFrame, key: str, *, empty_says: str = "", next_step: str = "") -> None:
    """A few rows, each as a card whose figures wrap: on a phone too, nothing is out of sight.

    The first column is the card's title. Otherwise as `sentences`.
    """
    if len(frame) > MOST_RECORDS or frame.empty:
        table(frame, key, empty_says=empty_says, next_step=next_step)
        return
    for row in _said(frame).to_dict("records"):
        (_, title), *figures = row.items()
        with st.container(border=True, horizontal=True, gap="medium"):
            st.markdown(f"**{_lines(str(title))}**", width="content")
            for name, value in figures:
                if value != "" and not pd.isna(value):
                    with st.container(width="content", gap=None):
                        st.caption(plain(heading(str(name))))
                        st.text(_figure(str(name), value))
    download(frame, key)


def _figure(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if "epsilon" in name else f"{value:,.6g}"
    return str(shortened(str(value)))


def _lines(words: str) -> str:
    """Others' words as they are, line by line."""
    return plain(shortened(words)).replace("\n", "  \n")


def _said(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns in which some row says something, as people read them; downloads have all."""
    said = frame.loc[:, ~(frame.isna() | (frame == "")).all()].copy()
    for name in said.columns:
        if isinstance(said[name].dtype, pd.DatetimeTZDtype):
            said[name] = said[name].map(moment)
        elif name in _HASHES:
            said[name] = said[name].map(shortened)
    return said


def shortened(cell: Any) -> Any:
    """Keys and hashes by their beginning, since nobody reads the rest; downloads have it."""
    return _LONG.sub(lambda found: f"{found[0][:12]}…", cell) if isinstance(cell, str) else cell


def _headings(frame: pd.DataFrame) -> dict[str, Any]:
    """Each column's heading in the reader's language, the first in sight while others scroll.

    Downloads keep the English names.
    """
    found = {}
    for number, name in enumerate(frame.columns):
        label, pinned = heading(str(name)), True if number == 0 else None
        if "epsilon" in str(name) and pd.api.types.is_float_dtype(frame[name]):
            found[str(name)] = st.column_config.NumberColumn(label, format="%.3f", pinned=pinned)
        else:
            found[str(name)] = st.column_config.Column(label, pinned=pinned)
    return found


def download(frame: pd.DataFrame, key: str) -> None:
    """A button that saves the table as CSV (UTF-8 with a mark, as spreadsheets expect)."""
    st.download_button(
        text("showing.download"),
        as_csv(frame),
        f"{key}.csv",
        "text/csv",
        key=f"download-{key}",
        icon=":material/download:",
        on_click="ignore",
        type="tertiary",
    )


def as_csv(frame: pd.DataFrame) -> bytes:
    """The table as CSV in which no cell of text is a spreadsheet's formula."""
    harmless = frame.apply(lambda column: column.map(_harmless))
    return harmless.to_csv(index=False).encode("utf-8-sig")


def section(title: str) -> None:
    """A heading of the second level: the page's own is the first."""
    st.header(title, anchor=False)


def chart(
    drawn: alt.Chart | alt.LayerChart, frame: pd.DataFrame, key: str, title: str, **options: Any
) -> Any:
    """A chart under its title, with the table of its figures behind it; returns as `table`."""
    st.markdown(f"**{title}**")
    described = inked(drawn).properties(description=text("showing.described", title=title))
    st.altair_chart(described, width="stretch", key=f"chart-{key}")
    with st.expander(text("showing.behind", title=title), icon=":material/table:"):
        return table(frame, key, **options)


def counted(numbers: pd.Series) -> alt.Axis:
    """An axis of what is counted: marks at whole numbers only, at most nine of them."""
    first, last = int(numbers.min()), int(numbers.max())
    step = max(1, -(-(last - first) // 8))
    return alt.Axis(values=list(range(first, last + 1, step)), format="d", labelOverlap=True)


def inked(drawn: Any) -> Any:
    """A chart whose words stand out as WCAG AA asks; Streamlit's own are fainter in light."""
    ink = {"light": "#4a525a", "dark": "#d5dbe0"}.get(str(st.context.theme.type))
    if ink is None:
        return drawn
    words = {"labelColor": ink, "titleColor": ink}
    return drawn.configure_axis(**words).configure_legend(**words)


def legend(columns: int = 3, narrow: int = 1, *, lines: bool = False) -> alt.Legend:
    """A legend above the chart.

    Args:
        columns, narrow: entries in a row, and on a phone.
        lines: what is drawn are lines told apart by their dashes too.
    """
    fitting = alt.ExprRef(f"width < 480 ? {narrow} : {columns}")
    found = alt.Legend(orient="top", title=None, columns=fitting, labelLimit=420)
    if lines:
        found.symbolType, found.symbolSize, found.symbolStrokeWidth = "stroke", 500, 2
    return found


def amount(value: float | None, unit: str = "") -> str:
    """A figure with its unit; what is not limited or not known is said in words."""
    if value is None:
        return text("showing.unlimited")
    written = f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:,.3f}"
    return f"{written} {unit}".strip()


def epsilon(value: float | None, delta: float) -> str:
    """An epsilon with its delta and the adjacency that it is for."""
    if value is None:
        return text("showing.not_private")
    return text(
        "showing.epsilon", value=f"{value:.3f}", delta=f"{delta:g}", adjacency=text("showing.unit")
    )


def adjacency() -> None:
    """The line that says what every epsilon on this page is for."""
    st.caption(text("showing.adjacency", adjacency=text("showing.unit")))


def empty(sentence: str, next_step: str) -> None:
    """An empty state: what isn't there, and what to do next."""
    st.info(f"{sentence} {next_step}".strip(), icon=":material/inbox:")


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
