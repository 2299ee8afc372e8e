"""Accounts that expire or are ended, and partners that are unpinned: from the next call on."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from coterie.cli import app
from coterie.partners import invite, open_owner, pin_peer, unpin_peer
from domains.accounts import Accounts, AccountsError, Term
from domains.folder import public_hex
from network.client import LoginFailed, NodeClient, NodeRefused, log_in
from network.federation import read_accounts
from network.gate import API
from network.passwords import why_weak
from network.training import RunInterrupted
from tests.network_of_three import Network, counting_plan

KEY = "a" * 64


def test_a_term_is_over_when_its_time_has_come() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    term = Term("ada@university.example", now.isoformat())
    assert term.why_ended(now - timedelta(seconds=1)) is None
    assert "expired" in str(term.why_ended(now))


def test_terms_outlive_a_restart(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path / "accounts.json")
    assert accounts.why_ended(KEY) is None, "an account without a term lasts"
    accounts.renew(KEY, "ada@university.example", 1)
    assert accounts.why_ended(KEY) is None
    accounts.end(KEY, "ada@university.example", "left")
    for found in (accounts, Accounts(tmp_path / "accounts.json")):
        assert "ended" in str(found.why_ended(KEY))
    assert (tmp_path / "accounts.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("days", [0, -1, 3651, 2**70, True, 1.5, "3"])
def test_a_term_has_a_sensible_length(days: object, tmp_path: Path) -> None:
    with pytest.raises(AccountsError):
        Accounts(tmp_path / "accounts.json").renew(KEY, "a@b.example", days)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "password",
    ["", "short", "aaaaaaaaaaaaaaaa", "ababababababab", "x" * 80, "adalovelace1", "é" * 40],
)
def test_weak_passwords_are_refused(password: str) -> None:
    assert why_weak(password, "adalovelace@university.example") is not None


@given(st.text())
def test_what_is_taken_is_long_enough_and_hashed_whole(password: str) -> None:
    if why_weak(password, "") is None:
        assert len(password) >= 12
        assert len(password.encode()) <= 72


def invited(network: Network, tmp_path: Path, email: str, **more: object) -> NodeClient:
    file = tmp_path / f"{email}.json"
    invite(network.home, "east", email, "scientist", file, **more)  # type: ignore[arg-type]
    account = read_accounts(file)["east"]
    return log_in(account.url, account.email, account.password, account.node_key)


@pytest.mark.nodes
def test_an_expelled_scientist_and_her_plans_are_out_at_once(
    network: Network, tmp_path: Path
) -> None:
    node = invited(network, tmp_path, "mary@left.example")
    account = read_accounts(tmp_path / "mary@left.example.json")["east"]
    bound = network.federation.bind(
        counting_plan(network.federation.data("interactions"), "hers", 0.1)
    )
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from policies.approvals import sign_submission

    key = Ed25519PrivateKey.generate()
    author = key.public_key().public_bytes_raw().hex()
    plan = type(bound).model_validate({**bound.model_dump(), "scientist": author})
    signature = sign_submission(key, plan.hash, node.verify_key)
    assert json.loads(node.call("submit", plan=plan.to_json(), signature=signature))["new"]

    home = ["--home", str(network.home.path)]
    arguments = ["domain", "expel", "east", "--email", account.email, "--reason", "left", *home]
    assert "1 open plans ended" in CliRunner().invoke(app, arguments).output
    with pytest.raises(NodeRefused, match="ended this account"):
        node.call("describe")
    with pytest.raises(LoginFailed):
        log_in(account.url, account.email, account.password)
    listing = requests.get(
        f"{account.url}{API}/api",
        params={"verify_key": node.verify_key.upper(), "communication_protocol": "dev"},
        timeout=120,
    )
    assert listing.status_code == 401
    owner = open_owner(network.home, "east")
    assert owner.show(plan.hash)["status"] not in ("pending", "awaiting signature", "approved")

    again = invited(network, tmp_path, account.email, again=True)
    assert again.verify_key != node.verify_key
    assert "datasets" in json.loads(again.call("describe"))
    with pytest.raises(NodeRefused, match=r"no account|ended"):
        node.call("describe")


@pytest.mark.nodes
def test_the_owners_password_does_not_give_the_nodes_key(network: Network) -> None:
    """A login is answered with the account's key; the owner's isn't what the node signs by."""
    owner = open_owner(network.home, "east").node
    node_key = public_hex(network.home.domain("east").node_key())
    assert owner.node_key == node_key != owner.verify_key
    assert json.loads(owner.call("describe"))["node_key"] == node_key


@pytest.mark.nodes
def test_members_are_listed_and_renewed(network: Network, tmp_path: Path) -> None:
    invited(network, tmp_path, "grace@navy.example", days=1)
    home = ["--home", str(network.home.path)]
    renewed = CliRunner().invoke(
        app, ["domain", "renew", "east", "--email", "grace@navy.example", "--days", "400", *home]
    )
    assert renewed.exit_code == 0, renewed.output
    listed = CliRunner().invoke(app, ["domain", "members", "east", "--json", *home])
    found = {m["email"]: m for m in json.loads(listed.output)}
    left = datetime.fromisoformat(found["grace@navy.example"]["until"]) - datetime.now(UTC)
    assert 399 <= left.days <= 400
    assert found["owner@east.example"]["until"] is None
    nobody = CliRunner().invoke(
        app, ["domain", "renew", "east", "--email", "no@one.example", *home]
    )
    assert nobody.exit_code == 4
    owners = ["domain", "expel", "east", "--email", "owner@east.example", "--reason", "x", *home]
    assert CliRunner().invoke(app, owners).exit_code == 4


@pytest.mark.nodes
def test_rounds_with_a_partner_that_was_unpinned_are_refused_in_the_middle_of_a_run(
    network: Network, tmp_path: Path
) -> None:
    plan = counting_plan(network.federation.data("interactions"), "with a partner gone", 0.3)
    network.submit_and_approve(plan)
    east = network.home.domain("east")
    pinned = east.settings().peers["north"]
    releases = []

    def leave(progress: object) -> None:
        releases.append(progress)
        if len(releases) == 1:
            unpin_peer(east, "north")

    try:
        with pytest.raises((RunInterrupted, NodeRefused), match="pinned"):
            network.federation.train(plan, tmp_path / "run", leave)
    finally:
        pin_peer(east, "north", pinned.node_key, pinned.owner_key)
    assert len(releases) == 1
    assert network.federation.train(plan, tmp_path / "run").finished


@pytest.mark.nodes
def test_status_says_who_cosigned_what(network: Network) -> None:
    home = ["--home", str(network.home.path)]
    result = CliRunner().invoke(app, ["domain", "status", "east", "--json", *home])
    found = json.loads(result.output)
    assert found["version"]
    assert found["up_minutes"] >= 0
    assert set(found["peers"]) == {"north", "south"}
    assert found["peers"]["north"]["cosigned"] > 0
    assert {"interactions", "open-data"} <= set(found["data_sets"])
    shown = CliRunner().invoke(app, ["domain", "status", "east", *home])
    assert "co-signed" in shown.output
