"""Fixtures shared by the rooms' tests."""

from collections.abc import Iterator

import pytest
import torch

from tests.network_of_three import Network

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Three partners, up for the whole test run; tests submit plans of their own."""
    created = Network.create(tmp_path_factory.mktemp("network"))
    yield created
    created.stop()
