"""The owner's decision: said once, confirmed once beside its cost, signed with her own key.

What is signed names the hash of the explanation that this page showed: if the node shows another
by then, because the budget has changed or somebody else decided, it refuses.
"""

from dataclasses import dataclass
from typing import Any

import streamlit as st
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dashboard.requests import OPEN, status_text
from dashboard.session import Session, finish, plain, telling
from dashboard.signing import approve_with_signature, ask_signer, forget_signer, signing_form
from dashboard.texts import text
from policies.approvals import APPROVAL_DAYS, sign_approval
from policies.canonical import sha256_hex
from policies.plan import Plan


@dataclass(frozen=True)
class Case:
    """One plan with what the node says of it.

    Attributes:
        shown: the node's answer to `plan`: status, explanation, who decided.
        weighed: the node's answer to `weigh`: limits, rules, partners.
        previous: the plan that was approved last for the same data set and author.
    """

    plan: Plan
    shown: dict[str, Any]
    weighed: dict[str, Any]
    previous: Plan | None

    def cost(self) -> str:
        """The sentence that repeats what an approval costs and what it leaves."""
        found = [each for each in self.weighed["limits"] if each["rule"] == "budget"]
        if not found:
            return text("showing.not_private")
        (limit,) = found
        if limit["before"] is None or limit["after"] is None:
            return text("deciding.endless")
        return text(
            "deciding.cost",
            asked=f"{limit['after'] - limit['before']:.3f}",
            before=f"{limit['before']:.3f}",
            after=f"{limit['after']:.3f}",
            cap=f"{limit['cap']:.3f}",
            left=f"{limit['cap'] - limit['after']:.3f}",
            everywhere=_figure(limit["everywhere_after"]),
            delta=f"{limit['delta']:g}",
            adjacency=text("showing.unit"),
        )


def _figure(value: float | None) -> str:
    return text("showing.unlimited") if value is None else f"{value:.3f}"


def draw_decision(session: Session, case: Case) -> None:
    """The forms that fit the plan's status."""
    status = case.shown["status"]
    st.header(text("deciding.title"))
    if status == "approved":
        _revocation(session, case)
    elif status not in OPEN:
        st.write(text("deciding.nothing"))
    else:
        if status == "awaiting signature":
            st.info(text("deciding.awaiting"))
        chosen = st.segmented_control(
            text("deciding.which"),
            options=["approve", "deny"],
            format_func=lambda which: text(f"deciding.{which}"),
            key=f"decision-{case.plan.hash}",
        )
        if chosen == "approve":
            _approval(session, case)
        elif chosen == "deny":
            _denial(session, case)


def _approval(session: Session, case: Case) -> None:
    plan_hash, seen = case.plan.hash, f"seen-{case.plan.hash}"
    # What was on the page when the button was pressed, not what the node shows a moment later.
    explanation = st.session_state.get(seen, case.shown["explanation"])
    reason = st.text_area(text("deciding.why"), max_chars=2000, key=f"why-{plan_hash}")
    if not reason.strip():
        st.caption(text("deciding.reason_first"))
        st.session_state[seen] = case.shown["explanation"]
        return
    days = st.number_input(text("deciding.days"), 1, 3650, APPROVAL_DAYS, key=f"days-{plan_hash}")
    with st.form(signing_form(f"approve-{plan_hash}")):
        st.warning(plain(text("deciding.confirm", name=case.plan.name, cost=case.cost())))
        signer = ask_signer(*signing_command(plan_hash, session.node.name, reason, days))
        submitted = st.form_submit_button(text("deciding.approve_button"), type="primary")
    st.session_state[seen] = case.shown["explanation"]
    if not submitted:
        return
    with telling():
        owner, shown = session.owner, sha256_hex(explanation.encode())

        def sign(key: Ed25519PrivateKey) -> str:
            return sign_approval(
                key,
                plan_hash,
                owner.node.name,
                by=owner.email,
                reason=reason.strip(),
                explanation=shown,
                days=days,
            )

        status = approve_with_signature(owner, plan_hash, signer.signed(sign))
        forget_signer()
        finish(text("deciding.done", hash=plan_hash[:12], status=status_text(status)))


def signing_command(plan_hash: str, domain: str, reason: str, days: float) -> tuple[str, ...]:
    """The words of the command that makes a detached signature where the key lies."""
    said = ("--domain", domain, "--days", f"{days:g}", "--reason", reason.strip())
    return ("coterie", "requests", "sign", plan_hash[:16], *said)


def _denial(session: Session, case: Case) -> None:
    with st.form(f"deny-{case.plan.hash}"):
        st.warning(plain(text("deciding.confirm_denial", name=case.plan.name, cost=case.cost())))
        reason = st.text_area(text("request.why_not"), max_chars=2000)
        submitted = st.form_submit_button(text("deciding.deny_button"))
    if submitted:
        with telling():
            if not reason.strip():
                st.error(text("request.reason_missing"))
                return
            status = session.owner.deny(case.plan.hash, reason.strip())
            finish(text("deciding.done", hash=case.plan.hash[:12], status=status_text(status)))


def _revocation(session: Session, case: Case) -> None:
    st.write(text("deciding.revoke_about"))
    with st.form(f"revoke-{case.plan.hash}"):
        reason = st.text_area(text("deciding.why_revoke"), max_chars=2000)
        submitted = st.form_submit_button(text("deciding.revoke_button"))
    if submitted:
        with telling():
            if not reason.strip():
                st.error(text("request.reason_missing"))
                return
            status = session.owner.revoke(case.plan.hash, reason.strip())
            finish(text("deciding.done", hash=case.plan.hash[:12], status=status_text(status)))
