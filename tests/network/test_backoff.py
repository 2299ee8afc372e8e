"""Wrong passwords make wait, and no restart, success or mass of names gives fresh guesses."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from network import backoff
from network.backoff import LoginBackoff
from network.limits import Limits, TooMuch
from tests.network.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(logins: LoginBackoff, account: str = "ada", address: str = "10.0.0.1") -> float:
    """A wrong password; gives how long it has to wait, 0 if it was tried."""
    try:
        with logins.attempt(account, address):
            return 0.0
    except TooMuch as error:
        return error.wait_s


def test_wrong_passwords_make_wait_twice_as_long_each_time(tmp_path: Path, clock: Clock) -> None:
    logins = LoginBackoff(tmp_path / "logins.db", Limits(), clock)
    waits = []
    for _ in range(20):
        wait = fail(logins)
        if wait:
            waits.append(wait)
            clock.now += wait
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) <= Limits().longest_wait_s
    with logins.attempt("eve", "10.0.0.1") as passed:
        passed()
    clock.now += 1000
    with logins.attempt("ada", "10.0.0.1") as passed:
        passed()
    assert [fail(logins) for _ in range(Limits().free_failures)] == [0] * 5
    assert fail(logins) > 0


def test_one_address_can_not_try_many_accounts(tmp_path: Path, clock: Clock) -> None:
    logins = LoginBackoff(tmp_path / "logins.db", Limits(), clock)
    for number in range(Limits().free_failures_per_address):
        assert fail(logins, f"user {number}") == 0
        with logins.attempt("her own", "10.0.0.2") as passed:
            passed()
    assert fail(logins, "another") > 0
    assert fail(logins, "another", "10.0.0.3") == 0


def test_a_login_of_her_own_buys_nobody_guesses(tmp_path: Path, clock: Clock) -> None:
    logins = LoginBackoff(tmp_path / "logins.db", Limits(), clock)
    for number in range(Limits().free_failures_per_address):
        assert fail(logins, f"user {number}") == 0
        if number < Limits().free_failures_per_address - 2:
            with logins.attempt("her own", "10.0.0.1") as passed:
                passed()
    assert fail(logins, "another") > 0


def test_a_killed_process_remembers_what_it_counted(tmp_path: Path) -> None:
    """Counted in a process that is killed within its last attempt."""
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from network.backoff import LoginBackoff; from network.limits import Limits\n"
        "logins = LoginBackoff(Path(sys.argv[1]), Limits(), lambda: 1000.0)\n"
        "for left in range(4, -1, -1):\n"
        "    with logins.attempt('ada', '10.0.0.1'):\n"
        "        if not left: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    file = tmp_path / "logins.db"
    ended = subprocess.run([sys.executable, "-c", code, str(file)], env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    clock = Clock()
    assert fail(LoginBackoff(file, Limits(), clock)) == 1
    clock.now += 1
    logins = LoginBackoff(file, Limits(), clock)
    assert fail(logins) == 0, "after its wait the next one is tried"
    assert fail(logins) == 2, "and the wait doubles"
    assert file.stat().st_mode & 0o777 == 0o600


def test_quiet_time_is_forgiven_and_a_clock_set_back_locks_nobody_out(
    tmp_path: Path, clock: Clock
) -> None:
    logins = LoginBackoff(tmp_path / "logins.db", Limits(), clock)
    for _ in range(5):
        fail(logins)
    clock.now -= 10**6
    assert 0 < fail(logins) <= Limits().longest_wait_s
    clock.now += 10**6 + 1 + 3 * Limits().longest_wait_s
    assert [fail(logins) for _ in range(4)] == [0, 0, 0, 1]


def test_names_in_masses_push_nobody_out_who_has_to_wait(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "_MOST_NAMES", 50)
    file = tmp_path / "logins.db"
    logins = LoginBackoff(file, Limits(), clock)
    for _ in range(5):
        fail(logins)
    for number in range(200):
        fail(logins, f"user {number}", f"10.0.1.{number}")
    assert fail(logins) > 0
    (kept,) = logins._file.execute("SELECT COUNT(*) FROM failure").fetchone()
    assert kept == 50


def test_neither_names_nor_addresses_are_in_the_file(tmp_path: Path, clock: Clock) -> None:
    logins = LoginBackoff(tmp_path / "logins.db", Limits(), clock)
    fail(logins, "a password typed into the wrong field")
    logins.close()
    found = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"typed" not in found
    assert b"10.0.0.1" not in found
