"""An attempt's noise: drawn once, for it alone, and given up whole."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from domains import coming_noise, noised
from domains.coming_noise import ComingNoise
from domains.refusals import RoundRefused
from tests.domains.participating_domains import NAMES, Carried, Domains, domains_in


@pytest.fixture
def domains(tmp_path: Path) -> Domains:
    return domains_in(tmp_path)


def test_an_attempt_s_noise_is_added_once_and_to_no_other_attempt(
    domains: Domains,
) -> None:
    plan = domains.plan
    noise = ComingNoise(plan, plan.steps[0])
    assert noise.taken().any()
    with pytest.raises(RoundRefused, match="noise is gone"):
        noise.taken()
    given_up = ComingNoise(plan, plan.steps[0])
    given_up.erase()
    with pytest.raises(RoundRefused, match="noise is gone"):
        given_up.taken()


@pytest.mark.parametrize("at_a_time", [3, 4, 100])
def test_noise_in_parts_is_on_each_number_once_and_nowhere_else(
    domains: Domains, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    width, drawn = domains.plan.steps[0].width, []

    def counted(size: int, *_: object) -> NDArray[np.int64]:
        drawn.append(size)
        return np.full(size, len(drawn), dtype=np.int64)

    monkeypatch.setattr(coming_noise, "noise_share", counted)
    monkeypatch.setattr(coming_noise, "_AT_A_TIME", at_a_time)
    taken = ComingNoise(domains.plan, domains.plan.steps[0]).taken()
    assert sum(drawn) == width
    assert taken.tolist() == [1 + place // at_a_time for place in range(width)]


@pytest.mark.parametrize("most", [0, 1, 5, 2**21])
def test_numbers_beyond_those_drawn_ahead_are_noised_too(
    domains: Domains, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    huge = 10**15
    monkeypatch.setattr(coming_noise, "MOST", most)
    monkeypatch.setattr(noised, "MOST", most)
    monkeypatch.setattr(coming_noise, "_AT_A_TIME", max(1, most // 2))
    monkeypatch.setattr(coming_noise, "noise_share", lambda size, *_: np.full(size, huge))
    monkeypatch.setattr(noised, "add_noise_share", lambda part, *_: part + huge)
    carried = Carried(domains)
    adverts = [carried.ask(name, "advertise", None) for name in NAMES]
    carried.ask("east", "share", adverts)
    attempt = domains.parts["east"]._open_runs.of(domains.plan.hash).attempt
    assert attempt is not None
    assert (np.rint(attempt.noised() / huge) == 1).all()


def batch_if_allowed() -> int:
    """How the system schedules a thread that asked to be a batch; some sandboxes refuse."""

    def asks() -> int:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        return os.sched_getscheduler(0)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asks).result()


def test_noise_is_drawn_by_threads_that_interrupt_no_call(
    domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def seen(size: int, *_: object) -> NDArray[np.int64]:
        found.append(os.sched_getscheduler(0))
        return np.ones(size, dtype=np.int64)

    monkeypatch.setattr(coming_noise, "noise_share", seen)
    ComingNoise(domains.plan, domains.plan.steps[0]).taken()
    assert found == [batch_if_allowed()]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_noise_given_up_while_it_is_drawn_is_never_added_in_part(
    domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, going_on = threading.Event(), threading.Event()

    def slow(size: int, *_: object) -> NDArray[np.int64]:
        begun.set()
        assert going_on.wait(120)
        return np.ones(size, dtype=np.int64)

    monkeypatch.setattr(coming_noise, "noise_share", slow)
    noise = ComingNoise(domains.plan, domains.plan.steps[0])
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(noise.taken)
        assert begun.wait(120)
        noise.erase()
        going_on.set()
        with pytest.raises(RoundRefused, match="noise is gone"):
            adding.result()


def test_noise_given_up_before_a_thread_is_free_is_never_drawn(
    domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on, drawn = threading.Event(), []

    def slow(size: int, *_: object) -> NDArray[np.int64]:
        drawn.append(size)
        assert going_on.wait(120)
        return np.ones(size, dtype=np.int64)

    monkeypatch.setattr(coming_noise, "noise_share", slow)
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(coming_noise, "_DRAWING", pool)
        first, *others = (ComingNoise(domains.plan, domains.plan.steps[0]) for _ in range(9))
        for other in others:
            other.erase()
        going_on.set()
        assert first.taken().all()
    assert len(drawn) == 1
