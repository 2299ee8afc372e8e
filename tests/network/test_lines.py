"""Nobody waits for a node beyond a deadline, whatever it does with the line."""

import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest
from syft.server.credentials import SyftSigningKey
from syft.types.uid import UID

from network.client import NodeClient
from network.lines import Lines
from network.rounds import RoundAborted, run_attempt
from network.streams import MAX_OCTETS_BYTES
from tests.policies.test_plan import changed


def test_what_is_answered_in_time_is_kept_and_the_rest_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck = threading.Event()

    def over_when_north_alone_is_missing(asked: Iterable[Future], timeout: float) -> Any:
        east, north, south = asked
        wait([east, south])
        return wait([east, north, south], 0)

    with Lines() as lines:
        with monkeypatch.context() as patch:
            patch.setattr("network.lines.wait", over_when_north_alone_is_missing)
            answers = lines.ask({"east": lambda: 1, "north": stuck.wait, "south": _fail}, 0.2)
        assert answers["east"] is not None
        assert answers["east"].result() == 1
        assert answers["north"] is None
        assert isinstance(answers["south"].exception(), KeyError)  # type: ignore[union-attr]
        again = lines.ask({"north": lambda: 2}, 120)["north"]
        assert again is not None, "a name that was given up gets another thread"
        assert again.result() == 2
    stuck.set()


def _fail() -> None:
    raise KeyError("south")


class Dribbler:
    """A node that answers a byte of its headers twice a second, for ever."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while not self._over.is_set():
                line, _ = self._listener.accept()
                threading.Thread(target=self._dribble, args=(line,), daemon=True).start()

    def _dribble(self, line: socket.socket) -> None:
        with contextlib.suppress(OSError), line:
            line.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self._over.wait(0.5):
                line.sendall(b"a")

    def close(self) -> None:
        self._over.set()
        self._listener.close()


@pytest.fixture
def dribbler() -> Iterator[Dribbler]:
    found = Dribbler()
    yield found
    found.close()


class Boaster:
    """A node that announces an answer of so many bytes, sends none of them and stays there."""

    def __init__(self, size: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lines: list[socket.socket] = []
        self._head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                self._lines.append(line)
                line.sendall(self._head)

    def close(self) -> None:
        self._listener.close()
        for line in self._lines:
            line.close()


def test_an_answer_above_16_mib_is_refused_by_its_announced_length(tmp_path: Path) -> None:
    """None of its bytes comes, so whoever took memory for it or waited would miss the deadline."""
    boaster, plan = Boaster(MAX_OCTETS_BYTES + 1), changed(deadline_s=300)
    nodes = {
        entry.name: NodeClient(
            entry.name, boaster.url, SyftSigningKey.generate(), UID(), entry.node_key
        )
        for entry in plan.roster
    }
    with (
        contextlib.closing(boaster),
        pytest.raises(RoundAborted, match=f"longer than {1 + 16 * 2**20} bytes") as aborted,
    ):
        run_attempt(nodes, plan, plan.steps[0].name, 0, 0, b"", tmp_path)
    assert (aborted.value.phase, aborted.value.lost) == ("advertise", False)


def test_a_node_that_dribbles_is_given_up_and_named(dribbler: Dribbler, tmp_path: Path) -> None:
    """Its socket is never silent for long, so no timeout of the socket ends this."""
    plan = changed(deadline_s=1)
    nodes = {
        entry.name: NodeClient(
            entry.name, dribbler.url, SyftSigningKey.generate(), UID(), entry.node_key
        )
        for entry in plan.roster
    }
    with pytest.raises(RoundAborted, match="nothing whole within 1 s") as aborted:
        run_attempt(nodes, plan, plan.steps[0].name, 0, 0, b"", tmp_path)
    assert (aborted.value.phase, aborted.value.lost) == ("advertise", True)
    assert aborted.value.domain in {entry.name for entry in plan.roster}
