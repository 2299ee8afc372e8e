"""All ledgers side by side: what was spent, who co-signed whom, and what the verifier found.

Figures come paged and counted from the nodes' databases and are the nodes' own words; the verdict
is this auditor's: she has every entry fetched and replayed here when she asks for it. A row that is
selected leads to the signed entries behind it.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import streamlit as st

import coterie as ct
from coterie.auditor import Overview
from dashboard.cosigned import cells, held, matrix
from dashboard.session import Session, asked, everywhere, go, link, plain, telling
from dashboard.showing import MOST_RECORDS, adjacency, chart, download, empty, section, table
from dashboard.spending import SHOWN, Answers, daily, dots, gauges, growth, monthly, spent
from dashboard.texts import text
from dashboard.times import instant, moment
from dashboard.told import told
from network.client import NodeClient
from policies.verify import Verdict

_OVERVIEW, _WHEN = "overview", "overview-time"
_SELECTABLE: Mapping[str, Any] = {"on_select": "rerun", "selection_mode": "single-row"}


def draw(session: Session) -> None:
    """Draw the page."""
    st.title(text("pages.ledgers"))
    answers, absent = everywhere(session, look, _pictured)
    for name, why in absent.items():
        st.warning(plain(text("datasets.absent", domain=name, why=why)))
    if not answers:
        empty(text("ledgers.none"), text("ledgers.none_next"))
        return
    _verdicts(session, answers)
    _spends(answers)
    _matrix(answers)
    _timeline(answers)
    _alerts()


def look(node: NodeClient) -> dict[str, Any]:
    """What one node says of its ledger, counted by its database."""
    return {
        "counts": asked(node, "ledger_counts"),
        "budgets": asked(node, "budgets"),
        "cosigned": asked(node, "ledger_cosigned"),
        "months": asked(node, "ledger_spends", by="month")["rows"],
        "days": asked(node, "ledger_timeline", by="day"),
        "node_key": node.node_key,
    }


def _pictured(answers: Answers) -> None:
    """Everything that the page makes of the answers."""
    verdicts(answers, None), figures(answers, None), spent(answers), held(answers)
    monthly(answers), daily(answers)


def _drill(shown: Any, targets: Sequence[Mapping[str, Any]]) -> None:
    """Open the entries behind the selected row; `targets` are the filters, row by row."""
    rows = shown.selection.rows if shown is not None else []
    if rows:
        go("entries", **{key: str(value) for key, value in targets[rows[0]].items()})


def _links(shown: Any, targets: Sequence[Mapping[str, Mapping[str, Any]]]) -> None:
    """Links to the entries behind each figure of the selected row: filters by label, row by row."""
    rows = shown.selection.rows if shown is not None else []
    if not rows:
        return
    with st.container(horizontal=True):
        st.caption(text("ledgers.behind"))
        for label, query in targets[rows[0]].items():
            link("entries", plain(label), **{key: str(value) for key, value in query.items()})


def figures(answers: Answers, found: Overview | None) -> list[dict[str, dict[str, Any]]]:
    """The entries behind the figures of each row of `verdicts`."""
    bad = {d.name: d.verdict.first_bad for d in found.domains} if found is not None else {}
    rows = []
    for domain, each in sorted(answers.items()):
        row: dict[str, dict[str, Any]] = {
            text("ledgers.entries"): {"domain": domain},
            text("ledgers.newest"): {"domain": domain, "index": each["counts"]["entries"]},
            text("ledgers.releases"): {"domain": domain, "kind": "release"},
            text("ledgers.plans"): {"domain": domain, "kind": "submission"},
        }
        if bad.get(domain):
            row[text("ledgers.first_bad")] = {"domain": domain, "index": bad[domain]}
        rows.append(row)
    return rows


def causes(frame: pd.DataFrame) -> list[dict[str, dict[str, Any]]]:
    """The entries behind the figures of each row of `spent`."""
    kinds = {"cap": "budget", "spent": "charge", "held": "approval", "releases": "release"}
    return [
        {text(f"ledgers.{figure}"): {**whose, "kind": kind} for figure, kind in kinds.items()}
        for whose in _named(frame, domain="domain", population="population")
    ]


def verified() -> Overview | None:
    """What this session's last verification found."""
    return st.session_state.get(_OVERVIEW)


