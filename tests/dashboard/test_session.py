"""Signed in at real nodes: the node says the role, and the role decides the pages."""

import dataclasses
import math
import secrets
import socket
import sys
from collections.abc import Iterable
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import dashboard.session
from coterie.owner import ROLES
from coterie.partners import card_of, invite
from dashboard.app import PAGES
from dashboard.options import read_options
from dashboard.session import asked, sign_in
from network.client import LoginFailed, NodeClient, NodeRefused, NodeUnreachable, log_in
from tests.dashboard.signed_in import account_login, open_dashboard, owner_login
from tests.dashboard.visiting import session
from tests.network_of_three import Network, counting_plan

pytestmark = pytest.mark.nodes


def test_the_node_says_who_is_signed_in(
    network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "eve.json"
    invite(network.home, "north", f"eve-{secrets.token_hex(4)}@audit.example", "auditor", file)
    logins = {
        "owner": owner_login(network.home, "north"),
        "scientist": account_login(network.home.accounts, "north"),
        "auditor": account_login(file, "north"),
    }
    assert set(logins) - {"owner"} == set(ROLES)
    for role, login in logins.items():
        page = open_dashboard(monkeypatch, network.home, "north", *login)
        assert not page.exception
        assert not page.error
        session = page.session_state["session"]
        assert (session.role, session.email, set(session.nodes)) == (role, login[0], {"north"})
        assert set(page.session_state["pages"]) == set(PAGES[session.role])


def test_a_browser_that_asks_for_another_roles_page_gets_its_own(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a browser wants travels over its WebSocket, where anybody may write anything."""
    owner = open_dashboard(monkeypatch, network.home, "north", *owner_login(network.home, "north"))
    hers = {name: page._script_hash for name, page in owner.session_state["pages"].items()}
    login = account_login(network.home.accounts, "north")
    page = open_dashboard(monkeypatch, network.home, "north", *login)
    own = {each._script_hash for each in page.session_state["pages"].values()}
    for name, script in hers.items():
        if script in own:
            continue
        page._page_hash = script
        page.run()
        assert not page.exception, name
        assert [each.value for each in page.title] == ["Data sets"], name


@pytest.mark.parametrize("name", ["requests", "request", "policy", "ledgers", "entries"])
def test_a_page_that_is_drawn_for_another_role_shows_nothing_but_a_refusal(
    network: Network, auditors: Path, name: str
) -> None:
    """Budgets are left out: every account is told what it may plan with."""

    def script(page: str) -> None:
        from importlib import import_module

        import streamlit as st

        from dashboard.session import telling

        with telling():
            import_module(f"dashboard.{page}").draw(st.session_state["session"])

    plan_hash = network.federation.bind(
        counting_plan(network.federation.data("interactions"), "seen by its owners only", 0.1)
    ).hash
    who = session(network, "scientist", auditors)
    north = dataclasses.replace(who, nodes={"north": who.nodes["north"]})
    page = AppTest.from_function(script, kwargs={"page": name}, default_timeout=300)
    page.session_state["session"] = north
    page.session_state["pages"] = {}
    page.query_params["plan"] = plan_hash
    page.run()
    assert not page.exception
    assert not page.dataframe
    assert page.error or page.warning


def test_an_owners_calls_are_refused_to_other_roles_by_the_node(network: Network) -> None:
    email, password = account_login(network.home.accounts, "north")
    node = log_in(network.federation.nodes["north"].url, email, password)
    calls: dict[str, dict[str, Any]] = {
        **{method: {} for method in ("members", "status", "load_report", "envelopes")},
        "weigh": {"plan_hash": "ab" * 32},
        "rules": {"dataset": "interactions"},
        "preview_rules": {"dataset": "interactions", "policy": ""},
        "write_rules": {"dataset": "interactions", "policy": "", "signature": ""},
    }
    for method, arguments in calls.items():
        with pytest.raises(NodeRefused):
            node.call(method, **arguments)


def test_a_node_that_takes_a_call_and_says_nothing_counts_as_down(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is waited for briefly from then on, until it answers again."""
    monkeypatch.setattr(dashboard.session, "PATIENCE_S", 0.2)
    monkeypatch.setattr(dashboard.session, "BRIEF_S", 0.1)
    known = network.federation.nodes["north"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        node = NodeClient("north", url, known._key, known.server_uid, known.node_key)
        for waited in ("0.2 s", "0.1 s"):
            with pytest.raises(NodeUnreachable, match=f"nothing whole within {waited}"):
                asked(node, "describe")
    monkeypatch.setattr(dashboard.session, "BRIEF_S", 60.0)
    monkeypatch.setitem(dashboard.session._SILENT, known.url, math.inf)
    asked(known, "describe")
    assert known.url not in dashboard.session._SILENT


def test_a_session_ends_when_it_is_idle(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    login = owner_login(network.home, "north")
    page = open_dashboard(monkeypatch, network.home, "north", *login)
    assert page.session_state["session"].role == "owner"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--idle-minutes", "0"])
    page.run()
    assert [button.label for button in page.button] == ["Sign in"]
    assert "session" not in page.session_state.filtered_state
    assert "Your session is over" in page.success[0].value


def test_a_session_lasts_as_long_as_it_was_started_with(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_dashboard(monkeypatch, network.home, "north", *owner_login(network.home, "north"))
    session = page.session_state["session"]
    assert session.expires - session.opened == timedelta(hours=8)


def test_through_the_hub_every_domain_lets_in_by_itself(network: Network) -> None:
    options = read_options(["--hub", "http://hub.example"])
    cards = {name: card_of(network.home.domain(name)) for name in network.names}
    email, password = account_login(network.home.accounts, "east")
    session = sign_in(options, email, {"east": password, "north": "wrong", "south": ""}, cards)
    assert (session.role, set(session.nodes)) == ("scientist", {"east"})
    assert "refused the login" in session.absent["north"]
    assert session.absent["south"] == "No password was given."


def test_a_domain_that_hangs_keeps_nobody_from_signing_in_elsewhere(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = read_options(["--hub", "http://hub.example"])
    cards = {name: card_of(network.home.domain(name)) for name in ("east", "south")}
    email, password = account_login(network.home.accounts, "east")

    def until_the_first(coming: Iterable[Future[Any]], patience: float) -> None:
        next(iter(coming)).result()

    monkeypatch.setattr(dashboard.session, "wait", until_the_first)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        cards["south"] = cards["south"].model_copy(update={"url": url})
        session = sign_in(options, email, {"east": password, "south": password}, cards)
    assert set(session.nodes) == {"east"}
    assert "does not answer" in session.absent["south"]


def test_an_owner_does_not_sign_in_through_a_page_that_others_run(network: Network) -> None:
    options = read_options(["--hub", "http://hub.example"])
    cards = {"east": card_of(network.home.domain("east"))}
    email, password = owner_login(network.home, "east")
    with pytest.raises(LoginFailed, match="their own domain's dashboard"):
        sign_in(options, email, {"east": password}, cards)
