"""Fixtures shared by the rooms' tests."""

from collections.abc import Iterator

import pytest
import torch

from coterie import processes
from tests.network_of_three import Network
from tests.nursery import Nursery

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def nursery(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nodes and hubs are forked instead of waiting for Syft to be imported each time."""
    if not any(item.get_closest_marker("nodes") for item in request.session.items):
        yield
        return
    started = Nursery()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "_launch", started.launch)
        yield
    started.close()


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory, nursery: None) -> Iterator[Network]:
    """Three partners, up for the whole test run; tests submit plans of their own."""
    created = Network.create(tmp_path_factory.mktemp("network"))
    yield created
    created.stop()
