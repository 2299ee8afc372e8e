"""An empty ledger, and those to be edited and tampered with."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from policies.approvals import owner_key_hex
from policies.ledger import Budget, Entry, Ledger
from policies.verify import verify
from tests.policies.edited_entries import NODE, fill
from tests.policies.one_ledger import DELTA, OWNER, node_key_hex, open_ledger
from tests.policies.tampering import Scene, honest_scene


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return honest_scene(tmp_path_factory.mktemp("honest"))


@pytest.fixture
def scene(honest: Scene, tmp_path: Path) -> Scene:
    shutil.copytree(honest.folder, tmp_path / "scene")
    bundle = json.loads(json.dumps(honest.bundle))
    return Scene(tmp_path / "scene", honest.north, list(honest.entries), bundle)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    """With a budget; whatever was done to it, its verifier agrees."""
    opened = open_ledger(path)
    opened.open_budget("shoppers", 8.0, DELTA)
    yield opened
    assert verify(path, node_key_hex(), owner_key_hex(OWNER)).problem == ""
    opened.dispose()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Budget, list[Entry]]:
    """A ledger's file, what it has spent and its entries; none is to be changed."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"
    ledger = Ledger(f"sqlite:///{path}", "alpha", NODE)
    budget, entries = fill(ledger), ledger.entries()
    ledger.dispose()
    return path, budget, entries


@pytest.fixture
def entries(original: tuple[Path, Budget, list[Entry]]) -> list[Entry]:
    return list(original[2])
