"""What is left of each data set's budget, how long it will last, and who used what."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.costs import COLOURS, bar, bar_rows, part_names
from dashboard.requests import people_of, status_text
from dashboard.session import Session, asked, plain
from dashboard.showing import adjacency, amount, chart, empty, legend, records, table
from dashboard.texts import heading, text

RATE_DAYS = 30
"""The past from which the forecast takes its rate, as the ledger's alerts do."""
_AHEAD_DAYS = 365


def draw(session: Session) -> None:
    """Draw the page."""
    st.title(text("pages.budgets"))
    budgets = asked(session.node, "budgets")
    names = datasets_by_population(asked(session.node, "describe")["datasets"])
    limited = [budget for budget in budgets if not budget["public"]]
    if not budgets:
        empty(text("budgets.none"), text("budgets.none_next"))
        return
    if limited:
        rows = pd.DataFrame([row for budget in limited for row in bar_rows(budget)])
        chart(bar(rows), rows, "budgets", text("budgets.all"))
        records(budget_rows(limited, names), "budgets-table")
        _one(session, limited, names)
    if public := [budget for budget in budgets if budget["public"]]:
        st.markdown(f"**{plain(text('budgets.limited_not'))}**")
        table(public_rows(public, names), "budgets-public")
    adjacency()


