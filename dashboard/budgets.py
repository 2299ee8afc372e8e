"""What is left of each budget."""

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from coterie.owner import Owner
from dashboard.session import Session, asked
from policies.accounting import ADJACENCY

_PARTS = ("spent", "promised", "remaining")
_COLOURS = ("#b4452f", "#e3b04b", "#5b8c85")


def draw(session: Session) -> None:
    """Draw the page."""
    _budgets(session.owner)


def _budgets(owner: Owner) -> None:
    st.header("Budgets")
    budgets = asked(owner.node, "budgets")
    if not budgets:
        st.info("No data set is declared, so there is no budget.")
        return
    st.caption(f"Every epsilon: {ADJACENCY}.")
    limited = [budget for budget in budgets if not budget["public"]]
    if limited:
        st.altair_chart(_chart(limited), width="stretch")
    names = _datasets_by_population(owner)
    rows = [_budget_row(budget, names.get(budget["population"], "")) for budget in budgets]
    st.dataframe(pd.DataFrame(rows), hide_index=True)


def _datasets_by_population(owner: Owner) -> dict[str, str]:
    names: dict[str, list[str]] = {}
    for dataset in asked(owner.node, "describe")["datasets"]:
        names.setdefault(dataset["population"], []).append(dataset["name"])
    return {population: ", ".join(found) for population, found in names.items()}


def _budget_row(budget: dict[str, Any], datasets: str) -> dict[str, Any]:
    limited = not budget["public"]
    return {
        "data sets": datasets,
        "population": budget["population"],
        "epsilon cap": budget["epsilon"] if limited else None,
        "epsilon spent": budget["spent"] if limited else None,
        "epsilon held": budget["held"] if limited else None,
        "epsilon remaining": budget["remaining"] if limited else None,
        "delta": f"{budget['delta']:g}",
        "releases": budget["releases"],
        "unit of every epsilon": ADJACENCY if limited else "declared public: NOT PRIVATE",
    }


def _chart(budgets: list[dict[str, Any]]) -> alt.Chart:
    rows = [row for budget in budgets for row in _bar_parts(budget)]
    return (
        alt.Chart(pd.DataFrame(rows), title=f"Epsilon ({ADJACENCY})")
        .mark_bar()
        .encode(
            x=alt.X("epsilon:Q", stack="zero", title="epsilon"),
            y=alt.Y("population:N", title=None),
            color=alt.Color("part:N", scale=alt.Scale(domain=_PARTS, range=_COLOURS), title=None),
            order=alt.Order("order:Q"),
            tooltip=["population:N", "part:N", alt.Tooltip("epsilon:Q", format=".3f")],
        )
    )


def _bar_parts(budget: dict[str, Any]) -> list[dict[str, Any]]:
    spent, held, remaining = (budget[k] or 0.0 for k in ("spent", "held", "remaining"))
    sizes = (spent, max(held - spent, 0.0), max(remaining, 0.0))
    return [
        {"population": budget["population"], "part": part, "epsilon": size, "order": order}
        for order, (part, size) in enumerate(zip(_PARTS, sizes, strict=True))
    ]
