"""Calls that come at the same time, of one run and of two: as if they had come one by one.

Nothing waits for ever, no step has two answers, no mask and no noise serves twice, and what left is
what the ledger charged. Threads meet at barriers; which of them comes first is left open.
"""

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from domains.answering import REFUSALS
from domains.participation import Participation
from domains.refusals import RoundRefused
from network.smpc import aggregation
from network.smpc.coordination import SumAborted
from policies.approvals import owner_key_hex
from policies.verify import verify
from tests.domains.participating_domains import NAMES, STATE, Carried, Domains, domains_in
from tests.domains.test_orders import RELEASES, AnyOrder, every_noise_once
from tests.network.keystreams import Recorder

_HANG_S = 120
Said = tuple[str, Any]
"""'answer' and it, or 'refused' and why."""


def together(*calls: Callable[[], Any]) -> list[Said]:
    """Make all calls at once; what each answered, or why it was refused."""
    barrier = threading.Barrier(len(calls))
    said: list[Said | None] = [None] * len(calls)
    failed: list[BaseException] = []

    def make(place: int, call: Callable[[], Any]) -> None:
        try:
            barrier.wait(_HANG_S)
            said[place] = "answer", call()
        except (*REFUSALS, SumAborted) as refused:
            said[place] = "refused", str(refused)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=make, args=each, daemon=True) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_HANG_S)
    assert not any(thread.is_alive() for thread in threads), "calls wait for each other"
    if failed:
        raise failed[0]
    return [each for each in said if each is not None]


def answers(said: list[Said]) -> list[Any]:
    return [answer for kind, answer in said if kind == "answer"]


class Unwatched(Carried):
    """It doesn't look into the nodes, as another thread is at work there."""

    def _value_of(self, part: Participation) -> Any:
        return None

    def check(self, total: Any) -> None:
        """The sum of what the engines gave, up to noise: 20 standard deviations of it."""
        domains, step = self.domains, self.domains.plan.steps[0]
        noise = step.noise_multiplier * step.clip_norm * step.scale * len(NAMES) ** 0.5
        assert np.abs(total - sum(domains.values.values())).max() < 20 * noise


@pytest.fixture
def domains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Domains]:
    """Whose keystreams and noise are looked at for pieces that serve twice."""
    monkeypatch.setattr(aggregation, "apply", Recorder().apply)
    found = domains_in(tmp_path, releases=RELEASES)
    with every_noise_once(found, monkeypatch):
        yield found
    for name in NAMES:
        verdict = verify(found.ledgers[name].entries(), owner_key_hex(found.keys[name]))
        assert verdict.ok, verdict.text


def states(domains: Domains, name: str) -> list[tuple[int, int, str]]:
    found = domains.ledgers[name].attempts(domains.plan.hash)
    return [(release, attempt, state) for _, release, attempt, state in found]