def datasets_by_population(datasets: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The data sets of each population, as text."""
    names: dict[str, list[str]] = {}
    for dataset in datasets:
        names.setdefault(dataset["population"], []).append(dataset["name"])
    return {population: ", ".join(found) for population, found in names.items()}


def budget_rows(budgets: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> pd.DataFrame:
    """One row for each population; every epsilon is the filter's, at the budget's delta."""
    shown = (
        ("epsilon cap", "epsilon"),
        ("epsilon spent", "spent"),
        ("epsilon spent or promised", "held"),
        ("epsilon left", "remaining"),
        ("epsilon spent, for a user of every partner", "everywhere"),
    )
    return pd.DataFrame(
        [
            {
                "data sets": names.get(budget["population"], ""),
                "population": budget["population"],
                **{heading: budget[key] for heading, key in shown},
                "delta": f"{budget['delta']:g}",
                "releases": budget["releases"],
            }
            for budget in budgets
        ]
    )


def public_rows(budgets: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> pd.DataFrame:
    """One row for each population that is declared public: its releases are only counted."""
    return pd.DataFrame(
        [
            {
                "data sets": names.get(budget["population"], ""),
                "population": budget["population"],
                "releases": budget["releases"],
            }
            for budget in budgets
        ]
    )


def burn_down(
    days: Sequence[Mapping[str, Any]], budget: Mapping[str, Any], today: date
) -> pd.DataFrame:
    """What was left at the end of each day, and what will be at the rate of the last 30 days.

    Args:
        days: rows of `ledger_spends` by day, of this population.

    Returns:
        Columns day, left (epsilon), what (measured or forecast, in the reader's language).
    """
    cap = float(budget["epsilon"])
    spent = [(date.fromisoformat(row["key"]), float(row["cumulative"])) for row in days]
    if not spent:
        return pd.DataFrame(columns=["day", "left", "what"])
    first = spent[0][0] - timedelta(days=1)
    now = float(spent[-1][1])
    measured = [(first, cap), *((day, cap - used) for day, used in spent), (today, cap - now)]
    forecast = [(today, cap - now)]
    if (rate := daily_rate(days, today)) > 0:
        days_left = min((cap - now) / rate, _AHEAD_DAYS)
        end = today + timedelta(days=max(1, round(days_left)))
        forecast.append((end, max(0.0, cap - now - rate * days_left)))
    parts = ((text("budgets.measured"), measured), (text("budgets.forecast"), forecast))
    return pd.DataFrame(
        [
            {"day": pd.Timestamp(d), "left": left, "what": w}
            for w, points in parts
            for d, left in points
        ]
    )


def daily_rate(days: Sequence[Mapping[str, Any]], today: date) -> float:
    """Epsilon a day over the last 30 days: by how much the filter's total rose in them."""
    start = (today - timedelta(days=RATE_DAYS)).isoformat()
    before = [float(row["cumulative"]) for row in days if row["key"] <= start]
    now = float(days[-1]["cumulative"]) if days else 0.0
    return (now - (before[-1] if before else 0.0)) / RATE_DAYS


def spend_rows(
    rows: Sequence[Mapping[str, Any]], by: str, people: Mapping[str, str]
) -> pd.DataFrame:
    """One population's spends by month, scientist or plan, as a table."""
    found = []
    for row in rows:
        facts = row["facts"] or {}
        said = {
            "month": {"month": row["key"]},
            "scientist": {"scientist": people.get(row["key"], row["key"][:16])},
            "plan": {
                "plan": f"{facts.get('name', '')} {row['key'][:8]}",
                "scientist": people.get(facts.get("scientist", ""), ""),
                "status": status_text(facts["status"]) if facts.get("status") else "",
            },
        }[by]
        figures = {
            "epsilon": row["epsilon"],
            "delta": f"{row['delta']:g}",
            "releases": row["releases"],
        }
        if by == "month":
            figures["epsilon up to then"] = row["cumulative"]
        else:
            figures["epsilon with what is promised"] = row["held"]
            figures["epsilon for a user of every partner"] = row["everywhere"]
        found.append({**said, **figures})
    return pd.DataFrame(found)


def gauge(budget: Mapping[str, Any]) -> alt.LayerChart:
    """A ring of what is spent, promised and left of one budget, with the part left inside."""
    rows = pd.DataFrame(bar_rows(budget))
    numbered = rows.assign(order=range(len(rows)))
    shown = [part for part in part_names() if (rows["part"] == part).any()]
    colours = [dict(zip(part_names(), COLOURS, strict=True))[part] for part in shown]
    ring = (
        alt.Chart(numbered)
        .mark_arc(innerRadius=58, outerRadius=82)
        .encode(
            theta=alt.Theta("epsilon:Q", stack=True),
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=shown, range=colours),
                legend=alt.Legend(title=None, orient="bottom"),
            ),
            order="order:Q",
            tooltip=[
                alt.Tooltip("part:N", title=heading("part")),
                alt.Tooltip("epsilon:Q", format=".3f", title=heading("epsilon")),
            ],
        )
    )
    left = max(0.0, float(budget["remaining"])) / float(budget["epsilon"])
    words = alt.Chart(pd.DataFrame({"words": [f"{left:.0%}"]})).mark_text(
        fontSize=26, color="#5b8c85"
    )
    return alt.layer(ring, words.encode(text="words:N")).properties(height=270)


