"""What the engine's process can't do, tried by a process that is confined as it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from domains.confinement import ProbeFailed, Protection, clean_environment, probe, tried

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


REACHING = """
import fcntl, json, os, resource, signal, sys
from domains.confinement import confine

parent, (line, _) = os.getppid(), os.pipe()
off = [each.name for each in confine() if not each.on]
attempts = {
    "its limits": lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, (8, 8)),
    "its priority": lambda: os.setpriority(os.PRIO_PROCESS, parent, 19),
    "its processors": lambda: os.sched_setaffinity(parent, os.sched_getaffinity(parent)),
    "its schedule": lambda: os.sched_setscheduler(parent, os.SCHED_IDLE, os.sched_param(0)),
    "who hears of a pipe": lambda: fcntl.fcntl(line, fcntl.F_SETOWN, parent),
    "what a pipe signals": lambda: fcntl.fcntl(line, fcntl.F_SETSIG, signal.SIGKILL),
    "a signal": lambda: os.kill(parent, 0),
    "its session": os.setsid,
    "memory beside the limit": lambda: os.memfd_create("x"),
}
done = {}
for name, attempt in attempts.items():
    try:
        attempt()
    except PermissionError:
        continue
    done[name] = True
own = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, own)
print(json.dumps([off, sorted(done)]))
"""


def test_a_confined_process_reaches_its_parent_in_no_way() -> None:
    """The node may be its parent and run as the same user, as in a container."""
    answer = subprocess.run(
        [sys.executable, "-c", REACHING], capture_output=True, env=clean_environment(), check=True
    )
    off, reached = json.loads(answer.stdout)
    if "seccomp" in off:
        pytest.skip("no seccomp here")
    assert not reached
