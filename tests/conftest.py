"""Fixtures shared by the rooms' tests."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

from coterie import processes
from tests.network_of_three import Network
from tests.nursery import Nursery
from tests.policies.postgres import MISSING, programs, running_postgres

torch.set_num_threads(1)
# The same examples every time, however long they take: no test passes or fails by chance or speed.
settings.register_profile(
    "coterie", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("coterie")


# Long ones first, so that no process of tests is left alone with them at the end.
LONGEST = (
    "test_resilience",
    "test_demo",
    "test_visitors",
    "test_members",
    "test_browser",
    "test_auditor",
    "test_main_job",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then those with nodes, then the rest; a file stays together."""
    with_nodes = {item.path for item in items if item.get_closest_marker("nodes")}

    def place(item: pytest.Item) -> tuple[int, bool]:
        name = item.path.stem
        first = LONGEST.index(name) if name in LONGEST else len(LONGEST)
        return first, item.path not in with_nodes

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def nursery(request: pytest.FixtureRequest) -> Iterator[Nursery | None]:
    """Nodes and hubs are forked instead of waiting for Syft to be imported each time."""
    if not any(item.get_closest_marker("nodes") for item in request.session.items):
        yield None
        return
    started = Nursery()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "_launch", started.launch)
        yield started
    started.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a Postgres, up for the whole test run; each test takes a database of its own."""
    if programs() is None:
        pytest.skip(MISSING)
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Network]:
    """Three partners, up for the whole test run; tests submit plans of their own."""
    created = Network.create(tmp_path_factory.mktemp("network"))
    yield created
    created.stop()
