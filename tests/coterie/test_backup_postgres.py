"""A node and a ledger on Postgres: killed, backed up, restored, and read by the commands."""

import json
import os
import signal
from pathlib import Path

import pytest
import requests
import syft as sy
from click.testing import Result
from syft.client.api import SyftAPICall
from syft.serde.serialize import _serialize
from typer.testing import CliRunner

import coterie as ct
from coterie.addresses import url_of
from coterie.backup import RestoreRefused, back_up, restore
from coterie.cli import app
from coterie.home import Home
from coterie.partners import (
    create_domain,
    domain_status,
    invite,
    start_domain,
    stop_domain,
)
from coterie.processes import running
from domains.folder import public_hex
from network.client import API, LoginFailed, NodeClient, NodeRefused, log_in
from network.federation import read_accounts
from network.streams import STREAMS, write_call
from policies.ledger import Ledger
from policies.verify import verify
from tests.network_of_three import create_partner
from tests.policies.postgres import new_database


def home_url(home: Home) -> str:
    return url_of(home.domain("north").settings())


def signed_call(client: NodeClient) -> tuple[str, bytes]:
    """What a plain Syft client sends: a call without a time, as it passes on the wire."""
    call = SyftAPICall(server_uid=client.server_uid, path="coterie.describe", args=[], kwargs={})
    return f"{API}/api_call", bytes(_serialize(call.sign(client._key), to_bytes=True))


def signed_stream(client: NodeClient) -> tuple[str, bytes]:
    key, server = client._key.signing_key, str(client.server_uid)
    return f"{STREAMS}/describe", write_call(key, server, "coterie.describe", {})


def taken(url: str, path: str, blob: bytes) -> bool:
    """Whether a node carries out a message that somebody recorded."""
    answer = requests.post(f"{url}{path}", data=blob, timeout=120)
    assert answer.status_code == 200
    return b"interactions" in answer.content


def test_the_ledger_commands_read_a_ledger_on_postgres(
    postgres_server: str, tmp_path: Path
) -> None:
    home, url = Home(tmp_path / "home"), new_database(postgres_server)
    create_domain(home, "north", "127.0.0.1", 8101, database_url=url)

    def ledger(*words: str) -> Result:
        here = ("--domain", "north", "--home", str(home.path))
        return CliRunner().invoke(app, ("ledger", *words, *here))

    assert "has no ledger yet" in ledger("heads").output
    folder = home.domain("north")
    opened = Ledger(folder.ledger_url, "north", folder.node_key())
    opened.open_budget("people", 8.0, 1e-5)
    opened.dispose()
    verified = ledger("verify", "--json")
    assert json.loads(verified.stdout)["entries"] == 2, verified.output
    assert json.loads(ledger("heads").stdout)["witness"] == "north"
    assert json.loads(ledger("prove", "2").stdout)["entry"]["kind"] == "budget"
    exported = ledger("export", "--out", str(tmp_path / "audit"))
    assert exported.exit_code == 0, exported.output
    assert verify(tmp_path / "audit" / "north-ledger.json").ok
    assert url.split(":")[2].split("@")[0] not in exported.output


@pytest.mark.nodes
def test_a_node_on_postgres_survives_a_kill_and_comes_back_from_a_back_up(
    postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    url = new_database(postgres_server)
    create_partner(home, "north", database_url=url)
    start_domain(home, "north", None)
    try:
        invite(home, "north", "ada@university.example", "scientist", home.accounts)
        before = domain_status(home, "north")["budgets"]
        for _ in range(5):
            with pytest.raises(LoginFailed):
                log_in(home_url(home), "eve@brute.example", "a wrong password")
        pid = running(home.domain("north").pid_file)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        start_domain(home, "north", None)
        account = read_accounts(home.accounts)["north"]
        ada = log_in(account.url, account.email, account.password, account.node_key)
        assert [d["name"] for d in json.loads(ada.call("describe"))["datasets"]] == ["interactions"]
        assert domain_status(home, "north")["budgets"] == before
        said = ""
        # Fewer than are free to somebody new: one has to wait for what was counted before the kill.
        for _ in range(4):
            with pytest.raises(LoginFailed) as refused:
                log_in(home_url(home), "eve@brute.example", "another guess")
            said += str(refused.value)
        assert "Too many wrong passwords" in said
        back_up(home, "north", tmp_path / "north.tar")
        answered = signed_call(ada), signed_stream(ada)
        assert all(taken(ada.url, *each) for each in answered)
        assert not any(taken(ada.url, *each) for each in answered)
    finally:
        stop_domain(home, "north")
    password = url.split(":")[2].split("@")[0]
    assert password not in home.domain("north").log_file.read_text()

    fresh = new_database(postgres_server)
    with pytest.raises(RestoreRefused, match="isn't empty"):
        restore(Home(tmp_path / "third"), "north", tmp_path / "north.tar")
    third = Home(tmp_path / "third")
    monkeypatch.setenv("COTERIE_DATABASE_URL", fresh)
    restore(third, "north", tmp_path / "north.tar")
    assert verify(fresh, public_hex(third.domain("north").node_key())).ok
    start_domain(third, "north", None)
    try:
        assert not any(taken(ada.url, *each) for each in answered), "answered before the restore"
        with pytest.raises(NodeRefused, match="names another server"):
            ada.call("describe")
        log_in(account.url, account.email, account.password, account.node_key).call("describe")
        ct.pin_node(account.url, str(account.node_key))
        plain = sy.login(url=account.url, email=account.email, password=account.password)
        assert plain.datasets.get_all()[0].name == "interactions"
    finally:
        stop_domain(third, "north")