def test_the_same_call_made_twice_at_once_has_one_answer(domains: Domains) -> None:
    def exchange(phase: str, arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, argument in arguments.items():
            said = together(*[lambda n=name, a=argument: carried.ask(n, phase, a)] * 2)
            given = answers(said)
            assert given, said
            if len(given) == 2 and phase == "reveal":
                assert given[0][0] == given[1][0]
                np.testing.assert_array_equal(given[0][1], given[1][1])
            elif len(given) == 2:
                assert phase != "share", "the sum is made once"
                assert given[0] == given[1]
            found[name] = given[0]
        return found

    for release in range(4):
        carried = Unwatched(domains, release)
        carried.check(carried.run(exchange).total)
    for name in NAMES:
        assert states(domains, name) == [(release, 0, "charged") for release in range(4)]


def test_two_hubs_that_run_one_attempt_at_once_open_nothing_or_the_same(domains: Domains) -> None:
    for release in range(6):
        hubs = [Unwatched(domains, release) for _ in range(2)]
        said = together(*(lambda hub=hub: hub.run(hub.tolerant) for hub in hubs))
        totals = [opened.total for opened in answers(said)]
        for total in totals:
            hubs[0].check(total)
            np.testing.assert_array_equal(total, totals[0])
        for name in NAMES:
            found = [state for at, _, state in states(domains, name) if at == release]
            assert len(found) <= 1
            assert found == ["charged"] or not totals
    domains.round(RELEASES - 1)


def test_the_next_attempt_begins_while_the_last_total_is_opened(domains: Domains) -> None:
    following: list[Unwatched] = [Unwatched(domains, release) for release in range(5)]

    def exchange_of(carried: Unwatched, then: Unwatched) -> Callable[..., dict[str, Any]]:
        def exchange(phase: str, arguments: Any) -> dict[str, Any]:
            if phase not in ("confirm", "unmask"):
                return carried.exchange(phase, arguments)
            found = {}
            for name, argument in arguments.items():
                last, begun = together(
                    lambda n=name, a=argument: carried.ask(n, phase, a),
                    lambda n=name: then.ask(n, "advertise", None),
                )
                assert (last[0], begun[0]) == ("answer", "answer"), (last, begun)
                assert adverts.setdefault(name, begun[1]) == begun[1], "begun once"
                found[name] = last[1]
            return found

        return exchange

    for carried, then in pairwise(following):
        adverts: dict[str, Any] = {}
        carried.check(carried.run(exchange_of(carried, then)).total)
    following[-1].check(following[-1].run().total)
    for name in NAMES:
        assert states(domains, name) == [(release, 0, "charged") for release in range(5)]


def test_a_state_that_comes_while_shares_are_asked_for_is_of_another_round(
    domains: Domains,
) -> None:
    """The sum is of the state that was named, or is refused before anything is set aside."""
    other = (3).to_bytes(8, "little") + b"{} "
    named, coming = blake3(STATE).hexdigest(), blake3(other).hexdigest()
    part, plan = domains.parts["east"], domains.plan.hash

    def both_at(release: int) -> None:
        carried = Unwatched(domains, release)
        adverts = [carried.ask(name, "advertise", None) for name in NAMES]
        part.hold(plan, named, len(STATE), 0, STATE)
        held = carried.heads.held_of("east")
        shared, kept = together(
            lambda: part.share(*carried.where, adverts, named, held),
            lambda: part.hold(plan, coming, len(other), 0, other),
        )
        assert kept == ("answer", len(other))
        assert part.held_state(plan) == coming
        found = [state for at, _, state in states(domains, "east") if at == release]
        assert found == (["reserved"] if shared[0] == "answer" else [])
        assert shared[0] == "answer" or "holds no such state" in shared[1]

    for release in range(6):
        both_at(release)


@pytest.mark.parametrize("end", ["finish", "close"])
def test_a_run_or_node_that_ends_while_an_input_is_asked_for_charges_what_left(
    end: str, domains: Domains
) -> None:
    carried = Unwatched(domains)
    adverts = [carried.ask(name, "advertise", None) for name in NAMES]
    sealed = [each for name in NAMES for each in carried.ask(name, "share", adverts)]
    part, plan = domains.parts["east"], domains.plan.hash
    ending = (lambda: part.finish(plan, b"")) if end == "finish" else part.close
    mine = [each for each in sealed if each.receiver == "east"]
    revealed, ended = together(lambda: carried.ask("east", "reveal", mine), ending)
    assert ended[0] == "answer", ended
    left = "charged" if revealed[0] == "answer" else "void"
    assert states(domains, "east") == [(0, 0, left)]
    if end == "finish":
        assert domains.ledgers["east"].status(plan) == "closed"
        with pytest.raises(RoundRefused):
            part.advertise(plan, "s", 1, 0)
        files = {each.suffix for each in (domains.folder / "east" / "attempts").iterdir()}
        assert not files & {".held", ".masked"}


def test_two_runs_of_the_same_domains_go_on_at_once(domains: Domains) -> None:
    """Their rounds' heads come in any order, and both ledgers extend both."""
    other = domains_in(domains.folder, releases=RELEASES, beside=domains)
    for release in range(4):
        said = together(lambda r=release: domains.round(r), lambda r=release: other.round(r))
        assert len(answers(said)) == 2, said
    for name in NAMES:
        for run in (domains, other):
            assert states(run, name) == [(release, 0, "charged") for release in range(4)]


class AtOnce(AnyOrder):
    """A hub of several threads, each of which calls as it likes with what all have heard."""

    def __init__(self, domains: Domains) -> None:
        self._local = threading.local()
        super().__init__(domains, 0)

    @property
    def random(self) -> np.random.Generator:  # type: ignore[override]
        if not hasattr(self._local, "random"):
            self._local.random = np.random.default_rng(threading.get_ident())
        found: np.random.Generator = self._local.random
        return found

    @random.setter
    def random(self, given: np.random.Generator) -> None:
        """Each thread has its own."""

    def restarts(self) -> bool:
        """Nobody restarts a node under another thread's call."""
        return False


def test_no_order_of_calls_at_once_gets_anything_uncharged_or_twice(domains: Domains) -> None:
    hub = AtOnce(domains)

    def many() -> None:
        for _ in range(120):
            hub.act()

    said = together(*[many] * 3)
    assert [kind for kind, _ in said] == ["answer"] * 3, said
    for where, name in hub.left:
        assert len(hub.charges(name, where)) == 1, "nothing that left was given back"
    assert {step for _, step in hub.heard} >= {"advertise", "share"}
    domains.round(RELEASES - 1)
