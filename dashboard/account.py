"""Who you are at each domain, which are absent and why, and until when you are signed in."""

import pandas as pd
import streamlit as st

from dashboard.session import Session, asked, everywhere
from dashboard.showing import table
from dashboard.texts import text
from dashboard.times import moment


def draw(session: Session) -> None:
    """Draw the page."""
    st.title(text("pages.account"))
    answers, absent = everywhere(
        session, lambda node: asked(node, "account"), lambda found: _rows(found, {})
    )
    hours = (session.expires - session.opened).total_seconds() / 3600
    st.write(text("account.about", hours=f"{hours:g}"))
    table(_rows(answers, absent), "account")
    st.caption(text("account.password"))


def _rows(answers: dict[str, dict[str, str | None]], absent: dict[str, str]) -> pd.DataFrame:
    domain, account, role, until = (
        text(f"account.{k}") for k in ("domain", "email", "role", "until")
    )
    rows = [
        {domain: n, account: a["email"], role: text(f"roles.{a['role']}"),
         until: moment(a["until"]) or text("account.lasts")}
        for n, a in answers.items()
    ]  # fmt: skip
    rows += [{domain: n, account: "", role: why, until: ""} for n, why in absent.items()]
    return pd.DataFrame(rows)