def verified_at() -> datetime | None:
    """When that was, UTC; None: never."""
    return st.session_state.get(_WHEN)


def verify(session: Session) -> None:
    """Fetch and replay every ledger here, and keep what was found, not the entries."""
    with st.status(text("ledgers.verifying")) as status:
        auditor = ct.Auditor(session.nodes, session.absent)
        found = auditor.overview(
            lambda name: status.update(label=text("ledgers.verifying_one", domain=name))
        )
    st.session_state[_OVERVIEW] = found
    st.session_state[_WHEN] = datetime.now(UTC)


def _verdicts(session: Session, answers: Answers) -> None:
    st.write(text("ledgers.about"))
    frame = verdicts(answers, verified())
    _links(table(frame, "verdicts", **_SELECTABLE), figures(answers, verified()))
    left, right = st.columns([1, 3], vertical_alignment="center")
    clicked = left.button(text("ledgers.verify"), type="primary", icon=":material/verified:")
    total = sum(each["counts"]["entries"] for each in answers.values())
    right.caption(
        text("ledgers.verify_about", entries=f"{total:,}", when=moment(verified_at()) or "–")
    )
    if clicked:
        with telling():
            verify(session)
            st.rerun()
    found = verified()
    for domain in found.domains if found is not None else ():
        if not domain.verdict.ok:
            st.error(plain(f"{domain.name}: {verdict_in_words(domain.verdict)}"))
            if domain.verdict.first_bad is not None:
                label = text("ledgers.open_bad", index=domain.verdict.first_bad)
                if st.button(label, key=f"bad-{domain.name}"):
                    go("entries", domain=domain.name, index=str(domain.verdict.first_bad))


def verdict_in_words(verdict: Verdict) -> str:
    """A verdict in the reader's language; what is wrong, as the verifier says it."""
    if verdict.ok:
        kind = "complete" if verdict.complete else "consistent"
        return text(f"report.{kind}", entries=f"{verdict.entries:,}")
    if verdict.first_bad is None:
        return text("report.bad_whole", problem=verdict.problem)
    found = {"index": verdict.first_bad, "entries": f"{verdict.entries:,}"}
    return text("report.bad", problem=verdict.problem, **found)


def verdicts(answers: Answers, found: Overview | None) -> pd.DataFrame:
    """One row for each domain: its size, head and what the verifier said."""
    known = {each.name: each for each in found.domains} if found is not None else {}
    rows = []
    for domain, each in sorted(answers.items()):
        counts, audit = each["counts"], known.get(domain)
        newer = counts["entries"] - audit.entries if audit is not None else 0
        rows.append(
            {
                text("ledgers.domain"): domain,
                text("ledgers.verdict"): _verdict(audit, newer),
                text("ledgers.first_bad"): _first_bad(audit),
                text("ledgers.entries"): counts["entries"],
                text("ledgers.newest"): instant(counts["time"]),
                text("ledgers.releases"): counts["kinds"].get("release", 0),
                text("ledgers.plans"): sum(counts["plans"].values()),
                text("ledgers.head"): counts["head"],
                text("ledgers.node_key"): each["node_key"],
            }
        )
    return pd.DataFrame(rows)


def _verdict(audit: Any, newer: int) -> str:
    if audit is None:
        return text("ledgers.unverified")
    if not audit.verdict.ok:
        return text("ledgers.bad", problem=audit.verdict.problem)
    said = text("ledgers.complete" if audit.verdict.complete else "ledgers.consistent")
    return f"{said} {text('ledgers.newer', count=newer)}" if newer > 0 else said


def _first_bad(audit: Any) -> str:
    return "" if audit is None or audit.verdict.first_bad is None else f"{audit.verdict.first_bad}"


