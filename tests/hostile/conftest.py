"""One running node, attacked by everybody in turn, and a server that attacks its callers."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from coterie.partners import invite
from network.client import log_in
from network.federation import read_accounts
from tests.hostile.attacks import Target, processor_seconds
from tests.hostile.villain import Villain
from tests.network_of_three import Network


@pytest.fixture(scope="session")
def target(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("accounts")
    clients = {}
    for role, email in (("auditor", "eve@audit.example"), ("scientist", "rita@rival.example")):
        invite(network.home, "east", email, role, folder / f"{role}.json")
        account = read_accounts(folder / f"{role}.json")["east"]
        clients[role] = log_in(account.url, account.email, account.password, account.node_key)
    node = network.federation.nodes["east"]
    found = Target(network, node, clients["auditor"], clients["scientist"])
    before = effort(found)
    yield found
    assert "node_key" in node.call("describe"), "the node outlives every attack"
    # Not a bar of speed: after the attacks the node must not be left busy or swollen.
    assert effort(found) < 5 * before + 0.5, "its calls cost what they did before"
    read_logs(found, folder)


def effort(target: Target) -> float:
    """The processor seconds that the node needs for one of some small calls: the median."""
    took = []
    for _ in range(9):
        began = processor_seconds(target)
        target.node.call("describe")
        took.append(processor_seconds(target) - began)
    return statistics.median(took)


def read_logs(target: Target, accounts: Path) -> None:
    """The log of the whole run is JSON, line by line, and holds no key, password or row."""
    home = target.network.home
    domain = home.domain("east")
    text = domain.log_file.read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    assert any("request" in entry for entry in entries), "refusals carry their request's id"
    assert not any(entry["event"] == "approved" for entry in entries), "no line was forged"
    secret = [domain.node_key_hex(), json.loads(home.owner_login("east").read_text())["password"]]
    secret += [read_accounts(file)["east"].password for file in accounts.glob("*.json")]
    secret += [read_accounts(home.accounts)["east"].password]
    for client in (target.node, target.auditor, target.rival):
        secret.append(str(client._key))
        secret.append(client._key.signing_key.encode().hex())
    secret += home.owner_key("east").read_text().splitlines()[1:-1]
    rows = (domain.datasets / "interactions" / "data").glob("*.csv")
    secret += [line.split(",")[0] for file in rows for line in file.read_text().splitlines()[1:]]
    assert len(secret) > 100
    for each in set(secret):
        assert each not in text, "a secret or a private value is in the log"


@pytest.fixture
def villain() -> Iterator[Villain]:
    found = Villain()
    found.describe()
    yield found
    found.server.shutdown()
    found.server.server_close()
