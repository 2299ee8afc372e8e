"""What the engine's process can't do, tried by a process that is confined as it is."""

import sys
from pathlib import Path

import pytest

from domains.confinement import ProbeFailed, Protection, probe, tried

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "node.key"
    path.write_text("a key")
    path.chmod(0o600)
    return path


def test_a_confined_process_reaches_no_network_no_file_and_no_other_process(secret: Path) -> None:
    walls = {wall.name: wall for wall in probe(secret)}
    for name in ("network", "writing", "processes", "memory", "CPU time", "file size"):
        assert walls[name].on, walls[name]
    if not (walls["landlock"].on or walls["own user"].on):
        pytest.skip(f"no wall before other files here: {walls['other files'].detail}")
    assert walls["other files"].on, walls["other files"]
    assert not Path(f"{secret}.probe").exists()


def test_a_wall_that_gives_way_is_reported_whatever_was_said_of_it(secret: Path) -> None:
    said = [Protection(name, True, "said to stand") for name in ("other files", "writing")]
    for wall in tried(said, str(secret)):
        assert not wall.on
        assert "gave way" in wall.detail


def test_a_probe_without_an_answer_is_no_good_news(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ProbeFailed, match="did not answer"):
        probe(secret)
