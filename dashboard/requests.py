"""What waits for the owner, longest first, and what she decided before."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.costs import epsilon_alone
from dashboard.session import Session, asked, finish, link, plain, telling
from dashboard.showing import adjacency, amount, empty, section, table
from dashboard.texts import text
from dashboard.times import instant
from network.client import NodeRefused
from policies.legible import visible

OPEN = ("pending", "awaiting signature")
_LINKS, _PRICED, _NAME = 20, 50, 70


def draw(session: Session) -> None:
    """Draw the page."""
    st.title(text("pages.requests"))
    plans = asked(session.node, "plans")
    people = people_of(asked(session.node, "members"))
    waiting = queue(plans, people, datetime.now(UTC))
    left, right, _ = st.columns([1, 1, 2])
    left.metric(text("requests.waiting"), len(waiting))
    right.metric(text("requests.decided_count"), len(plans) - len(waiting))
    if waiting.empty:
        empty(text("requests.none"), text("requests.none_next"))
    else:
        _links(waiting)
        _deny_many(session, waiting)
    st.header(text("requests.decided"))
    table(
        decided(plans, people),
        "decided",
        empty_says=text("requests.none_decided"),
        next_step=text("requests.none_decided_next"),
    )
    _open_decided(plans)
    adjacency()


def status_text(status: str) -> str:
    """A plan's status in the reader's language."""
    return text(f"status.{status.replace(' ', '_')}")


def people_of(members: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Email by account key."""
    return {each["key"]: each["email"] for each in members}


def queue(
    plans: Sequence[Mapping[str, Any]], people: Mapping[str, str], now: datetime
) -> pd.DataFrame:
    """Plans that wait for a decision, the longest first.

    Returns:
        Columns plan (hash), name, who, waits (text), epsilon (what the plan costs by itself, at
        its delta; None: public, or beyond the first 50), delta, releases, data set, status,
        submitted.
    """
    waiting = sorted((p for p in plans if p["status"] in OPEN), key=lambda p: str(p["submitted"]))
    return pd.DataFrame(
        [
            {
                "plan": plan["plan_hash"],
                "name": plan["name"],
                "who": people.get(plan["scientist"], plan["scientist"][:16]),
                "waits": waited(plan["submitted"], now),
                "epsilon": _epsilon(plan) if number < _PRICED else None,
                "delta": f"{plan['summary']['delta']:g}",
                "releases": sum(event["count"] for event in plan["events"]),
                "data set": plan["summary"]["dataset"],
                "status": status_text(plan["status"]),
                "submitted": instant(plan["submitted"]),
            }
            for number, plan in enumerate(waiting)
        ]
    )


def decided(plans: Sequence[Mapping[str, Any]], people: Mapping[str, str]) -> pd.DataFrame:
    """Plans that were decided, newest first."""
    found = sorted((p for p in plans if p["status"] not in OPEN), key=_when, reverse=True)
    return pd.DataFrame(
        [
            {
                "plan": plan["plan_hash"],
                "name": plan["name"],
                "who": people.get(plan["scientist"], plan["scientist"][:16]),
                "status": status_text(plan["status"]),
                "decided": instant(_when(plan)),
                "by": plan["decided_by"],
                "reason": plan["reason"],
            }
            for plan in found
        ]
    )


def waited(since: str, now: datetime) -> str:
    """How long ago a moment (ISO 8601, UTC) is, in its largest unit."""
    seconds = int((now - datetime.fromisoformat(since)).total_seconds())
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return text(f"requests.{unit}", count=seconds // size)
    return text("requests.moments")


def _when(plan: Mapping[str, Any]) -> str:
    return str(plan["decided"] or plan["submitted"])


def _epsilon(plan: Mapping[str, Any]) -> float | None:
    if plan["summary"]["public"]:
        return None
    return epsilon_alone(plan["events"], plan["summary"]["delta"])


def _links(waiting: pd.DataFrame) -> None:
    for row in waiting.head(_LINKS).to_dict("records"):
        with st.container(border=True):
            name = f"{row['plan'][:8]} · {visible(row['name'])}"
            link("request", plain(shorten(name, _NAME)), plan=row["plan"])
            who, waits, cost = st.columns([3, 2, 3])
            who.text(row["who"])
            waits.text(row["waits"])
            cost.text(
                text("showing.not_private_short")
                if pd.isna(row["epsilon"])
                else text("requests.cost", epsilon=f"{row['epsilon']:.3f}", delta=row["delta"])
            )
    if len(waiting) > _LINKS:
        st.caption(text("requests.more", shown=_LINKS, count=len(waiting)))


def shorten(words: str, most: int) -> str:
    """The words, or their beginning if they are many."""
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _deny_many(session: Session, waiting: pd.DataFrame) -> None:
    section(text("requests.many"))
    st.write(text("requests.many_how"))
    chosen = table(waiting, "waiting", on_select="rerun", selection_mode="multi-row")
    picked = waiting.iloc[list(chosen.selection.rows)] if chosen is not None else waiting.head(0)
    if picked.empty:
        return
    with st.form("deny-many"):
        st.write(plain(text("requests.many_confirm", count=len(picked), names=_names(picked))))
        reason = st.text_area(text("request.why_not"), max_chars=2000)
        submitted = st.form_submit_button(text("requests.many_button", count=len(picked)))
    if submitted:
        with telling():
            if not reason.strip():
                st.error(text("request.reason_missing"))
                return
            finish(deny_all(session, list(picked["plan"]), reason.strip()))


def _names(picked: pd.DataFrame) -> str:
    return ", ".join(
        f"{row['name']} {row['plan'][:8]} (epsilon {amount(row['epsilon'])})"
        if pd.notna(row["epsilon"])
        else f"{row['name']} {row['plan'][:8]}"
        for row in picked.to_dict("records")
    )


def deny_all(session: Session, hashes: Sequence[str], reason: str) -> str:
    """Deny one after the other; what another decided meanwhile is told, not overruled."""
    refused = []
    for plan_hash in hashes:
        try:
            session.owner.deny(plan_hash, reason)
        except NodeRefused as error:
            refused.append(f"{plan_hash[:8]}: {error}")
    said = text("requests.many_done", count=len(hashes) - len(refused))
    return " ".join([said, *refused])


def _open_decided(plans: Sequence[Mapping[str, Any]]) -> None:
    found = {p["plan_hash"]: p for p in plans if p["status"] not in OPEN}
    if not found:
        return
    chosen = st.selectbox(
        text("requests.look_at"),
        options=list(found),
        format_func=lambda h: (
            f"{h[:8]} · {visible(found[h]['name'])} · {status_text(found[h]['status'])}"
        ),
        index=None,
        placeholder=text("requests.choose"),
    )
    if chosen is not None:
        link("request", text("requests.open"), plan=chosen)
