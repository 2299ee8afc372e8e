"""Nodes, the hub and dashboards as processes of this machine: start, find, stop."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import requests

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0


class ProcessError(Exception):
    """A process could not be started or stopped; the text says why and what to do."""


class AlreadyRunning(ProcessError):
    """It runs already."""


def running(pid_file: Path) -> int | None:
    """The process id in `pid_file` if that process is alive, else None."""
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    except PermissionError:
        return pid
    return None if _is_zombie(pid) else pid


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def start(
    name: str, command: Sequence[str], pid_file: Path, log: Path, host: str, port: int, probe: str
) -> subprocess.Popen:
    """Start a server process and wait until it answers.

    Args:
        command: arguments after the Python interpreter, e.g. `-m domains.node FOLDER`.
        probe: path that answers 200 when the process is ready.

    Raises:
        AlreadyRunning: its process is alive.
        ProcessError: the port is taken, or the process ended; with its last words.
    """
    pid = running(pid_file)
    if pid is not None:
        raise AlreadyRunning(f"{name} runs already (process {pid}). Stop it first.")
    _require_free(name, host, port)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        began = out.tell()
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env=_environment(),
        )
    _wait_until_ready(name, process, log, began, f"http://{_reachable(host)}:{port}{probe}")
    return process


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
            if requests.get(url, timeout=2).status_code == 200:
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


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host


def _environment() -> dict[str, str]:
    """What a server process needs of this one's environment, and nothing else."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return {**environment, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def free_ports(count: int) -> list[int]:
    """Ports that nothing on this machine listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()
