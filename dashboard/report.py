"""The auditor's report, to print and to file: what her own verification found."""

import json
from dataclasses import asdict
from typing import Any

import pandas as pd
import streamlit as st

from coterie.auditor import Cosigned, DomainAudit, Overview
from coterie.report import network_report
from dashboard.ledgers import verdict_in_words, verified, verified_at, verify
from dashboard.session import Session, plain, telling
from dashboard.showing import adjacency, empty, section, table
from dashboard.texts import text
from dashboard.times import moment


def draw(session: Session) -> None:
    """Draw the page."""
    st.title(text("pages.report"))
    st.write(text("report.about"))
    if st.button(text("ledgers.verify"), type="primary", icon=":material/verified:"):
        with telling():
            verify(session)
            st.rerun()
    found, at = verified(), verified_at()
    if found is None or at is None:
        empty(text("ledgers.unverified"), text("report.next"))
        return
    st.caption(text("report.when", when=moment(at)))
    when = f"{at:%Y-%m-%d %H:%M:%S}"
    name = f"audit-{at:%Y-%m-%d}"
    filed, page, figures = st.columns(3)
    html = network_report(found, session.email, when)
    filed.download_button(
        text("report.pdf"),
        lambda: _pdf(html),
        f"{name}.pdf",
        "application/pdf",
        icon=":material/picture_as_pdf:",
        on_click="ignore",
        width="stretch",
    )
    page.download_button(
        text("report.html"),
        html,
        f"{name}.html",
        "text/html",
        icon=":material/html:",
        on_click="ignore",
        width="stretch",
    )
    figures.download_button(
        text("report.json"),
        as_json(found, session.email, when),
        f"{name}.json",
        "application/json",
        icon=":material/data_object:",
        on_click="ignore",
        width="stretch",
    )
    st.caption(text("report.forms"))
    for domain in found.domains:
        section(plain(domain.name))
        _said(found, domain)
    adjacency()


def _said(found: Overview, domain: DomainAudit) -> None:
    """What was found of one domain; the verifier's own words below."""
    verdict = domain.verdict
    show = st.error if not verdict.ok else st.success if verdict.complete else st.warning
    show(plain(verdict_in_words(verdict)))
    signed = [c for c in found.cosignatures if c.domain == domain.name]
    st.caption(plain(" · ".join(_cosigned(each) for each in signed)))
    table(budgets(domain), f"report-{domain.name}", empty_says=text("ledgers.no_budget"))
    with st.expander(text("report.words")):
        st.code(verdict.text, language=None, wrap_lines=True)


def _cosigned(each: Cosigned) -> str:
    said = "cosigned" if each.size else "never"
    return text(f"report.{said}", peer=each.peer, size=f"{each.size:,}", of=f"{each.of:,}")


def budgets(domain: DomainAudit) -> pd.DataFrame:
    """One row for each private population, as this replay accounts for it."""
    return pd.DataFrame(
        [
            {
                text("ledgers.population"): budget["population"],
                text("ledgers.cap"): budget["epsilon"],
                text("ledgers.spent"): domain.verdict.epsilon.get(budget["population"]),
                text("ledgers.everywhere"): domain.verdict.everywhere.get(budget["population"]),
                text("ledgers.delta"): f"{budget['delta']:g}",
            }
            for budget in domain.budgets
            if not budget["public"]
        ]
    )


def _pdf(html: str) -> bytes:
    from coterie.pdf import as_pdf  # loaded when somebody asks for one

    return as_pdf(html)


def as_json(found: Overview, auditor: str, time: str) -> str:
    """The whole overview, with who verified and when."""
    said: dict[str, Any] = {
        "format": "coterie-audit-v1",
        "auditor": auditor,
        "verified": time,
        **asdict(found),
    }
    return json.dumps(said, indent=1, ensure_ascii=False)
