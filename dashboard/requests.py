"""What is asked of the owner."""

from typing import Any

import pandas as pd
import streamlit as st

from coterie.owner import Owner
from dashboard.session import Session, finish, telling
from dashboard.signing import approve_with_key, approve_with_signature, read_key
from policies.approvals import OwnerKeyError

_OPEN = ("pending", "awaiting signature")


def draw(session: Session) -> None:
    """Draw the page."""
    _requests(session.owner)


def _requests(owner: Owner) -> None:
    st.header("Requests")
    plans = owner.plans()
    waiting = [plan for plan in plans if plan["status"] in _OPEN]
    if not waiting:
        st.info("Nothing waits for a decision.")
    for plan in waiting:
        _request(owner, plan)
    decided = [plan for plan in plans if plan["status"] not in _OPEN]
    if decided:
        st.subheader("Decided")
        columns = ["plan_hash", "name", "status", "population", "submitted", "decided",
                   "decided_by", "reason"]  # fmt: skip
        st.dataframe(pd.DataFrame(decided).reindex(columns=columns), hide_index=True)


def _request(owner: Owner, plan: dict[str, Any]) -> None:
    plan_hash = str(plan["plan_hash"])
    with st.expander(f"Plan {plan_hash[:12]}, {plan['status']}", expanded=True), telling():
        st.text(f"{plan['name']} asks for the population {plan['population']}.")
        st.code(owner.show(plan_hash)["explanation"], language=None, wrap_lines=True)
        approval, denial = st.columns(2)
        with approval:
            _approval_form(owner, plan_hash)
        with denial:
            _denial_form(owner, plan_hash)


def _approval_form(owner: Owner, plan_hash: str) -> None:
    with st.form(f"approve-{plan_hash}", clear_on_submit=True):
        file = st.file_uploader("Your key (owner.pem), used for this click only", type=["pem"])
        passphrase = st.text_input("Its passphrase, if it has one", type="password")
        signature = st.text_input("Or a signature made elsewhere (128 hex digits)")
        st.code(_signing_command(plan_hash, owner.node.name), language="shell", wrap_lines=True)
        reason = st.text_input("Why, for the record")
        submitted = st.form_submit_button("Approve", type="primary")
    if submitted:
        with telling():
            if signature.strip():
                status = approve_with_signature(owner, plan_hash, reason, signature.strip())
            elif file is not None:
                key = read_key(file.getvalue(), passphrase)
                status = approve_with_key(owner, plan_hash, reason, key)
            else:
                raise OwnerKeyError("An approval needs your key or a signature made with it.")
            finish(f"Plan {plan_hash[:12]}: {status}")


def _signing_command(plan_hash: str, domain: str) -> str:
    return f"coterie requests sign {plan_hash[:16]} --domain {domain}"


def _denial_form(owner: Owner, plan_hash: str) -> None:
    with st.form(f"deny-{plan_hash}"):
        reason = st.text_area("Why not? The scientist reads this.")
        submitted = st.form_submit_button("Deny")
    if submitted:
        with telling():
            if not reason.strip():
                st.error("Give a reason: a denial without one helps nobody.")
                return
            finish(f"Plan {plan_hash[:12]}: {owner.deny(plan_hash, reason.strip())}")
