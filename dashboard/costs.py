"""What plans cost of a budget: rows and bars of what is spent, promised, asked for and left."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import altair as alt
import pandas as pd

from dashboard.showing import legend
from dashboard.texts import heading, text
from policies.accounting import Event, plan_epsilon

PARTS = ("spent", "promised", "asked", "left")
"""What a budget is divided into; `part_names` says them in the reader's language."""
COLOURS = ("#b4452f", "#d9a441", "#3f7fbf", "#5b8c85")
"""Told apart on light and dark, and by people who don't see red and green."""


def part_names() -> tuple[str, ...]:
    """The parts as they are shown."""
    return tuple(text(f"costs.{part}") for part in PARTS)


def parts_of(budget: Mapping[str, Any], asked: float = 0.0, after: float | None = None) -> list:
    """(part, epsilon) of one budget, which add up to its cap unless it is passed.

    Args:
        budget: as the node answers `budgets`; every epsilon is the filter's, at its delta.
        asked: by how much a plan's approval would raise what is held.
        after: what is held then; default: what is held now.
    """
    spent, held = float(budget["spent"]), float(budget["held"])
    left = float(budget["epsilon"]) - (held if after is None else after)
    sizes = (spent, max(held - spent, 0.0), asked, max(left, 0.0))
    return list(zip(part_names(), sizes, strict=True))


def bar(rows: pd.DataFrame, height: int = 28) -> alt.Chart:
    """Stacked bars, one for each `budget` in the frame's rows (`budget`, `part`, `epsilon`)."""
    order = {part: number for number, part in enumerate(part_names())}
    shown = [part for part in order if (rows["part"] == part).any()]
    numbered = rows.assign(order=rows["part"].map(order))
    return (
        alt.Chart(numbered)
        .mark_bar(height=height, cornerRadius=2)
        .encode(
            x=alt.X("epsilon:Q", stack="zero", title=heading("epsilon")),
            y=alt.Y("budget:N", title=None, axis=alt.Axis(labelLimit=220)),
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=shown, range=[COLOURS[order[part]] for part in shown]),
                legend=legend(4, 2),
            ),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("budget:N", title=heading("budget")),
                alt.Tooltip("part:N", title=heading("part")),
                alt.Tooltip("epsilon:Q", format=".3f", title=heading("epsilon")),
            ],
        )
        .properties(height=alt.Step(height + 22))
    )


def bar_rows(budget: Mapping[str, Any], asked: float = 0.0, after: float | None = None) -> list:
    """The rows of `bar` for one budget."""
    return [
        {"budget": budget["population"], "part": part, "epsilon": size}
        for part, size in parts_of(budget, asked, after)
        if size or part != text("costs.asked")
    ]


def epsilon_alone(events: Iterable[Mapping[str, Any]], delta: float) -> float:
    """What a plan's recorded events cost by themselves: the tight figure of one plan at `delta`."""
    return _priced(tuple(Event(**dict(event)) for event in events), delta)


@lru_cache(maxsize=4096)
def _priced(events: tuple[Event, ...], delta: float) -> float:
    return plan_epsilon(events, delta)
