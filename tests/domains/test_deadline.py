"""A deadline ends who hasn't answered, and never who has, however close it is."""

import threading

import pytest

from domains.deadline import Deadline, DeadlinePassed


def test_who_has_answered_is_not_ended_by_a_deadline_that_passes_at_once_after() -> None:
    ended: list[bool] = []
    deadline = Deadline(1e9, lambda: ended.append(True))
    with deadline:
        pass
    deadline.passes()
    assert not ended


def test_who_has_not_is_ended_once_and_an_answer_at_that_moment_does_not_count() -> None:
    ended: list[bool] = []
    deadline = Deadline(1e9, lambda: ended.append(True))
    with pytest.raises(DeadlinePassed), deadline:
        deadline.passes()
    deadline.passes()
    assert ended == [True]


def test_time_is_told_by_the_clock_while_the_block_waits() -> None:
    ended = threading.Event()

    def wait() -> None:
        with Deadline(0.01, ended.set):
            assert ended.wait(120)
            raise EOFError

    with pytest.raises(DeadlinePassed):
        wait()
