"""One partner's page: what is asked of her, what is left of each budget, and the ledger.

Started by `coterie dashboard --domain NAME`. It holds no credential: people sign in with their
account on the node, and an approval is signed with a key that is given for that one click.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from coterie.owner import Owner
from dashboard.session import (
    approve_with_key,
    approve_with_signature,
    asked,
    finish,
    plain,
    read_key,
    show_finished,
    sign_in,
    sign_out,
    signed_in,
    telling,
)
from network.tls import is_trusted, trust
from policies.accounting import ADJACENCY
from policies.approvals import OwnerKeyError

_OPEN = ("pending", "awaiting signature")
_PAGE_OF_LEDGER = 200
_PARTS = ("spent", "promised", "remaining")
_COLOURS = ("#b4452f", "#e3b04b", "#5b8c85")


def main(arguments: Sequence[str]) -> None:
    """Draw the page for the domain that the arguments name."""
    options = _options(arguments)
    if options.certificate is not None and not is_trusted(options.url):
        trust(options.url, Path(options.certificate).read_text())
    st.set_page_config(page_title=f"Coterie: {options.domain}", layout="wide")
    st.title(plain(f"Coterie: {options.domain}"))
    owner = signed_in()
    if owner is None:
        _sign_in_form(options)
        return
    st.sidebar.text(f"Signed in at {owner.node.name}")
    st.sidebar.button("Sign out", on_click=sign_out)
    st.sidebar.button("Refresh")
    show_finished()
    for section in (_requests, _budgets, _ledger):
        with telling():
            section(owner)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dashboard")
    parser.add_argument("--domain", required=True, help="name of the domain")
    parser.add_argument("--certificate", help="file of the certificate that the node shows")
    parser.add_argument("--url", required=True, help="http://HOST:PORT of its node")
    parser.add_argument("--node-key", help="the node's verify key, if you know it: 64 hex digits")
    return parser.parse_args(arguments)


def _sign_in_form(options: argparse.Namespace) -> None:
    with st.form("sign-in"):
        email = st.text_input("Email")
        password = st.text_input("Password", type="password")
        submitted = st.form_submit_button("Sign in")
    if submitted:
        with telling():
            sign_in(options.url, email, password, options.node_key)
            st.rerun()


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


def _budgets(owner: Owner) -> None:
    st.header("Budgets")
    budgets = asked(owner.node, "budgets")
    if not budgets:
        st.info("No data set is declared, so there is no budget.")
        return
    st.caption(f"Every epsilon: {ADJACENCY}.")
    limited = [budget for budget in budgets if not budget["public"]]
    if limited:
        st.altair_chart(_chart(limited), width="stretch")
    names = _datasets_by_population(owner)
    rows = [_budget_row(budget, names.get(budget["population"], "")) for budget in budgets]
    st.dataframe(pd.DataFrame(rows), hide_index=True)


def _datasets_by_population(owner: Owner) -> dict[str, str]:
    names: dict[str, list[str]] = {}
    for dataset in asked(owner.node, "describe")["datasets"]:
        names.setdefault(dataset["population"], []).append(dataset["name"])
    return {population: ", ".join(found) for population, found in names.items()}


def _budget_row(budget: dict[str, Any], datasets: str) -> dict[str, Any]:
    limited = not budget["public"]
    return {
        "data sets": datasets,
        "population": budget["population"],
        "epsilon cap": budget["epsilon"] if limited else None,
        "epsilon spent": budget["spent"] if limited else None,
        "epsilon held": budget["held"] if limited else None,
        "epsilon remaining": budget["remaining"] if limited else None,
        "delta": f"{budget['delta']:g}",
        "releases": budget["releases"],
        "unit of every epsilon": ADJACENCY if limited else "declared public: NOT PRIVATE",
    }


def _chart(budgets: list[dict[str, Any]]) -> alt.Chart:
    rows = [row for budget in budgets for row in _bar_parts(budget)]
    return (
        alt.Chart(pd.DataFrame(rows), title=f"Epsilon ({ADJACENCY})")
        .mark_bar()
        .encode(
            x=alt.X("epsilon:Q", stack="zero", title="epsilon"),
            y=alt.Y("population:N", title=None),
            color=alt.Color("part:N", scale=alt.Scale(domain=_PARTS, range=_COLOURS), title=None),
            order=alt.Order("order:Q"),
            tooltip=["population:N", "part:N", alt.Tooltip("epsilon:Q", format=".3f")],
        )
    )


def _bar_parts(budget: dict[str, Any]) -> list[dict[str, Any]]:
    spent, held, remaining = (budget[k] or 0.0 for k in ("spent", "held", "remaining"))
    sizes = (spent, max(held - spent, 0.0), max(remaining, 0.0))
    return [
        {"population": budget["population"], "part": part, "epsilon": size, "order": order}
        for order, (part, size) in enumerate(zip(_PARTS, sizes, strict=True))
    ]


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


if __name__ == "__main__":
    main(sys.argv[1:])
