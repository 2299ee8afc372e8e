"""One request: everything an owner needs to decide, the answer first, the proof below."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.changed import draw_changes, draw_code, draw_source
from dashboard.computation import draw_computation, draw_rehearsal
from dashboard.costs import bar, bar_rows
from dashboard.deciding import Case, draw_decision
from dashboard.requests import OPEN, people_of, status_text
from dashboard.rules import why
from dashboard.session import Session, asked, link, plain, telling
from dashboard.showing import adjacency, amount, chart, empty, epsilon, records
from dashboard.texts import text
from dashboard.times import instant, moment
from dashboard.told import told, told_refusal
from policies.accounting import epsilon_at_every_partner, plan_epsilon
from policies.changes import changes
from policies.legible import visible
from policies.plan import Plan, Step

_COLOUR = {"approved": "green", "pending": "orange", "awaiting signature": "orange"}


def draw(session: Session) -> None:
    """Draw the page of the plan that the address names."""
    link("requests", text("request.back"))
    plan_hash = st.query_params.get("plan", "")
    if not plan_hash:
        empty(text("request.none"), text("request.none_next"))
        return
    case = read_case(session, plan_hash)
    st.title(plain(visible(case.plan.name)))
    status = case.shown["status"]
    st.badge(status_text(status), color=_colour(status))
    st.caption(
        plain(text("request.hash", hash=case.plan.hash, time=moment(case.shown["submitted"])))
    )
    if status not in OPEN:
        _decided(case)
    _summary(session, case)
    _cost(case)
    _rules(case)
    _leaves(case.plan)
    _partners(session, case)
    _details(session, case)
    draw_decision(session, case)
    adjacency()


def read_case(session: Session, plan_hash: str) -> Case:
    """Everything that the node says about a plan.

    Raises:
        NodeRefused: there is no such plan.
    """
    shown = asked(session.node, "plan", plan_hash=plan_hash)
    weighed = asked(session.node, "weigh", plan_hash=shown["plan_hash"])
    previous = None if weighed["previous"] is None else Plan.from_json(weighed["previous"])
    return Case(Plan.from_json(shown["plan"]), shown, weighed, previous)


def cost_rows(case: Case) -> pd.DataFrame:
    """Spent, promised, this plan and what is left, of each limit that the plan meets.

    Returns:
        Columns budget, part, epsilon (the filter's, at the limit's delta).
    """
    rows = []
    for limit in case.weighed["limits"]:
        before, after = limit["before"], limit["after"]
        if before is None or after is None:
            continue
        if limit["rule"] == "budget":
            rows += bar_rows(case.weighed["budget"], after - before, after)
            continue
        held = {
            "population": limit["rule"],
            "spent": before,
            "held": before,
            "epsilon": limit["cap"],
        }
        rows += bar_rows(held, after - before, after)
    return pd.DataFrame(rows)


def leaving(steps: tuple[Step, ...]) -> pd.DataFrame:
    """What leaves at every release of each step, and under how much noise."""
    return pd.DataFrame(
        [
            {
                "step": step.name,
                "tensors": ", ".join(f"{s.name} {list(s.shape)}" for s in step.released),
                "numbers": step.width,
                "releases": step.releases,
                "clip norm (L2, one user)": step.clip_norm,
                "noise (standard deviation)": step.noise_multiplier * step.clip_norm,
                "noise multiplier": step.noise_multiplier,
                "sampling rate": step.sampling_rate,
                "when": _when(step),
            }
            for step in steps
        ]
    )


def partner_rows(partners: Mapping[str, Mapping[str, str] | None]) -> pd.DataFrame:
    """What each partner decided, as far as this node was told."""
    return pd.DataFrame(
        [
            {
                "partner": name,
                "decision": status_text(answer["status"]) if answer else text("request.not_told"),
                "by": (answer or {}).get("by", ""),
                "signed": instant((answer or {}).get("signed")),
                "until": instant((answer or {}).get("expires")),
                "reason": (answer or {}).get("reason", ""),
            }
            for name, answer in partners.items()
        ]
    )


def _when(step: Step) -> str:
    if step.after is None:
        return text("request.in_order")
    return text("request.cadence", every=step.every, after=step.after)


def _colour(status: str) -> Any:
    return _COLOUR.get(status, "gray" if status == "closed" else "red")


def _decided(case: Case) -> None:
    shown = case.shown
    refused = shown["status"] == "refused"
    reason = told_refusal(shown["reason"]) if refused else shown["reason"]
    st.info(
        plain(
            text(
                "request.decided",
                status=status_text(shown["status"]),
                by=shown["decided_by"] or text("request.by_rule"),
                time=moment(shown["decided"] or shown["submitted"]),
                reason=reason or text("request.no_reason"),
            )
        )
    )
    if refused:
        rule = str(shown["reason"]).partition(":")[0]
        st.markdown(f"**{text('request.why_refused')}**")
        st.write(why(rule))


def _summary(session: Session, case: Case) -> None:
    plan = case.plan
    people = people_of(asked(session.node, "members"))
    left, right = st.columns([3, 2])
    with left.container(border=True):
        st.markdown(f"**{text('request.who')}**")
        account = case.shown["scientist"]
        st.text(people.get(account, account))
        st.caption(text("request.author", key=plan.scientist[:16], name=plan.dataset))
        st.markdown(f"**{text('request.purpose')}**")
        purpose = visible(plan.purpose) or text("request.no_purpose")
        if purpose.count("\n") > 5 or len(purpose) > 500:
            st.code(purpose, language=None, wrap_lines=True, height=160)
        else:
            st.text(purpose)
        st.markdown(f"**{text('request.glance')}**")
        for line in at_a_glance(case):
            st.text(line)
    with right.container(border=True):
        releases = sum(step.releases for step in plan.steps)
        numbers = sum(step.releases * step.width for step in plan.steps)
        st.metric(text("request.releases"), amount(releases, text("units.totals")))
        st.caption(
            text("request.releases_about", numbers=f"{numbers:,}", spare=plan.spare_attempts)
        )
        cost = None if plan.public else plan_epsilon(plan.events(), plan.delta)
        st.metric(text("request.costs"), "–" if cost is None else f"epsilon {cost:.3f}")
        st.caption(plain(epsilon(cost, plan.delta)))
        if not plan.public:
            everywhere = epsilon_at_every_partner(plan.events(), plan.delta, len(plan.roster))
            st.caption(
                text("request.everywhere", count=len(plan.roster), value=f"{everywhere:.3f}")
            )


def at_a_glance(case: Case) -> list[str]:
    """What changed, whether a rule is broken and how the partners decided: a line each."""
    broken = sorted({each["rule"] for each in case.weighed["refusals"]})
    partners = case.weighed["partners"]
    said = [each["status"] for each in partners.values() if each]
    against = [n for n, each in partners.items() if each and each["status"] != "approved"]
    lines = [text("request.glance_new")]
    if case.previous is not None:
        changed = len(changes(case.previous, case.plan))
        same = _sources(case.previous) == _sources(case.plan)
        source = text("request.glance_same_source" if same else "request.glance_other_source")
        lines = [text("request.glance_changed", count=changed, source=source)]
    if broken:
        lines.append(text("request.glance_broken", rules=", ".join(broken)))
    else:
        lines.append(text("request.no_rule_broken"))
    if partners:
        count = said.count("approved")
        lines.append(text("request.glance_partners", approved=count, count=len(partners)))
    if against:
        lines.append(text("request.glance_against", names=", ".join(against)))
    return lines


def _sources(plan: Plan) -> dict[str, str]:
    return {step.name: step.source for step in plan.steps}


def _cost(case: Case) -> None:
    if case.shown["status"] not in OPEN:
        return
    rows = cost_rows(case)
    if rows.empty:
        st.info(text("request.no_limits"))
        return
    chart(bar(rows), rows, "cost", text("request.cost_title"))
    st.write(plain(case.cost()))
    st.caption(text("request.cost_about"))


def _rules(case: Case) -> None:
    weighed = case.weighed
    st.markdown(f"**{text('request.rules')}**")
    if weighed["closed"]:
        st.warning(plain(told(weighed["closed"])))
    for each in weighed["refusals"]:
        st.error(plain(f"{each['rule']}: {told(each['message'])}"))
        st.caption(why(each["rule"]))
    for each in weighed["advice"]:
        said = told(each["message"])
        st.warning(plain(text("request.advice", rule=each["rule"], message=said)))
        st.caption(why(each["rule"]))
    if not weighed["refusals"] and not weighed["advice"]:
        st.success(text("request.no_rule_broken"))


def _leaves(plan: Plan) -> None:
    st.markdown(f"**{text('request.leaves')}**")
    records(leaving(plan.steps), "leaves")


def _partners(session: Session, case: Case) -> None:
    st.markdown(f"**{text('request.partners')}**")
    records(partner_rows(case.weighed["partners"]), "partners", empty_says=text("request.alone"))
    st.caption(text("request.partners_about"))


def _details(session: Session, case: Case) -> None:
    names = ("changed", "computed", "source", "tried", "signed")
    tabs = dict(zip(names, st.tabs([text(f"request.tab_{n}") for n in names]), strict=True))
    with tabs["changed"], telling():
        draw_changes(case.previous, case.plan)
    with tabs["computed"], telling():
        draw_computation(case.plan)
    with tabs["source"], telling():
        draw_source(case.plan)
    with tabs["tried"], telling():
        draw_rehearsal(case.plan, _items(session, case.plan))
    with tabs["signed"], telling():
        st.caption(text("request.signed_about"))
        draw_code(case.shown["explanation"], None)


def _items(session: Session, plan: Plan) -> int:
    datasets = asked(session.node, "describe")["datasets"]
    return next(int(each["items"]) for each in datasets if each["name"] == plan.dataset)
