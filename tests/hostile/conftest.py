"""One running node, attacked by everybody in turn."""

from collections.abc import Iterator

import pytest

from coterie.partners import invite
from network.client import log_in
from network.federation import read_accounts
from tests.hostile.attacks import Target
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
    yield Target(network, node, clients["auditor"], clients["scientist"])
    assert "node_key" in node.call("describe"), "the node outlives every attack"
