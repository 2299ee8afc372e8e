"""Who holds whose ledger, and how far: a matrix of domains and peers."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from dashboard.showing import legend
from dashboard.spending import Answers
from dashboard.texts import text
from dashboard.times import instant, moment

_OK, _BAD, _UNKNOWN = "#2f7556", "#b4452f", "#59636b"


def matrix(answers: Answers) -> pd.DataFrame:
    """One row for each pair: how far the peer holds the domain's ledger, by the peer's own word."""
    rows, heads = [], held(answers)
    for domain, each in sorted(answers.items()):
        entries = each["counts"]["entries"]
        for peer in sorted(answers):
            if peer == domain:
                continue
            head = heads[peer].get(each["node_key"])
            size = head["size"] if head else 0
            rows.append(
                {
                    text("ledgers.ledger_of"): domain,
                    text("ledgers.peer"): peer,
                    text("ledgers.upto"): size,
                    text("ledgers.after"): entries - size,
                    text("ledgers.when"): instant(head["time"]) if head else None,
                    text("ledgers.state"): text(f"ledgers.{_state(size, entries)}"),
                }
            )
    return pd.DataFrame(rows)


def held(answers: Answers) -> dict[str, dict[str, Mapping[str, Any]]]:
    """By domain, the newest heads that it holds: size and time, by node key."""
    return {
        domain: {
            str(h["node_key"]): {"size": int(h["size"]), "time": str(h["time"])}
            for h in each["cosigned"]["held"]
        }
        for domain, each in answers.items()
    }


def _state(size: int, entries: int) -> str:
    if size > entries:
        return "ahead"
    return "signed" if size else "never"


def cells(frame: pd.DataFrame) -> alt.LayerChart:
    """The matrix as coloured cells with how many of its entries the peer holds."""
    whose, peer, upto, after, state = (
        text(f"ledgers.{k}") for k in ("ledger_of", "peer", "upto", "after", "state")
    )
    signed = text("ledgers.when")
    scale = alt.Scale(
        domain=[text(f"ledgers.{k}") for k in ("signed", "never", "ahead")],
        range=[_OK, _UNKNOWN, _BAD],
    )
    sizes = zip(frame[upto], frame[after], strict=True)
    cell = [f"{held} / {held + more}" for held, more in sizes]
    drawn = frame.assign(cell=cell, **{signed: frame[signed].map(moment)})
    gap = alt.Scale(paddingInner=0.08)
    base = alt.Chart(drawn).encode(
        x=alt.X(f"{peer}:N", title=peer, axis=alt.Axis(orient="top", labelAngle=0), scale=gap),
        y=alt.Y(f"{whose}:N", title=whose, scale=gap),
        tooltip=list(frame.columns),
    )
    squares = base.mark_rect(cornerRadius=4).encode(
        color=alt.Color(f"{state}:N", scale=scale, legend=legend())
    )
    words = base.mark_text(color="white").encode(text="cell:N")
    return (squares + words).properties(height=alt.Step(40))
