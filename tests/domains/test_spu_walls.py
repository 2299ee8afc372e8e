"""What SPU's process can't do: tried by a program that takes its place."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from domains.comparing import free_ports
from domains.confinement import clean_environment, probe

_TRIES = """
import json, os, socket, sys
from pathlib import Path

folder = Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())


def done(attempt):
    try:
        attempt()
    except ConnectionRefusedError:
        return True  # it left the process
    except OSError:
        return False
    return True


def listens(port):
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        line.bind(("127.0.0.1", port))
        line.listen()


def reaches(port):
    with socket.socket() as line:
        line.settimeout(60)
        line.connect(("127.0.0.1", port))


secret = Path(job["secret"])
tries = {
    "own folder": lambda: (folder / "more").write_text("x"),
    "the share": lambda: sys.stdin.buffer.read(),
    "own port": lambda: listens(int(job["addresses"][0].rpartition(":")[2])),
    "a local port": lambda: listens(job["ports"][1]),
    "a partner": lambda: reaches(int(job["addresses"][2].rpartition(":")[2])),
    "another file": secret.read_bytes,
    "another file, written": lambda: secret.with_name("made").write_text("x"),
    "another folder": lambda: os.listdir(secret.parent),
    "another port": lambda: reaches(job["other"]),
    "another port, listening": lambda: listens(job["other"]),
    "the node's process": lambda: os.kill(os.getppid(), 0),
    "privileges": lambda: os.setuid(12345),
}
found = {name: done(attempt) for name, attempt in tries.items()}
(folder / "result").write_text(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")
def test_spus_process_reaches_its_folder_and_the_parties_ports_alone(tmp_path: Path) -> None:
    folder, secret, party = tmp_path / "folder", tmp_path / "node" / "node.key", tmp_path / "try.py"
    for each in (folder, secret.parent):
        each.mkdir()
    secret.write_text("a key")
    party.write_text(_TRIES)
    landlock = {wall.name: wall for wall in probe(secret)}["landlock"]
    if not landlock.on or int(landlock.detail.split("version ")[1].split(":")[0]) < 6:
        pytest.skip(f"the walls before files, ports and processes: {landlock.detail}")
    numbers = free_ports(7)
    job = {"rank": 0, "addresses": [f"127.0.0.1:{port}" for port in numbers[:3]],
           "ports": numbers[3:6], "other": numbers[6], "secret": str(secret)}  # fmt: skip
    (folder / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "domains.spu_walls", sys.executable, str(party), str(folder)]
    subprocess.run(command, input=b"share", env=clean_environment(), check=True, timeout=250)
    found = json.loads((folder / "result").read_text())
    open_to_it = {"own folder", "the share", "own port", "a local port", "a partner"}
    assert {name for name, done in found.items() if done} == open_to_it
