"""A ledger to be tampered with, a fresh copy for each test."""

import json
import shutil
from pathlib import Path

import pytest

from tests.policies.tampering import Scene, honest_scene


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return honest_scene(tmp_path_factory.mktemp("honest"))


@pytest.fixture
def scene(honest: Scene, tmp_path: Path) -> Scene:
    shutil.copytree(honest.folder, tmp_path / "scene")
    bundle = json.loads(json.dumps(honest.bundle))
    return Scene(tmp_path / "scene", honest.north, list(honest.entries), bundle)
