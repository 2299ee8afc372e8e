"""Engines start from one process that has loaded the program, and from nothing else."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from domains import launcher
from domains.frames import read_frame, write_frame
from domains.launcher import EngineProcess, launch
from domains.sums import Sums


@pytest.fixture
def log(tmp_path: Path) -> Iterator[int]:
    with (tmp_path / "engine.log").open("wb") as file:
        yield file.fileno()


@pytest.fixture
def memory() -> Iterator[int]:
    sums = Sums(1)
    yield sums.fileno()
    sums.close()


def ended(engine: EngineProcess) -> bool:
    """Its answers close when it ends, whoever ended it."""
    return engine.answers.read() == b""


def opened_by(engine: EngineProcess, log: int) -> list[str]:
    """What it holds open once it waits for its plan.

    Its standard output goes to the log from then on; before, its files are still being moved.
    """
    folder = Path(f"/proc/{engine.pid}/fd")
    while (folder / "1").readlink() != Path(f"/proc/self/fd/{log}").readlink():
        assert engine.alive
    return [os.readlink(file) for file in folder.iterdir()]


def test_each_engine_is_a_process_of_its_own(tmp_path: Path, log: int, memory: int) -> None:
    first, second = launch(tmp_path, log, memory), launch(tmp_path, log, memory)
    assert first.pid != second.pid
    first.end()
    assert not first.alive
    assert second.alive
    second.end()
    assert not second.alive


def test_an_engine_holds_its_own_pipes_and_no_line_to_others(
    tmp_path: Path, log: int, memory: int
) -> None:
    first, second = launch(tmp_path, log, memory), launch(tmp_path, log, memory)
    held = [opened_by(engine, log) for engine in (first, second)]
    assert not [each for of in held for each in of if each.startswith("socket:")]
    pipes = [{each for each in of if each.startswith("pipe:")} for of in held]
    assert [len(each) for each in pipes] == [2, 2]
    assert not pipes[0] & pipes[1]
    first.questions.close()
    assert ended(first), "nobody else holds the pipe that tells it to end"
    second.end()


def test_a_killed_launcher_is_replaced_and_its_engines_are_not_used_again(
    tmp_path: Path, log: int, memory: int
) -> None:
    before = launch(tmp_path, log, memory)
    assert launcher._launcher is not None
    os.kill(launcher._launcher.process.pid, signal.SIGKILL)
    launcher._launcher.process.wait()
    assert not before.alive
    after = launch(tmp_path, log, memory)
    assert after.alive
    after.end()
    before.end()


def test_nothing_is_left_when_the_node_is_killed(tmp_path: Path) -> None:
    node = subprocess.Popen(
        [sys.executable, "-c", LAUNCHES_AND_WAITS, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert node.stdout is not None
    assert node.stdout.readline() == b"started\n"
    node.kill()
    assert node.stdout.read() == b"", "launcher and engine held the node's output open"
    node.wait()


LAUNCHES_AND_WAITS = """
import sys
from pathlib import Path
from domains.launcher import launch
from domains.sums import Sums
sums = Sums(1)
engine = launch(Path(sys.argv[1]), 1, sums.fileno())
print("started", flush=True)
sys.stdin.read()
import time
time.sleep(600)
"""


def test_an_engine_that_is_told_nonsense_ends_without_a_word_of_it(
    tmp_path: Path, log: int, memory: int
) -> None:
    engine = launch(tmp_path, log, memory)
    write_frame(engine.questions, {"plan_hash": "secret"}, {})
    with pytest.raises(EOFError):
        read_frame(engine.answers)
    engine.end()
    assert (tmp_path / "engine.log").read_text() == "the engine ended: FileNotFoundError\n"
