"""Many processes, one budget, and kill -9: `benchmarks/ledger.py` in small, on both databases.

Its `storm` checks after every kill that the verifier agrees, that no accountant finds the budget
passed, and that nothing a process saw returned is lost.
"""

from pathlib import Path

import pytest

from benchmarks.ledger import CAP, RELEASES, storm
from tests.policies import postgres


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return postgres.new_database(request.getfixturevalue("postgres_server"))


def test_processes_killed_at_random_never_overspend_nor_forget(url: str) -> None:
    found = storm(url, plans=16, processes=8, kills=6, seed=1)
    assert found.kills == 6
    assert found.refused == 0
    assert found.steps["closed"] == 16
    # What was charged without being seen to return is charged once all the same.
    assert found.steps["charged"] <= 16 * RELEASES
    assert 0 < found.epsilon <= CAP
