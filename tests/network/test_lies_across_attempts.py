"""Lies that mix attempts, runs, rings and lists: what is true in one place is used in another.

As in `test_malicious`: nothing is learned, no wrong sum opens, the liar is named where it can be.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from network.smpc import shamir, verification
from network.smpc.coordination import Coordinator
from network.smpc.messages import (
    Receipt,
    SharingRefused,
    receipt_message,
)
from tests.network.lies import HONEST, LIAR, heard_in, of, replaced, transcript_of, until
from tests.network.roster_of_domains import CONTEXT, Domains
from tests.network.test_malicious import assert_nothing_learned

# Attempts, rounds and runs


def test_confirmations_of_an_earlier_attempt_open_nothing() -> None:
    domains = Domains(8, 6, 2)
    old = heard_in(domains, "unmask")["unmask"]
    now = until(domains.attempt(1), "unmask")["unmask"]
    for name in now:
        with pytest.raises(SharingRefused, match="didn't confirm"):
            domains.ask(name, "unmask", old[name])
    assert not domains.unmaskings()


def test_confirmations_of_another_run_open_nothing() -> None:
    domains = Domains(8, 6, 2)
    now = until(domains, "unmask")["unmask"]
    there = Domains(8, 6, 2, context=replace(CONTEXT, plan_hash="cd" * 32))
    there.keys = domains.keys
    other = heard_in(there.attempt(0), "unmask")["unmask"]
    for name in now:
        with pytest.raises(SharingRefused, match="didn't confirm"):
            domains.ask(name, "unmask", other[name])
    assert not domains.unmaskings()


def test_one_attempt_s_shares_and_another_s_belong_to_different_secrets() -> None:
    """The hub calls a peer dropped in one attempt and a survivor in the next one."""
    domains = Domains(8, 6, 2)

    def drop(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = domains.exchange(phase, arguments)
        if phase == "reveal":
            answers.pop(LIAR)  # it did answer; the hub has its masked input
        return answers

    first = domains.run(drop)
    assert LIAR not in first.survivors
    keys = {a.domain: a.key_shares[LIAR] for a in first.transcript.unmaskings}
    advert = of(list(first.transcript.adverts), LIAR)
    second = domains.attempt(1).run()
    seeds = {a.domain: a.seed_shares[LIAR] for a in second.transcript.unmaskings}
    again = of(list(second.transcript.adverts), LIAR)
    old, new = first.transcript.adverts[advert], second.transcript.adverts[again]
    assert old.mask_key != new.mask_key
    assert old.seed_digest != new.seed_digest
    mixed = {domains.agreement.holder(n): share for n, share in keys.items()}
    mixed |= {domains.agreement.holder(n): seeds[n] for n in list(seeds)[:3]}
    with pytest.raises(shamir.NotShares):
        shamir.join(mixed, domains.agreement.share_threshold)


def test_a_peer_s_masked_input_of_an_earlier_attempt_is_refused_and_named() -> None:
    domains = Domains(8, 6, 2)
    old: dict[str, Any] = {}

    def listen(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = domains.exchange(phase, arguments)
        if phase == "reveal":
            if LIAR in old:
                answers[LIAR] = old[LIAR]
            old.update(answers)
        return answers

    domains.run(listen)
    coordinator = Coordinator(domains.attempt(1).agreement, listen)
    opened = coordinator.finish(coordinator.begin())
    assert "isn't signed for this attempt" in opened.left_out[LIAR]
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))
    assert_nothing_learned(domains)


def test_who_answers_late_and_then_again_answers_the_same() -> None:
    """A peer that was left out in `reveal` answers after all; nobody unmasks it."""
    domains = Domains(8, 6, 2)
    late: list[Any] = []

    def listen(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = domains.exchange(phase, arguments)
        if phase == "reveal":
            late.append(arguments[LIAR])
            answers.pop(LIAR)
        if phase == "confirm":
            once = domains.ask(LIAR, "reveal", late[0])
            again = domains.ask(LIAR, "reveal", late[0])
            assert once[0] == again[0]
            np.testing.assert_array_equal(once[1], again[1])
            receipts = next(iter(arguments.values()))
            with pytest.raises(SharingRefused):
                domains.ask(LIAR, "confirm", receipts)
        return answers

    opened = domains.run(listen)
    assert LIAR not in opened.survivors
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))
    assert_nothing_learned(domains)


# Lists of survivors


def test_the_order_in_which_survivors_are_named_changes_nothing() -> None:
    domains = Domains(8, 6, 2)
    receipts = until(domains, "confirm")["confirm"][HONEST]
    once = domains.ask(HONEST, "confirm", receipts)
    assert domains.ask(HONEST, "confirm", list(reversed(receipts))) == once


def test_survivors_that_are_named_twice_unknown_or_too_few_are_refused() -> None:
    domains = Domains(8, 6, 2)
    receipts = until(domains, "confirm")["confirm"][HONEST]
    stranger = receipts[1].model_copy(update={"domain": "mallory"})
    lists: dict[str, list[Receipt]] = {
        LIAR: [*receipts, receipts[of(receipts, LIAR)]],
        "mallory": [*receipts, stranger],
    }
    for culprit, told in lists.items():
        with pytest.raises(SharingRefused) as refused:
            domains.ask(HONEST, "confirm", told)
        assert refused.value.culprit == culprit
    with pytest.raises(SharingRefused, match="5 are fewer than the threshold 6"):
        domains.ask(HONEST, "confirm", receipts[:5])
    assert "confirmed" not in domains.disks[HONEST], "a refused set is not the confirmed one"
    assert domains.ask(HONEST, "confirm", receipts)


@pytest.mark.parametrize(
    "members",
    [("mallory",), (HONEST, "mallory"), (HONEST, HONEST, LIAR), (LIAR, HONEST), (HONEST,) * 10**5],
    ids=["a stranger's", "with a stranger", "twice", "unsorted", "endless"],
)
def test_a_receipt_that_lists_others_than_the_roster_is_refused_before_it_is_hashed(
    members: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = Domains(8, 6, 2)
    receipts = until(domains, "confirm")["confirm"][HONEST]
    forged = receipts[1].model_copy(update={"domain": members[-1], "members": members})
    hashed: list[Any] = []
    monkeypatch.setattr(verification, "is_signed", lambda *said: hashed.append(said))
    with pytest.raises(SharingRefused, match="domains of the roster") as refused:
        domains.ask(HONEST, "confirm", [*receipts, forged])
    assert refused.value.culprit == members[-1]
    assert not hashed
    assert "confirmed" not in domains.disks[HONEST]


def test_two_receipts_of_one_peer_divide_the_domains_and_open_nothing() -> None:
    """A peer signs two masked inputs, and the hub shows one half this and one half that."""
    domains = Domains(8, 6, 2)
    forged: list[Receipt] = []

    def sign_twice(phase: str, answers: dict[str, Any]) -> dict[str, Any]:
        if phase == "reveal":
            receipt = answers[LIAR][0]
            heard = transcript_of(domains)
            message = receipt_message(heard, dict(receipt) | {"digest": bytes(32)})
            signature = domains.keys[LIAR].sign(message)
            forged.append(receipt.model_copy(update={"digest": bytes(32), "signature": signature}))
        return answers

    arguments = until(domains, "confirm", sign_twice)["confirm"]
    confirmed = []
    for index, name in enumerate(arguments):
        receipts = arguments[name]
        if index % 2 and name != LIAR:
            receipts = replaced(receipts, of(receipts, LIAR), forged[0])
        confirmed.append(domains.ask(name, "confirm", receipts))
    for name in arguments:
        with pytest.raises(SharingRefused):
            domains.ask(name, "unmask", confirmed)
    assert not domains.unmaskings()
