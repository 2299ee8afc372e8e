"""A whole round beside NVFlare's and Flower's plain FedAvg, in the same run.

    OMP_NUM_THREADS=1 python -m benchmarks.round_peers --peer nvflare=PYTHON --peer flower=PYTHON

Each PYTHON has one of them, in an environment of its own (`pip install nvflare==2.9.0`,
`pip install flwr==1.41.0`). Three clients in processes of their own on loopback, 1,000,000 float32,
trivial local work. Ours is summed securely and noised (`benchmarks.round`); theirs is neither. All
run with their own defaults, which for both peers include polling. Wall and CPU of all processes per
round are medians after two to warm up; the CPU of what measures is in all of them.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.round import WARM_UP, parts_alone, whole_rounds
from coterie.processes import free_ports

_WAIT_S = 240
_FLOWER_APP = """
[project]
name = "round"
version = "1.0.0"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41.0"]

[tool.flwr.app]
publisher = "benchmark"
fab-format-version = 1
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "peer_flower:app"
clientapp = "peer_flower:client"
"""


class Peer:
    """Another system's processes, and the marks they leave at the end of each round."""

    def __init__(self, folder: Path, size: int, rounds: int) -> None:
        self.folder, self._rounds = folder, rounds
        self._marks = folder / "marks"
        self._environment = os.environ | {
            "PEER_SIZE": str(size), "PEER_ROUNDS": str(rounds), "PEER_MARKS": str(self._marks),
            "PEER_TOKEN": secrets.token_hex(8), "FLWR_HOME": str(folder),
            "FLWR_TELEMETRY_ENABLED": "0",
        }  # fmt: skip
        self._environment.pop("PYTHONPATH", None)

    @contextlib.contextmanager
    def running(self, *command: str) -> Iterator[subprocess.Popen]:
        """A process that ends with the block; what it prints goes to a log in the folder."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment, cwd=self.folder
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()

    def medians(self) -> dict[str, float]:
        """Wait until all rounds are marked: wall and CPU seconds of one."""
        until = time.monotonic() + _WAIT_S
        while not self._marks.exists() or len(self._marks.read_text().split("\n")) <= self._rounds:
            if time.monotonic() > until:
                raise SystemExit((self.folder / "log").read_text()[-2000:])
            time.sleep(0.2)
        marks = np.array([json.loads(line) for line in self._marks.read_text().splitlines()])
        wall, cpu = np.median(np.diff(marks[WARM_UP - 1 :], axis=0), axis=0)
        return {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3)}


def nvflare(python: str, folder: Path, size: int, rounds: int) -> dict[str, float]:
    """Its simulator: the server, and a process for each of three clients."""
    peer = Peer(folder, size, rounds)
    script = str(Path(__file__).with_name("peer_nvflare.py"))
    with peer.running(python, script, str(folder / "workspace"), str(rounds)):
        return peer.medians()


def flower(python: str, folder: Path, size: int, rounds: int) -> dict[str, float]:
    """Its SuperLink, three SuperNodes, and the app on them."""
    peer = Peer(folder, size, rounds)
    link, *nodes = free_ports(4)
    app = folder / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(_FLOWER_APP)
    (app / "LICENSE").write_text("Apache-2.0\n")
    for name in ("peer_flower.py", "peer_marks.py"):
        shutil.copy(Path(__file__).with_name(name), app)
    (folder / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{link}"\n'
        "insecure = true\n"
    )
    programs = Path(python).parent
    peer._environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    at = ("--insecure", "--host", "127.0.0.1", "--port")
    with contextlib.ExitStack() as stack:
        offline = "--disable-runtime-dependency-installation"
        superlink = (str(programs / "flower-superlink"), *at, str(link), offline)
        stack.enter_context(peer.running(*superlink))
        _listens(link)
        for port in nodes:
            supernode = (str(programs / "flower-supernode"), *at, str(port))
            stack.enter_context(peer.running(*supernode, "--superlink", f"127.0.0.1:{link}"))
        started = stack.enter_context(peer.running(str(programs / "flwr"), "run", str(app), "here"))
        if started.wait(_WAIT_S):
            raise SystemExit((folder / "log").read_text()[-3000:])
        return peer.medians()


def _listens(port: int) -> None:
    until = time.monotonic() + _WAIT_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise SystemExit(f"Nothing listens on port {port}.")


def ours(folder: Path, size: int, rounds: int) -> dict[str, Any]:
    """See `benchmarks.round`."""
    step, found = whole_rounds(folder / "home", size, rounds)
    alone = parts_alone(step, rounds)
    ratio = round(found["wall_s"] / sum(alone.values()), 2)
    return {**found, "alone_s": alone, "over_parts_alone": ratio}


_PEERS = {"nvflare": nvflare, "flower": flower}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON",
                        help="nvflare or flower, and the interpreter that has it")  # fmt: skip
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = ours(Path(folder), options.size, options.rounds)
    print(json.dumps({"system": "coterie, summed securely, noised", **found}))
    for name, python in (each.split("=", 1) for each in options.peer):
        with tempfile.TemporaryDirectory() as folder:
            theirs = _PEERS[name](python, Path(folder), options.size, options.rounds)
        ratios = {f"{k}_over_ours": round(theirs[k] / found[k], 2) for k in ("wall_s", "cpu_s")}
        print(json.dumps({"system": f"{name}, plain FedAvg", **theirs, **ratios}))


if __name__ == "__main__":
    main()