def _spends(answers: Answers) -> None:
    section(text("ledgers.spent_title"))
    frame = spent(answers)
    if frame.empty:
        empty(text("ledgers.no_budget"), text("ledgers.no_budget_next"))
        return
    drawn = gauges(frame)
    shown = chart(drawn, frame, "spent", text("ledgers.spent_chart"), **_SELECTABLE)
    _links(shown, causes(frame))
    adjacency()


def _matrix(answers: Answers) -> None:
    section(text("ledgers.matrix_title"))
    frame = matrix(answers)
    if frame.empty:
        empty(text("ledgers.no_matrix"), text("ledgers.no_matrix_next"))
        return
    shown = chart(cells(frame), frame, "cosigned", text("ledgers.matrix_chart"), **_SELECTABLE)
    _drill(shown, _named(frame, domain="ledger_of", index="upto"))


def _timeline(answers: Answers) -> None:
    section(text("ledgers.timeline_title"))
    months, days = monthly(answers), daily(answers)
    left, right = st.columns(2)
    with left:
        if months.empty:
            empty(text("ledgers.no_spend"), text("ledgers.no_spend_next"))
        else:
            title = text("ledgers.months_chart")
            shown = chart(growth(months), months, "months", title, **_SELECTABLE)
            _drill(shown, _named(months, domain="domain", month="month"))
    with right:
        if days.empty:
            empty(text("ledgers.no_decision"), text("ledgers.no_decision_next"))
        else:
            shown = chart(dots(days), days, "days", text("ledgers.days_chart"), **_SELECTABLE)
            kinds = {text(f"kinds.{kind}"): kind for kind in SHOWN}
            targets = _named(days, domain="domain", month="day", kind="kind")
            _drill(shown, [{**each, "kind": kinds[each["kind"]]} for each in targets])
    if st.button(text("ledgers.drill"), icon=":material/search:"):
        go("entries")


def _named(frame: pd.DataFrame, **columns: str) -> list[dict[str, Any]]:
    """Some columns of a table, row by row, under the names that the entries' page knows."""
    return [
        {key: row[text(f"ledgers.{column}")] for key, column in columns.items()}
        for row in frame.to_dict("records")
    ]


def _alerts() -> None:
    section(text("ledgers.alerts_title"))
    found = verified()
    if found is None:
        empty(text("ledgers.unverified"), text("ledgers.alerts_next"))
        return
    frame = alerts(found)
    behind = [
        {"domain": a.domain} | ({"index": str(a.alert.entries[0])} if a.alert.entries else {})
        for a in found.alerts
    ]
    if 0 < len(frame) <= MOST_RECORDS:
        for number, row in enumerate(frame.to_dict("records")):
            if _told(row, number):
                go("entries", **behind[number])
        download(frame, "alerts")
        return
    shown = table(
        frame,
        "alerts",
        empty_says=text("ledgers.no_alerts"),
        next_step=text("ledgers.no_alerts_next"),
        **_SELECTABLE,
    )
    _drill(shown, behind)


def _told(row: Mapping[Any, Any], number: int) -> bool:
    """One thing to ask about, in full; whether somebody wants the entries it follows from."""
    about = (row[text(f"ledgers.{column}")] for column in ("domain", "alert", "population"))
    with st.container(border=True):
        st.markdown(f"**{plain(' · '.join(filter(None, about)))}**")
        st.markdown(plain(row[text("ledgers.message")]))
        label = f"{text('ledgers.from_entries')}: {row[text('ledgers.from_entries')] or '–'}"
        return st.button(plain(label), key=f"alert-{number}", icon=":material/search:")


def _alert(kind: str) -> str:
    return text(f"alerts.{kind.replace(' ', '_')}")


def alerts(found: Overview) -> pd.DataFrame:
    """One row for each thing to ask about, with the entries it follows from."""
    return pd.DataFrame(
        [
            {
                text("ledgers.domain"): each.domain,
                text("ledgers.alert"): _alert(each.alert.kind),
                text("ledgers.population"): each.alert.population,
                text("ledgers.message"): told(each.alert.message),
                text("ledgers.from_entries"): ", ".join(str(i) for i in each.alert.entries[:20]),
            }
            for each in found.alerts
        ]
    )
