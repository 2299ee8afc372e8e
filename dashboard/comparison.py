"""Runs side by side: what each learned by release and for how much epsilon."""

from collections.abc import Sequence

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.journal import Record, metrics, read_records
from dashboard.plans import my_plans
from dashboard.session import Session, plain
from dashboard.showing import adjacency, amount, chart, counted, empty, legend, table
from dashboard.texts import heading, text

_FIRST = 4
"""Runs that are compared before anybody chose."""


def draw(session: Session) -> None:
    """Draw the page."""
    st.title(text("pages.comparison"))
    st.write(text("comparison.about"))
    plans, absent = my_plans(session)
    for name, why in absent.items():
        st.warning(plain(text("datasets.absent", domain=name, why=why)))
    found = read_records(session.runs, plans)
    records = [record for record in found if record.history]
    if not records:
        empty(
            text("comparison.none"),
            text("run.no_record_next" if session.runs is None else "comparison.none_next"),
        )
        return
    labels = [record.label for record in records]
    chosen = st.multiselect(
        text("comparison.choose"),
        labels,
        labels[:_FIRST],
        key="compared",
        placeholder=text("comparison.nothing"),
    )
    picked = [record for record in records if record.label in chosen]
    if not picked:
        empty(text("comparison.nothing"), text("comparison.nothing_next"))
        return
    table(outcomes(picked), "comparison")
    adjacency()
    _charts(metrics(picked))


def outcomes(records: Sequence[Record]) -> pd.DataFrame:
    """One row for each run: how far it came, what it cost and its last metrics."""
    rows = []
    for record in records:
        last = record.history[-1]
        newest: dict[str, float] = {}
        for each in record.history:
            newest.update({name: round(float(v), 4) for name, v in each.metrics.items()})
        moved = sum(sum(e.sent.values()) + sum(e.received.values()) for e in record.history)
        rows.append(
            {
                text("run.run"): record.label,
                text("run.state"): text("run.finished" if record.finished else "run.running"),
                text("run.released"): f"{len(record.history)} / {last.total}",
                text("run.epsilon"): text("run.no_noise") if last.epsilon is None
                else f"{last.epsilon:.3f}",
                text("run.delta_column"): "" if last.epsilon is None else f"{record.delta:g}",
                heading("epsilon for a user of every partner"): amount(record.everywhere)
                if last.epsilon is not None else "",
                text("run.seconds"): round(sum(sum(e.seconds.values()) for e in record.history), 1),
                text("run.megabytes"): round(moved / 1e6, 2),
                **newest,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _charts(found: pd.DataFrame) -> None:
    if found.empty:
        empty(text("run.no_metrics"), text("run.no_metrics_next"))
        return
    metric = text("run.metric")
    name = st.selectbox(text("comparison.metric"), sorted(set(found[metric])), key="metric")
    shown = found[found[metric] == name]
    left, right = st.columns(2)
    with left:
        drawn = curves(shown, text("run.release"), name)
        chart(drawn, shown, "by-release", text("comparison.by_release", metric=name))
    private = shown.dropna(subset=[text("run.epsilon")])
    with right:
        if private.empty:
            st.info(text("showing.not_private"))
        else:
            drawn = curves(private, text("run.epsilon"), name)
            chart(drawn, private, "by-epsilon", text("comparison.by_epsilon", metric=name))


def curves(shown: pd.DataFrame, by: str, metric: str) -> alt.Chart:
    """A metric of each run by release or by epsilon spent."""
    value, run = text("run.value"), text("run.run")
    axis = counted(shown[by]) if by == text("run.release") else alt.Axis(tickCount=6)
    return (
        alt.Chart(shown)
        .mark_line(point=True)
        .encode(
            x=alt.X(f"{by}:Q", title=by, axis=axis),
            y=alt.Y(f"{value}:Q", title=metric, scale=alt.Scale(zero=False)),
            color=alt.Color(f"{run}:N", legend=legend(1)),
            tooltip=[run, by, value],
        )
    )
