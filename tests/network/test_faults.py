"""Every domain dropped, delayed, doubled, reordered or killed at every message of a sum.

Each cell ends with the right sum over at least tau survivors, or with no sum at all; then the next
attempt succeeds, and over both no domain masked two vectors with the same piece of keystream. Under
CKKS the key holder is needed in every step, and everybody whose ciphertexts were collected in
`confirm`. A hub that is killed at any message goes on with what it kept.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from network.smpc import aggregation
from network.smpc.aggregation import OutOfTurn
from network.smpc.ckks.coordination import CkksCoordinator
from network.smpc.ckks.messages import key_holder
from network.smpc.coordination import Coordinator, SumAborted
from network.smpc.messages import SharingRefused
from tests.network.keystreams import Recorder
from tests.network.roster_of_domains import PHASES, Domains

FAULTS = ("request lost", "answer lost", "delayed", "doubled", "reordered", "killed before",
          "killed after", "killed after, asked again")  # fmt: skip
ROSTERS = {3: (3, 1), 8: (6, 2)}
SILENT = {"request lost", "answer lost", "delayed", "killed before", "killed after"}


class FaultyWire:
    """A hub that means well, over a wire and nodes that fail once."""

    def __init__(self, domains: Domains, victim: str, phase: str, fault: str) -> None:
        self.domains, self.victim, self.phase, self.fault = domains, victim, phase, fault
        self.late: tuple[str, Any] | None = None
        self.gone = False

    def exchange(self, phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers: dict[str, Any] = {}
        for name, argument in arguments.items():
            answer = self.deliver(name, phase, argument)
            if answer is not None:
                answers[name] = answer
        if self.late is not None and phase != self.phase:
            self.domains_ask(self.victim, *self.late)
            self.late = None
        return answers

    def deliver(self, name: str, phase: str, argument: Any) -> Any:
        if name != self.victim:
            return self.domains_ask(name, phase, argument)
        if phase != self.phase:
            return None if self.gone else self.domains_ask(name, phase, argument)
        return getattr(self, self.fault.replace(" ", "_").replace(",", ""))(name, phase, argument)

    def domains_ask(self, name: str, phase: str, argument: Any) -> Any:
        try:
            return self.domains.ask(name, phase, argument)
        except (SharingRefused, OutOfTurn):
            return None

    def request_lost(self, name: str, phase: str, argument: Any) -> None:
        self.gone = True

    def answer_lost(self, name: str, phase: str, argument: Any) -> None:
        self.domains_ask(name, phase, argument)
        self.gone = True

    def delayed(self, name: str, phase: str, argument: Any) -> None:
        self.late, self.gone = (phase, argument), True

    def doubled(self, name: str, phase: str, argument: Any) -> Any:
        first = self.domains_ask(name, phase, argument)
        again = self.domains_ask(name, phase, argument)
        assert same(first, again), "asked twice, a domain gives the same answer"
        return again

    def reordered(self, name: str, phase: str, argument: Any) -> Any:
        later = PHASES[(PHASES.index(phase) + 1) % len(PHASES)]
        if later != "advertise":
            assert self.domains_ask(name, later, []) is None, "a step out of turn is refused"
        return self.domains_ask(name, phase, argument)

    def killed_before(self, name: str, phase: str, argument: Any) -> None:
        self.kill()
        self.gone = True

    def killed_after(self, name: str, phase: str, argument: Any) -> None:
        self.domains_ask(name, phase, argument)
        self.kill()
        self.gone = True

    def killed_after_asked_again(self, name: str, phase: str, argument: Any) -> Any:
        self.domains_ask(name, phase, argument)
        self.kill()
        return self.domains_ask(name, phase, argument)

    def kill(self) -> None:
        self.domains.parties[self.victim] = self.domains.restarted(self.victim)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(aggregation, "apply", recorder.apply)
    return recorder


@pytest.mark.parametrize("count", ROSTERS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_one_domain_gives_a_wrong_sum(
    count: int, phase: str, fault: str, recorder: Recorder
) -> None:
    domains = Domains(count, *ROSTERS[count])
    for victim in list(domains.keys):
        wire = FaultyWire(domains.attempt(0), victim, phase, fault)
        opened = outcome(domains, wire)
        expected = expectation(count, phase, fault)
        if opened is None:
            assert expected == "abort"
        else:
            assert expected == "sum"
            np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))
            assert len(opened.survivors) >= domains.threshold
    again = domains.attempt(1).run()
    np.testing.assert_array_equal(again.total, domains.sum_of(tuple(sorted(domains.keys))))
    assert recorder.used


@pytest.mark.parametrize("count", ROSTERS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_gives_a_wrong_sum_under_ckks(count: int, phase: str, fault: str) -> None:
    domains = Domains(count, *ROSTERS[count], aggregation="ckks")
    holder = key_holder(domains.agreement)
    other = next(name for name in domains.keys if name != holder)
    for victim in (holder, other):
        wire = FaultyWire(domains.attempt(0), victim, phase, fault)
        opened = outcome(domains, wire)
        assert (opened is None) == ckks_aborts(count, phase, fault, victim == holder)
        if opened is not None:
            np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))
            assert len(opened.survivors) >= domains.threshold
    again = domains.attempt(1).run()
    np.testing.assert_array_equal(again.total, domains.sum_of(tuple(sorted(domains.keys))))
    assert key_holder(domains.agreement) != holder, (
        "a failed attempt's key holder isn't asked again"
    )


@pytest.mark.parametrize("aggregation", ["smpc", "ckks"])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("heard", [False, True], ids=["before", "after"])
def test_a_hub_killed_at_any_step_goes_on_with_what_it_kept(
    aggregation: str, phase: str, heard: bool, recorder: Recorder
) -> None:
    """Before the domains were asked, or when they had answered; they are asked for the same again,
    and what they say in the end is the sum."""
    domains = Domains(3, 3, 1, aggregation=aggregation)
    kind: Any = Coordinator if aggregation == "smpc" else CkksCoordinator
    kept: list[Any] = []

    def until_killed(asked: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = domains.exchange(asked, arguments) if heard or asked != phase else {}
        if asked == phase:
            raise KeyboardInterrupt
        return answers

    def run(hub: Any) -> None:
        kept.append(hub.begin())
        hub.finish(kept[0])

    with pytest.raises(KeyboardInterrupt):
        run(kind(domains.agreement, until_killed))
    hub = kind(domains.agreement, domains.exchange)
    begun = type(kept[0]).from_dict(kept[0].to_dict()) if kept else hub.begin()
    opened = hub.finish(begun)
    np.testing.assert_array_equal(opened.total, domains.sum_of(tuple(sorted(domains.keys))))
    assert not domains.refusals


@pytest.mark.parametrize("fallen", range(4))
def test_at_most_n_minus_tau_domains_may_fall_at_any_steps(fallen: int) -> None:
    domains = Domains(8, 6, 2)
    random = np.random.default_rng(fallen)
    for trial in range(6):
        lost = dict(zip(random.choice(8, fallen, replace=False), random.choice(5, 8), strict=False))
        domains.attempt(trial)

        def exchange(phase: str, arguments: Mapping[str, Any], lost: dict = lost) -> dict[str, Any]:
            step = PHASES.index(phase)
            alive = {n: a for n, a in arguments.items() if step < lost.get(int(n[-1]), 9)}
            return domains.exchange(phase, alive)

        if fallen > 2:
            with pytest.raises(SumAborted):
                domains.run(exchange)
        else:
            opened = domains.run(exchange)
            np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))
            assert len(opened.survivors) >= 6


def expectation(count: int, phase: str, fault: str) -> str:
    """At three domains with tau = 3 every silence aborts; at eight with tau = 6 none does."""
    silent = fault in SILENT
    if fault == "killed after, asked again":
        # The keys are only in memory: what was dealt dies with them, a new advert can be made.
        silent = phase == "share"
    return "abort" if silent and count == 3 else "sum"


def ckks_aborts(count: int, phase: str, fault: str, holds_the_key: bool) -> bool:
    forgotten = fault == "killed after, asked again" and phase == "share"
    silent = forgotten or fault in SILENT
    if phase == "unmask":
        return silent and holds_the_key
    return silent and (holds_the_key or phase == "confirm" or count == 3)


def outcome(domains: Domains, wire: FaultyWire) -> Any:
    try:
        return domains.run(wire.exchange)
    except SumAborted:
        return None


def same(first: Any, again: Any) -> bool:
    if isinstance(first, tuple):
        return first[0] == again[0] and np.array_equal(first[1], again[1])
    return bool(first == again)
