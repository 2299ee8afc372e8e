"""Nodes, the hub and dashboards as processes of this machine: start, find, stop."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import requests

from network.secrets import SECRETS, variable_of
from network.tls import secured

_SECRETS = (SECRETS, variable_of("node.key"), variable_of("database.url"))
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 60.0
_CHOSEN: list[socket.socket] = []


class ProcessError(Exception):
    """A process could not be started or stopped; the text says why and what to do."""


class AlreadyRunning(ProcessError):
    """It runs already."""


def hold(name: str, pid_file: Path) -> int:
    """Take `pid_file` for this process and whatever inherits the descriptor that is returned.

    The lock on it ends with the last process that has it open, so a number that the system gives
    to another process later is never mistaken for ours.

    Raises:
        AlreadyRunning: another process has it.
    """
    descriptor = os.open(pid_file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        pid = running(pid_file)
        raise AlreadyRunning(f"{name} runs already (process {pid}). Stop it first.") from None
    _write_pid(descriptor, os.getpid())
    return descriptor


def _write_pid(descriptor: int, pid: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(pid).encode(), 0)


def running(pid_file: Path) -> int | None:
    """The process that holds `pid_file`, or None if none does."""
    try:
        with pid_file.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return int(pid_file.read_text() or 0)
    return None


def start(
    name: str, command: Sequence[str], pid_file: Path, log: Path, host: str, port: int, probe: str
) -> subprocess.Popen:
    """Start a server process and wait until it answers.

    Args:
        command: arguments after the Python interpreter, e.g. `-m domains.node FOLDER`.
        probe: address that answers 200 when the process is ready.

    Raises:
        AlreadyRunning: its process is alive.
        ProcessError: the port is taken, or the process ended; with its last words.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    held = hold(name, pid_file)
    try:
        _require_free(name, host, port)
        with log.open("ab") as out:
            began = out.tell()
            process = _launch(command, out.fileno(), held)
        _write_pid(held, process.pid)
    finally:
        os.close(held)
    _wait_until_ready(name, process, log, began, probe)
    return process


def _launch(command: Sequence[str], log: int, held: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        pass_fds=(held,),
        env=_environment(),
    )


def stop(name: str, pid_file: Path) -> bool:
    """Ask the process to stop and wait until it has; False if it wasn't running."""
    pid = running(pid_file)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while running(pid_file) is not None:
        _reap(pid)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise ProcessError(f"{name} did not stop in {STOP_TIMEOUT_S:.0f} s and was killed.")
        time.sleep(0.05)
    return True


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _require_free(name: str, host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ProcessError(
                f"{name} can't listen on {host}:{port}: {error.strerror}. Stop what uses the port, "
                "or choose another in its TOML file."
            ) from None


def _wait_until_ready(
    name: str, process: subprocess.Popen, log: Path, began: int, url: str
) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ProcessError(f"{name} did not start: {_last_words(log, began)}")
        try:
            with requests.Session() as session:
                if secured(session, url).get(url, timeout=2).status_code == 200:
                    return
        except requests.RequestException:
            time.sleep(0.1)
    process.kill()
    raise ProcessError(f"{name} did not answer within {START_TIMEOUT_S:.0f} s. See {log}.")


def _last_words(log: Path, began: int) -> str:
    with log.open("rb") as file:
        file.seek(began)
        text = file.read().decode(errors="replace").strip()
    return text.splitlines()[-1] if text else f"it ended without a word. See {log}."


def _environment() -> dict[str, str]:
    """What a server process needs of this one's environment, and nothing else."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", *_SECRETS)
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return {**environment, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def free_ports(count: int) -> list[int]:
    """Ports of this machine on which nothing listens, kept for those who ask for them by number.

    They stay bound as long as this process lives, so that nobody is given one of them by chance
    (another server, the near end of a connection) before the server that it is chosen for listens,
    or while that is down. Servers set SO_REUSEADDR, which lets them have it all the same.
    """
    chosen = [socket.socket() for _ in range(count)]
    for each in chosen:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind(("127.0.0.1", 0))
    _CHOSEN.extend(chosen)
    return [each.getsockname()[1] for each in chosen]
