"""A scientist's own plans, and where each stands with every owner."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.session import PATIENCE_S, Session, asked, everywhere, finish, plain, telling
from dashboard.showing import adjacency, chart, empty, legend, records, section
from dashboard.texts import text
from dashboard.times import instant
from dashboard.told import told_refusal

Plans = Mapping[str, Sequence[Mapping[str, Any]]]
"""By domain, what its node says of each of her plans."""

_COLOURS = {
    "pending": "#8a6212",
    "awaiting signature": "#8f5a1a",
    "approved": "#2f7556",
    "closed": "#42688f",
    "denied": "#b4452f",
    "refused": "#8c3b52",
    "not submitted": "#59636b",
    "no answer": "#6b757d",
}
"""White words on each have a contrast of 4.5 at least."""

_SIGNS = {
    "pending": "…",
    "awaiting signature": "✎",
    "approved": "✓",
    "closed": "■",
    "denied": "✗",
    "refused": "⊘",
    "not submitted": "–",
    "no answer": "?",
}
"""In place of the words where the chart is narrow."""
_OPEN = ("pending", "awaiting signature", "approved")
_SHOWN = 25
"""Plans in the picture; the table has all."""


def draw(session: Session) -> None:
    """Draw the page."""
    st.title(text("pages.plans"))
    st.write(text("plans.about"))
    plans, absent = my_plans(session)
    for name, why in absent.items():
        st.warning(plain(text("datasets.absent", domain=name, why=why)))
    frame = standing(plans, absent)
    if frame.empty:
        empty(text("plans.none"), text("plans.none_next"))
        return
    everyone = sorted({*plans, *absent})
    chart(picture(frame, everyone), frame, "standing", text("plans.chart"))
    mine = known(plans)
    chosen = st.selectbox(
        text("plans.choose"), list(mine), format_func=lambda h: label(mine[h]), key="plan"
    )
    with telling():
        _one(session, plans, str(chosen))


def my_plans(session: Session) -> tuple[Plans, dict[str, str]]:
    """What every domain says of her plans, and why the others don't."""
    return everywhere(session, lambda node: asked(node, "plans"), _pictured)


def _pictured(plans: Plans) -> None:
    """Everything that pages make of plans."""
    standing(plans, ())
    for plan_hash, plan in known(plans).items():
        decisions(plans, plan_hash)
        plan["summary"].get("delta")


def claims(plans: Plans, plan_hash: str) -> set[str]:
    """The domains that say that a plan is hers."""
    return {d for d, found in plans.items() if any(p["plan_hash"] == plan_hash for p in found)}


def known(plans: Plans) -> dict[str, Mapping[str, Any]]:
    """By hash, newest first, what the first domain that has a plan says of it."""
    found: dict[str, Mapping[str, Any]] = {}
    for domain in sorted(plans):
        for each in plans[domain]:
            found.setdefault(str(each["plan_hash"]), each)
    newest = sorted(found, key=lambda h: (found[h]["submitted"], h), reverse=True)
    return {plan_hash: found[plan_hash] for plan_hash in newest}


def label(plan: Mapping[str, Any]) -> str:
    """A plan's name and the start of its hash."""
    return f"{plan['name']} {plan['plan_hash'][:12]}"


def standing(plans: Plans, absent: Iterable[str]) -> pd.DataFrame:
    """One row for each plan: its status at every domain, and what comes next."""
    said = {d: {p["plan_hash"]: str(p["status"]) for p in plans[d]} for d in sorted(plans)}
    rows = []
    for plan_hash, first in known(plans).items():
        at = {domain: found.get(plan_hash, "not submitted") for domain, found in said.items()}
        at |= dict.fromkeys(sorted(absent), "no answer")
        rows.append(
            {
                text("plans.plan"): plan_hash[:12],
                text("plans.name"): first["name"],
                text("plans.submitted"): instant(first["submitted"]),
                **{domain: in_words(each) for domain, each in at.items()},
                text("plans.next"): text(f"plans.{next_step(at.values())}"),
            }
        )
    return pd.DataFrame(rows)


def status(plans: Plans, domain: str, plan_hash: str) -> str:
    """What a domain's node says of a plan."""
    for each in plans[domain]:
        if each["plan_hash"] == plan_hash:
            return str(each["status"])
    return "not submitted"


def in_words(status: str) -> str:
    """A status in the reader's language."""
    return text(f"plans.{status.replace(' ', '_')}") if status in _COLOURS else status


def next_step(statuses: Iterable[str]) -> str:
    """Name of the sentence that says what to do about a plan that stands so."""
    found = set(statuses)
    if found & {"denied", "refused"}:
        return "next_changed"
    if "not submitted" in found or "no answer" in found:
        return "next_submit"
    if found & {"pending", "awaiting signature"}:
        return "next_wait"
    return "next_done" if found == {"closed"} else "next_run"


