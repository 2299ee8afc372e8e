"""Processes that start at once: forked from one that has imported what they import.

Importing Syft and PyTorch takes seconds and the tests start some fifty nodes. The nursery runs the
very module that `coterie domain up` would run, with the same arguments, environment, log and lock;
only the interpreter isn't new. So it is with the launcher of a node's engines, forked before the
node knows anything. What a newcomer runs, `coterie demo`, is tested without it.
"""

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

from coterie import processes

SERVERS = ("domains.node", "network.hub")
LOADED = (
    "domains.accounts",
    "domains.dataset",
    "domains.desk",
    "domains.mock",
    "domains.participation",
    "domains.service",
    "domains.witness",
    "network.connections",
    "network.gate",
    "syft.server.datasite",
    "syft.server.gateway",
    "syft.store.db.postgres",
)
_CHILD_SUBREAPER = 36
_FILES = 2


class Nursery:
    """The process that forks; one for each process of tests.

    However that ends, its line to the nursery closes, and the nursery ends what still runs of all
    that it started. It has a session of its own, so that it outlives whoever is ended as a group.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._line, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.nursery"],
                stdin=its.fileno(),
                start_new_session=True,
                env=processes._environment(),
            )

    def launch(self, command: Sequence[str], log: int, held: int) -> "Forked":
        """In place of `coterie.processes._launch`."""
        if tuple(command[:2]) in {("-m", server) for server in SERVERS}:
            command = command[1:]
        return self.run(command, log, held, environment=processes._environment())

    def run(self, command: Sequence[str], *files: int, environment: Mapping[str, str]) -> "Forked":
        """Run a module as `python -m` does.

        Args:
            command: the module's name and its arguments; or those of a new interpreter, if the
                first is an option.
            files: what it writes to first, then what it inherits.
        """
        message = json.dumps({"command": list(command), "environment": dict(environment)})
        with self._turn, _Adopting():
            socket.send_fds(self._line, [message.encode()], files)
            return Forked(int(self._line.recv(32)))

    def close(self) -> None:
        self._line.close()
        self._process.wait()


class _Adopting:
    """While this is open, processes whose parent ends become children of this one.

    So a forked node has the parent that it would have without the nursery, which can wait for it.
    """

    def __enter__(self) -> None:
        self._set(1)

    def __exit__(self, *_: object) -> None:
        self._set(0)

    @staticmethod
    def _set(value: int) -> None:
        if ctypes.CDLL(None, use_errno=True).prctl(_CHILD_SUBREAPER, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


class Forked:
    """A started process, as much of `subprocess.Popen` as its starter needs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        try:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return 0
        return os.waitstatus_to_exitcode(status) if ended else None

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def _import_all() -> None:
    """What the servers import by and by; nothing of it is started here."""
    import torch

    from domains import enclosure, examination

    gc.disable()
    for module in LOADED:
        importlib.import_module(module)
    torch.set_num_threads(1)
    enclosure._load_lazy_parts()
    examination.prepare()
    gc.freeze()
    gc.enable()


def _become(message: dict, output: int) -> None:
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if message["command"][0].startswith("-"):
        new = [sys.executable, *message["command"]]
        os.execve(sys.executable, new, message["environment"])
    os.environ.clear()
    os.environ.update(message["environment"])
    if message["command"][0] == "domains.node":
        _fork_launcher()
    sys.argv = message["command"]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _fork_launcher() -> None:
    """The launcher that this process will find started when it asks for the first engine."""
    from domains import confinement, launcher

    ours, its = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.dup2(its.fileno(), 0)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            os.environ.clear()
            os.environ.update(confinement.clean_environment())
            launcher.main()
        finally:
            os._exit(0)
    its.close()
    launcher._launcher = launcher._Launcher(ours, Forked(child))  # type: ignore[arg-type]


def _orphan() -> int | None:
    """Fork a process whose parent is gone already; its number, or None in the process itself."""
    hear, say = os.pipe()
    between = os.fork()
    if between == 0:
        child = os.fork()
        if child == 0:
            os.close(hear)
            os.close(say)
            return None
        os.write(say, str(child).encode())
        os._exit(0)
    os.close(say)
    with os.fdopen(hear) as answer:
        os.waitpid(between, 0)
        return int(answer.read(32))


def _end(started: Sequence[int]) -> None:
    """End what still runs; a descriptor means its process alone, also when its number is reused."""
    for process in started:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)


def main() -> None:
    """Fork a process for each message on the line, until it closes; then end them all."""
    line, started = socket.socket(fileno=os.dup(0)), list[int]()
    _import_all()
    while True:
        content, files, *_ = socket.recv_fds(line, 2**16, _FILES)
        if not content:
            return _end(started)
        child = _orphan()
        if child is None:
            line.close()
            for process in started:
                os.close(process)
            return _become(json.loads(content), files[0])
        started.append(os.pidfd_open(child))
        line.send(str(child).encode())
        for file in files:
            os.close(file)


if __name__ == "__main__":
    main()
