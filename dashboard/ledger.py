"""The entries of one domain's own ledger."""

import json
from typing import Any

import pandas as pd
import streamlit as st

from coterie.owner import Owner
from dashboard.session import Session, asked

_PAGE_OF_LEDGER = 200


def draw(session: Session) -> None:
    """Draw the page."""
    _ledger(session.owner)


def _ledger(owner: Owner) -> None:
    st.header("Ledger")
    after = int(st.number_input("Show entries after number", min_value=0, value=0, step=100))
    entries = asked(owner.node, "ledger", after=after, limit=_PAGE_OF_LEDGER)
    if not entries:
        st.info("No entries there.")
        return
    rows = [{**{k: e[k] for k in ("index", "kind")}, "body": _text(e["body"]), "hash": e["hash"]}
            for e in entries]  # fmt: skip
    st.dataframe(pd.DataFrame(rows), hide_index=True)
    if len(entries) == _PAGE_OF_LEDGER:
        st.caption(f"There may be more after number {entries[-1]['index']}.")


def _text(body: Any) -> str:
    return body if isinstance(body, str) else json.dumps(body, sort_keys=True)
