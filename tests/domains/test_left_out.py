"""A peer whose ledger is refused, or that doesn't co-sign, ends nothing that the others can finish.

Four domains of which one may lie and three are enough. Where all are needed, the attempt ends, and
who ended it is named: not one of the honest ones that refused it.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domains.answering import REFUSALS
from network.attempts import Beside
from network.lines import Lines
from network.rounds import attempt_of, carried_through, verify_rounds
from network.smpc.agreement import agreement_of
from network.smpc.ckks.messages import key_holder
from network.smpc.coordination import SumAborted
from policies.approvals import owner_key_hex
from policies.canonical import canonical, sha256_hex
from policies.ledger import LedgerError
from policies.ledger.shown import cosignature_words
from policies.verify import verify
from tests.domains.nodes_at_hand import NodeAtHand
from tests.domains.participating_domains import NAMES, STATE, Carried, Domains, domains_in

FOUR = ("east", "north", "south", "west")
HONEST = ("east", "south", "west")
Exchange = Callable[[str, Mapping[str, Any]], dict[str, Any]]


def four(folder: Path, **agreed: Any) -> Domains:
    return domains_in(folder, names=FOUR, threshold=3, **agreed)


def shows(carried: Carried, **note: Any) -> Exchange:
    """North shows its peers another note of its ledger."""

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = carried.tolerant(phase, arguments)
        if phase == "share":
            carried.heads.notes["north"] = {**carried.heads.notes["north"], **note}
        return answers

    return exchange


def cosigns(carried: Carried, change: Callable[[Any], list[Any]]) -> Exchange:
    """North co-signs its peers' heads otherwise."""

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = carried.tolerant(phase, arguments)
        if phase == "confirm":
            carried.signed["north"] = [
                new for old in carried.signed["north"] for new in change(old)
            ]
        return answers

    return exchange


def objections(domains: Domains, name: str) -> list[str]:
    found = domains.ledgers[name].entries()
    return [json.loads(each.body)["reason"] for each in found if each.kind == "objection"]


def another_holds_the_key(domains: Domains) -> int:
    """A release whose key under CKKS isn't north's: it goes round, and who has it opens alone."""
    where = (agreement_of(domains.plan, "s", release, 0) for release in range(4))
    return next(each.context.release for each in where if key_holder(each) != "north")


def states(domains: Domains, release: int = 0) -> dict[str, list[str]]:
    return {
        name: [state for _, at, _, state in ledger.attempts(domains.plan.hash) if at == release]
        for name, ledger in domains.ledgers.items()
    }


def check_opened_by_the_others(carried: Carried, opened: Any) -> None:
    """The total is the sum over the three, each of which charged, objected and is in order."""
    domains = carried.domains
    assert opened.survivors == HONEST
    np.testing.assert_array_equal(opened.total, sum(carried.noised[name] for name in HONEST))
    assert set(opened.left_out) == {"north"}
    for name in HONEST:
        assert states(domains, carried.where[2])[name] == ["charged"]
        (said,) = objections(domains, name)
        assert said.startswith("north: ")
        verdict = verify(domains.ledgers[name].entries(), owner_key_hex(domains.keys[name]))
        assert verdict.ok, verdict.text


@pytest.mark.parametrize("aggregation", ["smpc", "ckks"])
@pytest.mark.parametrize(
    "note",
    [{"head": 1}, {"head": {"domain": "north", "size": 4, "root": "0" * 64,
                            "signature": "0" * 128}}, {"reservation": None}],
    ids=["no head", "a head that isn't signed", "no reservation"],
)  # fmt: skip
def test_a_peer_whose_ledger_all_others_refuse_is_left_out(
    note: dict[str, Any], aggregation: str, tmp_path: Path
) -> None:
    domains = four(tmp_path, aggregation=aggregation)
    release = another_holds_the_key(domains)
    carried = Carried(domains, release)
    check_opened_by_the_others(carried, carried.run(shows(carried, **note)))
    again = Carried(domains, release + 1).run()
    assert again.survivors == FOUR, "nothing is held against it later"


