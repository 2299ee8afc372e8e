"""A domain's rounds, as its own state machine goes through them, with its own ledger."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domains.answering import REFUSALS
from domains.participation import Participation
from domains.refusals import RoundRefused
from network.smpc.agreement import agreement_of
from network.smpc.attempt import NoSuchAttempt
from network.smpc.coordination import Coordinator, SumAborted
from network.smpc.messages import SharingRefused
from policies.ledger.errors import HeadRefused, LedgerUnavailable
from tests.domains.participating_domains import NAMES, STATE, Carried, Domains, domains_in


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


def test_a_total_can_be_opened_until_the_next_attempt_is_shared(domains: Domains) -> None:
    """So the next one may begin before what was opened is kept."""
    carried, following = Carried(domains), Carried(domains, 1)
    told: dict[str, Mapping[str, Any]] = {}
    begun: dict[str, Any] = {}

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        told[phase] = arguments
        if phase == "unmask":
            begun.update(following.exchange("advertise", dict.fromkeys(NAMES)))
        return carried.exchange(phase, arguments)

    total = carried.run(exchange).total
    again = Coordinator(carried.agreement, carried.exchange).finish(carried.begun)
    np.testing.assert_array_equal(again.total, total)
    adverts = Coordinator(following.agreement, following.exchange).begin().adverts
    assert {each.domain: each for each in adverts} == begun, "begun once, whoever asks again"
    with pytest.raises(RoundRefused, match="gone"):
        carried.ask("east", "reveal", told["reveal"]["east"])


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


def test_nothing_is_revealed_or_charged_once_the_noise_is_gone(domains: Domains) -> None:
    carried = Carried(domains)
    adverts = [carried.ask(name, "advertise", None) for name in NAMES]
    sealed = [each for name in NAMES for each in carried.ask(name, "share", adverts)]
    attempt = domains.parts["east"]._open_runs.of(domains.plan.hash).attempt
    assert attempt is not None
    assert attempt.noise is not None
    attempt.noise.erase()
    # As if its noise were still awaited.
    attempt.summed, attempt.value = attempt.noise.taken, None
    for _ in range(2):
        with pytest.raises(RoundRefused, match="noise is gone"):
            carried.ask("east", "reveal", [s for s in sealed if s.receiver == "east"])
    states = [tuple(each) for each in domains.ledgers["east"].attempts(domains.plan.hash)]
    assert states == [("s", 0, 0, "reserved")]


def test_what_could_not_be_charged_neither_leaves_nor_is_opened(
    domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The masked input is on the disk, the charge is not: asked again, it is charged and given."""
    carried, ledger, told = Carried(domains), domains.ledgers["east"], dict[str, Any]()

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase == "reveal":
            told.update(arguments)
            with monkeypatch.context() as full:
                full.setattr(ledger, "charge", unavailable)
                with pytest.raises(LedgerUnavailable):
                    carried.ask("east", phase, arguments["east"])
            assert files_of(domains, "east", "masked")
            steps = (lambda: carried.domains.parts["east"].revealed(*carried.where),
                     lambda: carried.ask("east", "confirm", []),
                     lambda: carried.ask("east", "unmask", []))  # fmt: skip
            for step in steps:
                with pytest.raises(RoundRefused, match="nothing was revealed"):
                    step()
            states = [state for *_, state in ledger.attempts(domains.plan.hash)]
            assert states == ["reserved"]
        return carried.exchange(phase, arguments)

    opened = carried.run(exchange)
    given = [carried.noised[name] for name in opened.survivors]
    np.testing.assert_array_equal(opened.total, np.sum(given, axis=0))
    assert [state for *_, state in ledger.attempts(domains.plan.hash)] == ["charged"]


def test_nothing_is_opened_before_every_other_domain_has_co_signed(domains: Domains) -> None:
    carried = Carried(domains)

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase == "unmask":
            signed, carried.signed = carried.signed, {"south": carried.signed["south"]}
            with pytest.raises(HeadRefused, match="north: it has not co-signed"):
                carried.ask("east", phase, arguments["east"])
            carried.signed = signed
        return carried.exchange(phase, arguments)

    assert carried.run(exchange).survivors == NAMES


def unavailable(*_: object) -> None:
    raise LedgerUnavailable("the disk is full")


def test_what_was_only_shared_when_a_node_stopped_is_given_back(domains: Domains) -> None:
    carried = Carried(domains)
    adverts = [carried.ask(name, "advertise", None) for name in NAMES]
    sealed = [each for name in NAMES for each in carried.ask(name, "share", adverts)]
    domains.restart("east")
    domains.open("east")
    with pytest.raises(RoundRefused, match="may have restarted"):
        carried.ask("east", "reveal", [s for s in sealed if s.receiver == "east"])
    states = [state for *_, state in domains.ledgers["east"].attempts(domains.plan.hash)]
    assert states == ["void"]
    assert domains.round(attempt=1).survivors == NAMES


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
    (run,) = part._open_runs
    cleared: list[str] = []
    run.tensors.clear = lambda: cleared.append("east")  # type: ignore[method-assign]
    domains.ledgers["east"].close(domains.plan.hash, "revoked")
    with run.lock:
        part._open_runs._free_if_ended(run)
    assert not cleared
    part._open_runs._free_if_ended(run)
    assert cleared == ["east"]


