"""Starts engines quickly: forks each from a process that has loaded the program and nothing else.

Loading PyTorch takes seconds, and no round should wait for it. The launcher is started once, with a
clean environment, and stays as it was: plan, data and confinement come to its children only, each
through pipes of its own. When the node's end of its line closes, it ends.
"""

import fcntl
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from domains.confinement import clean_environment

_LONGEST_MESSAGE = 2**14
_FILES = 5
_PIPE_BYTES = 2**20


class LauncherFailed(RuntimeError):
    """No engine could be started; the text says why."""


@dataclass(frozen=True)
class EngineProcess:
    """A started engine.

    Attributes:
        pid: its process number.
        questions, answers: its standard input and output.
        launcher: who started it, and can end it.
    """

    pid: int
    questions: IO[bytes]
    answers: IO[bytes]
    launcher: "_Launcher"

    @property
    def alive(self) -> bool:
        """Whether the process still runs; one whose launcher died isn't used any more."""
        if self.launcher is not _launcher or not self.launcher.runs or self.answers.closed:
            return False
        output = select.poll()
        output.register(self.answers, 0)  # nobody else has its output, so it ends with it
        return not output.poll(0)

    def kill(self) -> None:
        """Kill it, if it still runs: whoever waits for its answer finds that it ended."""
        with suppress(LauncherFailed):
            _ask({"do": "end", "pid": self.pid}, ())

    def end(self) -> None:
        """Kill it, if it still runs, and close its pipes."""
        self.kill()
        self.answers.close()
        with suppress(BrokenPipeError):
            self.questions.close()


def launch(store: Path | None, log: int, *more: int) -> EngineProcess:
    """A new engine on the data set in `store`; None: a process that examines a plan, without data.

    Args:
        log: open file that its standard error goes to.
        more: open files that an engine has beside its pipes; see `domains.enclosure.serve`.

    Raises:
        LauncherFailed: it couldn't be started.
    """
    questions, ask = _wide_pipe()
    hear, answers = _wide_pipe()
    try:
        where = None if store is None else str(store)
        files = (questions, answers, log, *more)
        launcher, started = _ask({"do": "launch", "store": where}, files)
    except BaseException:
        os.close(ask)
        os.close(hear)
        raise
    finally:
        os.close(questions)
        os.close(answers)
    pid = int(started["pid"])
    return EngineProcess(pid, os.fdopen(ask, "wb"), os.fdopen(hear, "rb"), launcher)


def _wide_pipe() -> tuple[int, int]:
    """A pipe that takes more at a time: a vector's bytes then change sides less often."""
    ends = os.pipe()
    with suppress(OSError):  # beyond what this system allows
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ends


def warm_up() -> None:
    """Start loading now, in the background, so that the next engine starts at once."""
    with _turn:
        _running_launcher()


@dataclass(frozen=True)
class _Launcher:
    line: socket.socket
    process: subprocess.Popen[bytes]

    @property
    def runs(self) -> bool:
        return self.line.fileno() >= 0 and self.process.poll() is None


_turn = threading.Lock()
_launcher: _Launcher | None = None


def _ask(message: dict[str, Any], files: tuple[int, ...]) -> tuple[_Launcher, dict[str, Any]]:
    """Whom was asked, and what it answered."""
    with _turn:
        asked = _running_launcher()
        try:
            _send(asked.line, message, files)
            return asked, _receive(asked.line, 0)[0]
        except (OSError, EOFError):
            # Never asked again with the same pipes: a child might already read from them.
            asked.line.close()
            raise LauncherFailed(
                "The engine's process did not start; the machine may be out of memory. "
                "Start the next attempt."
            ) from None


def _running_launcher() -> _Launcher:
    global _launcher
    if _launcher is None or not _launcher.runs:
        ours, its = socket.socketpair()
        with its:
            process = subprocess.Popen(
                [sys.executable, "-m", "domains.launcher"],
                stdin=its.fileno(),
                env=clean_environment(),
                start_new_session=True,
            )
        _launcher = _Launcher(ours, process)
    return _launcher


def _send(line: socket.socket, message: dict[str, Any], files: tuple[int, ...]) -> None:
    text = json.dumps(message).encode()
    if len(text) > _LONGEST_MESSAGE:
        raise LauncherFailed("The data set's path is too long.")
    socket.send_fds(line, [len(text).to_bytes(4, "little") + text], files)


def _receive(line: socket.socket, files: int) -> tuple[dict[str, Any], list[int]]:
    content, found, *_ = socket.recv_fds(line, 4, files)
    while len(content) < 4 or len(content) < 4 + int.from_bytes(content[:4], "little"):
        missing = 4 - len(content) or int.from_bytes(content[:4], "little") + 4 - len(content)
        part = line.recv(missing) if content else b""
        if not part:
            raise EOFError("the other side ended")
        content += part
    return json.loads(content[4:]), found


class _Children:
    """The launcher's own side: engines by process number."""

    def __init__(self) -> None:
        self._running: set[int] = set()

    def start(self, line: socket.socket, store: str | None, files: list[int]) -> int:
        """Fork an engine; only the child never comes back from here."""
        pid = os.fork()
        if pid == 0:
            _become_engine(line, store, files)
        self._running.add(pid)
        return pid

    def end(self, pid: int) -> None:
        """Kill it, if it still runs; its number is free for others then."""
        if pid in self._running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._running.discard(pid)


def _become_engine(line: socket.socket, store: str | None, files: list[int]) -> None:
    from domains import enclosure, examination

    code = 1
    try:
        line.close()
        standard, more = files[:3], files[3:]
        for number, file in enumerate(standard):
            os.dup2(file, number)
            os.close(file)
        if store is None:
            examination.serve()
        else:
            enclosure.serve(Path(store), *more)
        code = 0
    except BaseException as error:
        # Its text may quote private values.
        os.write(2, f"the engine ended: {type(error).__name__}\n".encode())
    finally:
        os._exit(code)


def main() -> None:
    """Serve the node whose line is the standard input."""
    line = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    gc.disable()  # while torch loads, collecting finds nothing and takes a fifth of the time
    from domains.enclosure import load

    load()
    gc.freeze()  # and never write into the pages that the engines share
    gc.enable()
    children = _Children()
    while True:
        try:
            message, files = _receive(line, _FILES)
        except (EOFError, OSError):
            return
        if message["do"] == "launch":
            pid = children.start(line, message["store"], files)
            for file in files:
                os.close(file)
            _send(line, {"pid": pid}, ())
        else:
            children.end(message["pid"])
            _send(line, {}, ())


if __name__ == "__main__":
    main()
