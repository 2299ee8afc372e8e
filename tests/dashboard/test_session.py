"""Signed in at real nodes: the node says the role, and the role decides the pages."""

import secrets
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from coterie.owner import ROLES
from coterie.partners import invite
from dashboard.app import PAGES
from network.client import NodeRefused, log_in
from tests.dashboard.signed_in import account_login, open_dashboard, owner_login
from tests.network_of_three import Network

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


def test_an_owners_calls_are_refused_to_other_roles_by_the_node(network: Network) -> None:
    email, password = account_login(network.home.accounts, "north")
    node = log_in(network.federation.nodes["north"].url, email, password)
    for method in ("members", "status", "load_report", "envelopes"):
        with pytest.raises(NodeRefused):
            node.call(method)


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
