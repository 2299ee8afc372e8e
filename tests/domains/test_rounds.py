"""A domain's rounds, as its own state machine goes through them, with its own ledger."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domains.coming_noise import ComingNoise
from domains.participation import Participation
from domains.refusals import RoundRefused
from network.smpc.coordination import SumAborted
from tests.domains.participating_domains import NAMES, Carried, Domains, domains_in


@pytest.fixture
def domains(tmp_path: Path) -> Domains:
    return domains_in(tmp_path)


def files_of(domains: Domains, name: str, kind: str) -> list[Path]:
    return sorted((domains.folder / name / "attempts").glob(f"*.{kind}"))


def test_a_round_opens_the_sum_of_all_domains(domains: Domains) -> None:
    assert domains.round().survivors == NAMES


def test_the_disk_holds_one_vector_of_a_run(domains: Domains) -> None:
    for release in range(3):
        domains.round(release)
        for name in NAMES:
            assert len(files_of(domains, name, "masked")) == 1
            assert not files_of(domains, name, "held"), "shares are erased once they are answered"
    with pytest.raises(RoundRefused, match="gone"):
        domains.parts["east"].revealed(domains.plan.hash, "s", 0, 0)


def test_a_charged_attempt_gives_the_same_bytes_after_a_kill(domains: Domains) -> None:
    carried = Carried(domains)
    seen: dict[str, Any] = {}

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = carried.exchange(phase, arguments)
        if phase == "reveal":
            for name in NAMES:
                domains.restart(name)
                domains.open(name)
                again = carried.ask(name, phase, arguments[name])
                assert again[0] == answers[name][0]
                np.testing.assert_array_equal(again[1], answers[name][1])
                seen[name] = again
        return answers

    carried.run(exchange)
    assert set(seen) == set(NAMES)


def test_an_attempt_s_noise_is_added_once_and_to_no_other_attempt(
    domains: Domains,
) -> None:
    plan = domains.plan
    first, again = np.zeros(8, np.int64), np.zeros(8, np.int64)
    noise = ComingNoise(plan, plan.steps[0])
    assert noise.add_to(first) == 8
    assert first.any()
    with pytest.raises(RoundRefused, match="noise is gone"):
        noise.add_to(again)
    given_up = ComingNoise(plan, plan.steps[0])
    given_up.erase()
    with pytest.raises(RoundRefused, match="noise is gone"):
        given_up.add_to(again)
    assert not again.any()


def test_two_attempts_of_a_release_carry_different_noise(tmp_path: Path) -> None:
    domains = domains_in(tmp_path, size=64)
    seen = []
    for attempt in (0, 1):
        carried = Carried(domains, attempt=attempt)
        adverts = [carried.ask(name, "advertise", None) for name in NAMES]
        carried.ask("east", "share", adverts)
        seen.append(carried.noised["east"] - domains.values["east"])
    assert seen[0].any()
    assert (seen[0] != seen[1]).any(), "a repeated attempt has noise of its own"


def test_a_run_at_work_is_not_freed_under_it(domains: Domains) -> None:
    """Opening one run frees those that ended, but never one that is in the middle of a step."""
    part = domains.parts["east"]
    (run,) = part._runs.values()
    cleared: list[str] = []
    run.tensors.clear = lambda: cleared.append("east")  # type: ignore[method-assign]
    domains.ledgers["east"].close(domains.plan.hash, "revoked")
    with run.lock:
        part._free_if_ended(run)
    assert not cleared
    part._free_if_ended(run)
    assert cleared == ["east"]


def test_a_run_whose_approval_ran_out_is_freed_too(domains: Domains) -> None:
    part = domains.parts["east"]
    (run,) = part._runs.values()
    cleared: list[str] = []
    run.tensors.clear = lambda: cleared.append("east")  # type: ignore[method-assign]
    part._free_if_ended(run)
    assert not cleared, "it can go on"
    run.approvals = {**run.approvals, "north": "no approval"}
    part._free_if_ended(run)
    assert cleared == ["east"]


def test_approvals_given_anew_let_a_run_go_on(domains: Domains) -> None:
    part = domains.parts["east"]
    (run,) = part._runs.values()
    run.approvals = {**run.approvals, "north": "ran out"}
    with pytest.raises(RoundRefused, match="north"):
        part.advertise(domains.plan.hash, "s", 0, 0)
    domains.open("east")
    part.advertise(domains.plan.hash, "s", 0, 0)


def test_two_attempts_of_a_release_never_both_open(domains: Domains) -> None:
    """The hub starts another attempt in the middle of one, then goes on with the first."""
    first = Carried(domains)
    stopped: dict[str, Any] = {}

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase == "unmask":
            stopped.update(arguments)
            return {}
        return first.exchange(phase, arguments)

    with pytest.raises(SumAborted):
        first.run(exchange)
    domains.round(attempt=1)
    for name in NAMES:
        with pytest.raises(Exception, match="given up"):
            first.ask(name, "unmask", stopped[name])


@pytest.mark.parametrize("release", [-1, 4, 2**31])
def test_releases_that_were_not_approved_are_refused(domains: Domains, release: int) -> None:
    part: Participation = domains.parts["east"]
    with pytest.raises(RoundRefused, match="approved releases"):
        part.advertise(domains.plan.hash, "s", release, 0)
