"""The auditor's report, to print and to file: what her own verification found."""

import json
from dataclasses import asdict
from typing import Any

import streamlit as st

from coterie.auditor import Overview
from coterie.report import network_report
from dashboard.ledgers import verified, verified_at, verify
from dashboard.session import Session, plain, telling
from dashboard.showing import adjacency, empty, section
from dashboard.texts import text


def draw(session: Session) -> None:
    """Draw the page."""
    st.title(text("pages.report"))
    st.write(text("report.about"))
    if st.button(text("ledgers.verify"), type="primary", icon=":material/verified:"):
        with telling():
            verify(session)
            st.rerun()
    found = verified()
    if found is None:
        empty(text("ledgers.unverified"), text("report.next"))
        return
    when = verified_at()
    st.caption(text("report.when", when=when))
    name = f"audit-{when[:10]}"
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
        st.code(domain.verdict.text, language=None, wrap_lines=True)
    adjacency()


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