def _one(session: Session, limited: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
    population = st.selectbox(
        text("budgets.which"),
        options=[budget["population"] for budget in limited],
        format_func=lambda p: f"{names.get(p, '')} · {p}",
    )
    budget = next(b for b in limited if b["population"] == population)
    spends = {by: _spends(session, by, population) for by in ("day", "month", "scientist", "plan")}
    left, right = st.columns([1, 2])
    with left:
        rows = pd.DataFrame(bar_rows(budget))
        title = text("budgets.gauge", cap=f"{budget['epsilon']:g}", delta=f"{budget['delta']:g}")
        chart(gauge(budget), rows, f"gauge-{population}", plain(title))
        st.caption(text("budgets.everywhere", value=_figure(budget["everywhere"])))
    with right:
        _burn_down(spends["day"], budget)
    people = people_of(asked(session.node, "members"))
    tabs = st.tabs([text(f"budgets.by_{by}") for by in ("scientist", "plan", "month")])
    for tab, by in zip(tabs, ("scientist", "plan", "month"), strict=True):
        with tab:
            _spend(spend_rows(spends[by], by, people), by, population)


def _spends(session: Session, by: str, population: str) -> list[dict[str, Any]]:
    rows = asked(session.node, "ledger_spends", by=by)["rows"]
    return [row for row in rows if row["population"] == population]


def _burn_down(days: Sequence[Mapping[str, Any]], budget: Mapping[str, Any]) -> None:
    today = datetime.now(UTC).date()
    frame = burn_down(days, budget, today)
    if frame.empty:
        empty(text("budgets.unspent"), text("budgets.unspent_next"))
        return
    chart(_lines(frame), frame, f"burn-{budget['population']}", text("budgets.burn_down"))
    st.caption(_forecast(daily_rate(days, today), float(budget["remaining"])))


def _lines(frame: pd.DataFrame) -> alt.LayerChart:
    """Steps for what was measured, a straight broken line for the forecast."""
    marks = {
        text("budgets.measured"): alt.Chart(frame).mark_line(interpolate="step-after", point=True),
        text("budgets.forecast"): alt.Chart(frame).mark_line(strokeDash=[6, 4]),
    }
    layers = [
        mark.transform_filter(alt.datum.what == what).encode(
            x=alt.X("day:T", title=None, axis=_dates(frame)),
            y=alt.Y("left:Q", title=heading("epsilon left"), scale=alt.Scale(domainMin=0)),
            color=alt.Color(
                "what:N",
                scale=alt.Scale(domain=list(marks), range=["#3f7fbf", "#d9a441"]),
                legend=legend(2, 2),
            ),
            tooltip=[
                alt.Tooltip("day:T", title=heading("day")),
                alt.Tooltip("what:N", title=heading("what")),
                alt.Tooltip("left:Q", format=".3f", title=heading("epsilon left")),
            ],
        )
        for what, mark in marks.items()
    ]
    return alt.layer(*layers).properties(height=270)


def _dates(frame: pd.DataFrame) -> alt.Axis:
    """Whole days only, at most eight of them."""
    first, last = frame["day"].min(), frame["day"].max()
    step = max(1, -(-(last - first).days // 7))
    days = pd.date_range(first, last, freq=f"{step}D")
    return alt.Axis(
        values=[alt.DateTime(year=d.year, month=d.month, date=d.day) for d in days],
        format="%Y-%m-%d" if first.year != last.year else "%m-%d",
        labelOverlap=True,
    )


def _forecast(rate: float, left: float) -> str:
    if rate <= 0:
        return text("budgets.no_rate", days=RATE_DAYS)
    lasts = int(max(0.0, left) / rate)
    return text("budgets.rate", days=RATE_DAYS, rate=f"{rate:.4f}", lasts=amount(lasts))


def _spend(frame: pd.DataFrame, by: str, population: str) -> None:
    if frame.empty:
        empty(text("budgets.unspent"), text("budgets.unspent_next"))
        return
    total = "epsilon up to then" if by == "month" else "epsilon with what is promised"
    base = alt.Chart(frame).encode(
        y=alt.Y(f"{by}:N", title=None, sort=None, axis=alt.Axis(labelLimit=260)),
        tooltip=[
            alt.Tooltip(f"{by}:N", title=heading(by)),
            alt.Tooltip("epsilon:Q", format=".3f", title=heading("epsilon")),
            alt.Tooltip(f"{total}:Q", format=".3f", title=heading(total)),
            alt.Tooltip("releases:Q", title=heading("releases")),
        ],
    )
    light = base.mark_bar(color="#d9a441", opacity=0.6, cornerRadius=2)
    dark = base.mark_bar(color="#b4452f", cornerRadius=2, height={"band": 0.5})
    drawn = alt.layer(
        light.encode(x=alt.X(f"{total}:Q", title=heading("epsilon"), axis=alt.Axis(tickCount=8))),
        dark.encode(x="epsilon:Q"),
    )
    chart(drawn, frame, f"by-{by}-{population}", text(f"budgets.chart_{by}"))
    st.caption(text(f"budgets.dark_{by}"))


def _figure(value: float | None) -> str:
    return text("showing.unlimited") if value is None else f"{value:.3f}"
