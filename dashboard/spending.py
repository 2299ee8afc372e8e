"""What the ledgers say was spent and decided, by budget, month and day: tables and pictures."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from dashboard.showing import legend
from dashboard.texts import text

SHOWN = ("approval", "consent", "denial", "refusal", "closure", "release", "owner", "rules")
"""Kinds of entries on the timeline."""

_HEIGHT = 380
Answers = Mapping[str, Mapping[str, Any]]
"""By domain: counts, budgets, cosigned, months, days and node_key, as `ledgers` asks for them."""


def spent(answers: Answers) -> pd.DataFrame:
    """One row for each population of each domain: cap, spent, held, left, and at every partner."""
    rows = [
        {
            text("ledgers.domain"): domain,
            text("ledgers.population"): budget["population"],
            text("ledgers.cap"): budget["epsilon"],
            text("ledgers.spent"): budget["spent"],
            text("ledgers.held"): budget["held"],
            text("ledgers.left"): budget["remaining"],
            text("ledgers.everywhere"): budget["everywhere"],
            text("ledgers.delta"): f"{budget['delta']:g}",
            text("ledgers.releases"): budget["releases"],
        }
        for domain, each in sorted(answers.items())
        for budget in each["budgets"]
        if not budget["public"]
    ]
    return pd.DataFrame(rows)


def gauges(frame: pd.DataFrame) -> alt.LayerChart:
    """Spent and held of each budget, against its cap."""
    whose, cap, used, held = (text(f"ledgers.{k}") for k in ("whose", "cap", "spent", "held"))
    drawn = frame.assign(
        **{whose: frame[text("ledgers.domain")] + " · " + frame[text("ledgers.population")]}
    )
    base = alt.Chart(drawn).encode(
        y=alt.Y(f"{whose}:N", title=None, axis=alt.Axis(labelLimit=280)),
        tooltip=[whose, cap, used, held, text("ledgers.left"), text("ledgers.delta")],
    )
    grey = base.mark_bar(color="#9aa5ad", opacity=0.35).encode(
        x=alt.X(f"{cap}:Q", title=text("ledgers.spent_axis"))
    )
    light = base.mark_bar(color="#d9a441", height={"band": 0.6}).encode(x=f"{held}:Q")
    dark = base.mark_bar(color="#b4452f", height={"band": 0.3}).encode(x=f"{used}:Q")
    return (grey + light + dark).properties(height=90 + 28 * len(drawn))


def monthly(answers: Answers) -> pd.DataFrame:
    """One row for each month, domain and population: epsilon of the month and up to its end."""
    rows = [
        {
            text("ledgers.month"): spend["key"],
            text("ledgers.domain"): domain,
            text("ledgers.whose"): f"{domain} · {spend['population']}",
            text("ledgers.cumulative"): spend["cumulative"],
            text("ledgers.of_month"): spend["epsilon"],
            text("ledgers.releases"): spend["releases"],
            text("ledgers.delta"): f"{spend['delta']:g}",
        }
        for domain, each in sorted(answers.items())
        for spend in each["months"]
        if spend["epsilon"] is not None
    ]
    return pd.DataFrame(rows)


def growth(months: pd.DataFrame) -> alt.Chart:
    """Epsilon spent up to the end of each month: bars side by side, since lines hide each other."""
    month, whose, total = (text(f"ledgers.{k}") for k in ("month", "whose", "cumulative"))
    return (
        alt.Chart(months)
        .mark_bar()
        .encode(
            x=alt.X(f"{month}:O", title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            xOffset=alt.XOffset(f"{whose}:N"),
            y=alt.Y(f"{total}:Q", title=total),
            color=alt.Color(f"{whose}:N", legend=legend(1)),
            tooltip=list(months.columns),
        )
        .properties(height=_HEIGHT)
    )


def daily(answers: Answers) -> pd.DataFrame:
    """One row for each day, domain and kind of entry: how many."""
    rows = [
        {
            text("ledgers.day"): day,
            text("ledgers.domain"): domain,
            text("ledgers.kind"): text(f"kinds.{kind}"),
            text("ledgers.count"): count,
        }
        for domain, each in sorted(answers.items())
        for day, kind, count in each["days"]
        if kind in SHOWN
    ]
    return pd.DataFrame(rows)


def dots(days: pd.DataFrame) -> alt.Chart:
    """Decisions and releases by day; the larger the dot, the more of them."""
    day, domain, kind, count = (text(f"ledgers.{k}") for k in ("day", "domain", "kind", "count"))
    return (
        alt.Chart(days)
        .mark_circle(opacity=0.8)
        .encode(
            x=alt.X(f"{day}:O", title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            y=alt.Y(f"{kind}:N", title=None),
            yOffset=alt.YOffset(f"{domain}:N"),
            size=alt.Size(f"{count}:Q", legend=None, scale=alt.Scale(range=[40, 260])),
            color=alt.Color(f"{domain}:N", legend=legend(narrow=3)),
            tooltip=[day, domain, kind, count],
        )
        .properties(height=_HEIGHT)
    )