def test_a_run_whose_approval_ran_out_is_freed_too(domains: Domains) -> None:
    part = domains.parts["east"]
    (run,) = part._open_runs
    cleared: list[str] = []
    run.tensors.clear = lambda: cleared.append("east")  # type: ignore[method-assign]
    part._open_runs._free_if_ended(run)
    assert not cleared, "it can go on"
    run.approvals = {**run.approvals, "north": "no approval"}
    part._open_runs._free_if_ended(run)
    assert cleared == ["east"]


def test_approvals_given_anew_let_a_run_go_on(domains: Domains) -> None:
    part = domains.parts["east"]
    (run,) = part._open_runs
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


def test_what_was_said_in_one_release_is_refused_in_the_next(domains: Domains) -> None:
    """A hub hands each domain, in each step, what it was told in the release before."""
    earlier: dict[str, Mapping[str, Any]] = {}
    first, second = Carried(domains), Carried(domains, 1)

    def listen(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        earlier[phase] = dict(arguments)
        return first.exchange(phase, arguments)

    def mix(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        for name in NAMES if phase != "advertise" else ():
            with pytest.raises(SharingRefused):
                second.ask(name, phase, earlier[phase][name])
        return second.exchange(phase, arguments)

    first.run(listen)
    opened = second.run(mix)
    given = [second.noised[name] for name in opened.survivors]
    np.testing.assert_array_equal(opened.total, np.sum(given, axis=0))


def test_two_hubs_that_run_one_attempt_open_one_sum(domains: Domains) -> None:
    """The second one begins where the first one is, with other words for the same numbers."""
    one, other = Carried(domains), Carried(domains)

    def meddle(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = one.exchange(phase, arguments)
        for name in NAMES:
            if phase == "advertise":
                assert other.ask(name, phase, None) == answers[name], "no second pair of keys"
            if phase == "share":
                with pytest.raises(RoundRefused, match="was used"):
                    other.ask(name, "advertise", None)
                with pytest.raises(RoundRefused, match="shared already"):
                    other.ask(name, phase, arguments[name])
            if phase == "reveal":
                again = one.ask(name, phase, arguments[name][:1])
                assert again[0] == answers[name][0], "charged and signed once"
                np.testing.assert_array_equal(again[1], answers[name][1])
            if phase == "confirm":
                with pytest.raises(SharingRefused):
                    one.ask(name, phase, arguments[name][:2])
        return answers

    opened = one.run(meddle)
    given = [one.noised[name] for name in NAMES]
    np.testing.assert_array_equal(opened.total, np.sum(given, axis=0))
    for name in NAMES:
        states = [state for *_, state in domains.ledgers[name].attempts(domains.plan.hash)]
        assert states == ["charged"]


@pytest.mark.parametrize("release", [-1, 4, 2**31])
def test_releases_that_were_not_approved_are_refused(domains: Domains, release: int) -> None:
    part: Participation = domains.parts["east"]
    with pytest.raises(RoundRefused, match="approved releases"):
        part.advertise(domains.plan.hash, "s", release, 0)


@pytest.mark.parametrize(
    ("step", "release", "attempt"),
    [("s", 0, -1), ("s", 0, 2**31), ("s", 0, 2**32), ("s", -1, 0), ("s", 2**32, 0), ("", 0, 0),
     ("x" * 65, 0, 0), ("\x00", 0, 0), ("unknown", 0, 0)],
    ids=["attempt -1", "attempt 2^31", "attempt 2^32", "release -1", "release 2^32", "no name",
         "a long name", "an unprintable name", "another step"],
)  # fmt: skip
def test_every_step_of_an_attempt_that_can_t_be_is_refused_in_words(
    domains: Domains, step: str, release: int, attempt: int
) -> None:
    part, where = domains.parts["east"], (domains.plan.hash, step, release, attempt)
    asked: dict[str, Callable[[], object]] = {
        "advertise": lambda: part.advertise(*where),
        "share": lambda: part.share(*where, [], STATE, {}),
        "reveal": lambda: part.reveal(*where, [], {}),
        "masked": lambda: part.revealed(*where),
        "confirm": lambda: part.confirm(*where, []),
        "unmask": lambda: part.unmask(*where, [], {}),
    }
    for ask in asked.values():
        with pytest.raises(REFUSALS):
            ask()
    with pytest.raises(NoSuchAttempt):
        agreement_of(domains.plan, step, release, attempt)
    assert domains.ledgers["east"].attempts(domains.plan.hash) == []
    assert domains.round().survivors == NAMES, "nothing is stuck"


def test_who_may_not_take_part_any_longer_gets_nothing_more(domains: Domains) -> None:
    """Asked at every call: also when a dealer's triples come, for a hub that listed us since."""
    part, plan_hash = domains.parts["east"], domains.plan.hash
    with part.tensors(plan_hash):
        pass
    domains.objections["east"] = "the dealer is a hub"
    with pytest.raises(RoundRefused, match="the dealer is a hub"), part.tensors(plan_hash):
        pass
    with pytest.raises(RoundRefused, match="the dealer is a hub"):
        part.advertise(plan_hash, domains.plan.steps[0].name, 0, 0)