def test_a_peer_that_was_rolled_back_is_left_out(tmp_path: Path) -> None:
    domains = four(tmp_path)
    old = tmp_path / "old.db"
    with sqlite3.connect(tmp_path / "north" / "ledger.db") as source, sqlite3.connect(old) as to:
        source.backup(to)
    source.close(), to.close()
    domains.round()
    domains.ledgers["north"].dispose()
    (tmp_path / "north" / "ledger.db").write_bytes(old.read_bytes())
    domains.restart("north")
    domains.open("north")
    carried = Carried(domains, 1)
    check_opened_by_the_others(carried, carried.run(carried.tolerant))
    assert "rolled back" in carried.left_out["north"] or "rewritten" in carried.left_out["north"]


def test_a_peer_whose_ledger_says_another_total_was_opened_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = four(tmp_path)
    ledger = domains.ledgers["north"]
    settle = ledger.settle

    def lie(plan: str, step: str, release: int, attempt: int, _: str, opened: Any) -> bool:
        said = {**opened, **dict.fromkeys(HONEST, "0" * 64)}
        return settle(plan, step, release, attempt, sha256_hex(canonical(said)), said)

    monkeypatch.setattr(ledger, "settle", lie)
    domains.round()
    carried = Carried(domains, 1)
    check_opened_by_the_others(carried, carried.run(carried.tolerant))
    assert "opened other inputs" in carried.left_out["north"]


def forged(signed: Any) -> list[Any]:
    return [signed.model_copy(update={"signature": "0" * 128})]


@pytest.mark.parametrize("change", [lambda signed: [], forged], ids=["nothing", "falsely"])
def test_what_a_peer_confirmed_counts_only_with_its_co_signature(
    change: Callable[[Any], list[Any]], tmp_path: Path
) -> None:
    """It's as silent as one that didn't confirm; its input is in the total that three confirmed."""
    domains = four(tmp_path)
    carried = Carried(domains)
    told: dict[str, set[str]] = {}
    going_on = cosigns(carried, change)

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase == "unmask":
            told.update({name: {each.domain for each in said} for name, said in arguments.items()})
        return going_on(phase, arguments)

    opened = carried.run(exchange)
    assert opened.survivors == FOUR
    np.testing.assert_array_equal(opened.total, sum(carried.noised.values()))
    for name in HONEST:
        assert told[name] == set(HONEST), "told as if north hadn't confirmed"
    assert set(opened.left_out) == {"north"}
    for name in HONEST:
        kept = domains.ledgers[name].heads.kept()
        assert {each["witness"] for each in kept} == set(HONEST) - {name}
    carried = Carried(domains, 1)
    assert carried.run(carried.tolerant).survivors == FOUR, "the next round is as any other"


def test_a_peer_that_co_signs_a_head_nobody_has_is_passed_over(tmp_path: Path) -> None:
    domains = four(tmp_path)
    carried = Carried(domains)

    def change(signed: Any) -> list[Any]:
        said = {"node_key": signed.node_key, "size": 1, "root": "5" * 64, "time": signed.time}
        signature = domains.keys["north"].sign(cosignature_words(**said).encode()).hex()
        return [signed, signed.model_copy(update={**said, "signature": signature})]

    opened = carried.run(cosigns(carried, change))
    assert opened.survivors == FOUR
    assert "that ledger was rolled back" in opened.left_out["north"]


def lies_about_its_ledger(carried: Carried) -> Exchange:
    return shows(carried, head=1)


def co_signs_nothing(carried: Carried) -> Exchange:
    return cosigns(carried, lambda signed: [])


@pytest.mark.parametrize("aggregation", ["smpc", "ckks"])
@pytest.mark.parametrize(
    ("lying", "phase", "state"),
    [(lies_about_its_ledger, "reveal", "reserved"), (co_signs_nothing, "unmask", "charged")],
)
def test_where_all_are_needed_who_ended_the_attempt_is_named(
    lying: Callable[[Carried], Exchange], phase: str, state: str, aggregation: str, tmp_path: Path
) -> None:
    domains = domains_in(tmp_path, aggregation=aggregation)
    release = another_holds_the_key(domains)
    carried = Carried(domains, release)
    with pytest.raises(SumAborted) as aborted:
        carried.run(lying(carried))
    assert (aborted.value.domain, aborted.value.phase) == ("north", phase)
    assert str(aborted.value).startswith("north: ")
    assert "isn't excluded" not in str(aborted.value), "both others say so, and one is honest"
    found = states(domains, release)
    assert found["east"] == found["south"] == [state]
    assert Carried(domains, release, attempt=1).run().survivors == NAMES


