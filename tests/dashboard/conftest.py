"""What every test of the pages needs."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coterie.partners import invite
from tests.dashboard.visiting import WATCHER
from tests.network_of_three import NAMES, Network, counting_plan


@pytest.fixture(autouse=True)
def main_module() -> Iterator[None]:
    """Streamlit's AppTest puts the page in place of `__main__`, which new processes import."""
    kept = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = kept


@pytest.fixture(scope="session")
def auditors(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One auditor's accounts at every domain."""
    file = tmp_path_factory.mktemp("watcher") / "accounts.json"
    for name in NAMES:
        invite(network.home, name, WATCHER, "auditor", file)
    return file


@pytest.fixture(scope="session")
def ran(network: Network) -> str:
    """A plan whose run lies on this machine."""
    plan = counting_plan(network.federation.data("interactions"), "shown on pages", 0.3, releases=2)
    plan_hash = network.submit_and_approve(plan)
    network.federation.train(plan, network.home.runs / plan_hash[:16])
    return plan_hash