def picture(frame: pd.DataFrame, domains: Sequence[str]) -> alt.LayerChart:
    """Plans by domain: a coloured cell with the status in words."""
    plan, name, domain, state = (text(f"plans.{k}") for k in ("plan", "name", "domain", "status"))
    drawn = frame.head(_SHOWN)
    title = text("plans.title")
    long = drawn.assign(**{title: drawn[name].str.slice(0, 24) + " " + drawn[plan]}).melt(
        [title], [d for d in domains if d in drawn], domain, state
    )
    signs_of = {in_words(each): sign for each, sign in _SIGNS.items()}
    long["sign"] = long[state].map(signs_of)
    gap = alt.Scale(paddingInner=0.08)
    base = alt.Chart(long).encode(
        x=alt.X(f"{domain}:N", title=None, axis=alt.Axis(orient="top", labelAngle=0), scale=gap),
        y=alt.Y(f"{title}:N", title=None, sort=None, axis=alt.Axis(labelLimit=240), scale=gap),
        tooltip=[title, domain, state],
    )
    here = [each for each in _COLOURS if in_words(each) in set(long[state])]
    scale = alt.Scale(domain=[in_words(s) for s in here], range=[_COLOURS[s] for s in here])
    explained = legend(4)
    explained.labelExpr = f"{json.dumps(signs_of)}[datum.label] + '  ' + datum.label"
    cells = base.mark_rect(cornerRadius=4).encode(
        color=alt.Color(f"{state}:N", scale=scale, legend=explained)
    )
    words = base.mark_text(color="white", opacity=alt.ExprRef("width < 480 ? 0 : 1")).encode(
        text=f"{state}:N"
    )
    signs = base.mark_text(
        color="white", fontSize=15, opacity=alt.ExprRef("width < 480 ? 1 : 0")
    ).encode(text="sign:N")
    return (cells + words + signs).properties(height=alt.Step(30))


def decisions(plans: Plans, plan_hash: str) -> pd.DataFrame:
    """One row for each domain: status, when and by whom it was decided, and why."""
    rows = [
        {
            text("plans.domain"): domain,
            text("plans.status"): in_words(each["status"]),
            text("plans.decided"): instant(each["decided"]),
            text("plans.by"): each["decided_by"],
            text("plans.reason"): told_refusal(each["reason"])
            if each["status"] == "refused"
            else each["reason"],
        }
        for domain, listed in sorted(plans.items())
        for each in listed
        if each["plan_hash"] == plan_hash
    ]
    return pd.DataFrame(rows)


def _one(session: Session, plans: Plans, plan_hash: str) -> None:
    st.code(plan_hash, language=None, wrap_lines=True)
    said = decisions(plans, plan_hash)
    records(said, "decisions")
    _reasons(said)
    domain = next(d for d in sorted(plans) if status(plans, d, plan_hash) != "not submitted")
    if st.toggle(text("plans.explanation", domain=domain), key="explanation"):
        shown = asked(session.nodes[domain], "plan", plan_hash=plan_hash)
        st.code(shown["explanation"], language=None, wrap_lines=True)
    adjacency()
    section(text("plans.notebook"))
    st.code(snippet(plan_hash), language="python")
    if any(status(plans, d, plan_hash) in _OPEN for d in plans):
        _withdrawal(session, plans, plan_hash)


def _reasons(said: pd.DataFrame) -> None:
    """Why owners or rules said no, in full: cells of a table cut long words off."""
    no = [in_words(each) for each in ("denied", "refused")]
    for row in said[said[text("plans.status")].isin(no)].to_dict("records"):
        st.markdown(f"**{plain(row[text('plans.domain')])}: {row[text('plans.status')]}**")
        st.code(
            row[text("plans.reason")] or text("plans.no_reason"), language=None, wrap_lines=True
        )


def _withdrawal(session: Session, plans: Plans, plan_hash: str) -> None:
    with st.expander(text("plans.withdraw")), st.form(f"withdraw-{plan_hash}"):
        st.write(text("plans.withdraw_about"))
        reason = st.text_input(text("plans.withdraw_reason"))
        sure = st.checkbox(text("plans.withdraw_sure"))
        submitted = st.form_submit_button(text("plans.withdraw"))
    if not submitted:
        return
    if not reason.strip() or not sure:
        st.error(text("plans.withdraw_incomplete"))
        return
    asked_for = {n: node for n, node in session.nodes.items()
                 if n in plans and status(plans, n, plan_hash) in _OPEN}  # fmt: skip
    answers, failed = everywhere(
        dataclasses.replace(session, nodes=asked_for, absent={}),
        lambda node: node.call(
            "withdraw", timeout_s=PATIENCE_S, plan_hash=plan_hash, reason=reason.strip()
        ),
    )
    finish("; ".join(f"{name}: {said}" for name, said in sorted({**answers, **failed}.items())))


def snippet(plan_hash: str) -> str:
    """Python that looks at a plan in a notebook; it holds no credential."""
    return (
        "import coterie as ct\n\n"
        'fed = ct.connect("accounts.json", key="scientist.pem")\n'
        f'fed.status("{plan_hash[:16]}")  # at every domain, with reasons and signatures\n'
    )