def test_a_peer_that_shows_its_ledger_to_some_only_is_named_where_it_ends_the_attempt(
    tmp_path: Path,
) -> None:
    """Two of four masked with it already, two refuse it: neither are three of the same mind."""
    carried = Carried(four(tmp_path))

    def split(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase != "reveal":
            return carried.tolerant(phase, arguments)
        good = dict(carried.heads.notes)
        answers = carried.tolerant(phase, {n: arguments[n] for n in ("north", "west")})
        carried.heads.notes["north"] = {**good["north"], "head": 1}
        refusing = {n: arguments[n] for n in arguments if n in ("east", "south")}
        return answers | carried.tolerant(phase, refusing)

    with pytest.raises(SumAborted) as aborted:
        carried.run(split)
    assert (aborted.value.domain, aborted.value.phase) == ("north", "reveal")


def test_a_round_goes_on_without_a_peer_while_the_next_one_is_begun(tmp_path: Path) -> None:
    """A domain that would begin the next attempt now couldn't be asked for its input again."""
    domains = four(tmp_path)
    advertised: list[str] = []

    def node(name: str) -> Any:
        def says(method: str, answer: Any) -> Any:
            if method == "advertise":
                advertised.append(name)
            if (name, method, lying) == ("north", "share", [True]):
                said = json.loads(answer)
                said["note"]["head"] = 1
                return json.dumps(said)
            return answer

        return NodeAtHand(name, domains, says)

    lying = [True]
    nodes = {name: node(name) for name in FOUR}
    with Lines() as lines:
        first, second = (
            attempt_of(nodes, domains.plan, "s", release, 0, tmp_path / "run", lines)
            for release in range(2)
        )
        beside = Beside(following=lambda: second)
        assert carried_through(first, STATE, beside).survivors == HONEST
        lying.clear()
        assert carried_through(second, STATE).survivors == FOUR
    assert sorted(advertised) == sorted([*FOUR, "north"]), "the others began it as they confirmed"
    for name in HONEST:
        assert states(domains)[name] == states(domains, 1)[name] == ["charged"]
    checked = verify_rounds(domains.plan, tmp_path / "run")
    assert checked == [("s", 0, 0), ("s", 1, 0)], "anyone can recompute both totals"


def test_one_domain_alone_can_t_have_an_honest_peer_left_out(tmp_path: Path) -> None:
    """It refuses everybody's ledger: the others go on without it."""
    carried = Carried(four(tmp_path))

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = carried.tolerant(phase, arguments)
        if phase == "reveal":
            del answers["north"]
            carried.left_out["north"] = "east: its ledger isn't a continuation"
        return answers

    opened = carried.run(exchange)
    assert opened.survivors == HONEST
    assert set(opened.left_out) == {"north"}


def test_who_masked_among_others_too_gives_nothing_without_their_ledgers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub that asks again without a peer can't have a masked input in which that one still is."""
    domains = four(tmp_path)
    carried, ledger = Carried(domains), domains.ledgers["east"]

    def unavailable(*_: object) -> None:
        raise LedgerError("its head was contradicted meanwhile")

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase != "reveal":
            return carried.exchange(phase, arguments)
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "charge", unavailable)
            with pytest.raises(LedgerError, match="contradicted"):
                carried.ask("east", phase, arguments["east"])
        less = [each for each in arguments["east"] if each.sender != "north"]
        with pytest.raises(REFUSALS, match="masked among other members"):
            carried.ask("east", phase, less)
        assert states(domains)["east"] == ["reserved"]
        return carried.exchange(phase, arguments)

    assert carried.run(exchange).survivors == FOUR
