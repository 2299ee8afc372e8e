"""Lies that mix attempts, runs, rings and lists: what is true in one place is used in another.

As in `test_malicious`: nothing is learned, no wrong sum opens, the liar is named where it can be.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from network.smpc import shamir, verification
from network.smpc.aggregation import SEED, OutOfTurn
from network.smpc.coordination import Coordinator, SumAborted
from network.smpc.messages import (
    Advert,
    Receipt,
    SharingRefused,
    advert_message,
    receipt_message,
    sealed_message,
    share_digest,
    transcript_hash,
    unmasking_message,
)
from network.smpc.transcript import open_total
from tests.network.lies import HONEST, LIAR, OTHER, changed, of
from tests.network.roster_of_domains import CONTEXT, Domains
from tests.network.test_malicious import _confirmed, assert_nothing_learned

LOW_ORDER = {
    "zero": bytes(32),
    "one": (1).to_bytes(32, "little"),
    "order 8": bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    "the other of order 8": bytes.fromhex(
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"
    ),
    "p - 1": (2**255 - 20).to_bytes(32, "little"),
    "p, which is zero": (2**255 - 19).to_bytes(32, "little"),
    "p + 1, which is one": (2**255 - 18).to_bytes(32, "little"),
    "zero with the top bit": bytes(31) + b"\x80",
}
"""Points on which X25519 agrees on zero with whomever (RFC 7748, section 6.1)."""


def heard_in(domains: Domains, *phases: str) -> dict[str, Mapping[str, Any]]:
    """An honest attempt; the arguments of these steps, by step and domain."""
    heard: dict[str, Mapping[str, Any]] = {}

    def listen(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase in phases:
            heard[phase] = dict(arguments)
        return domains.exchange(phase, arguments)

    domains.run(listen)
    return heard


def until(domains: Domains, last: str, change: Any = None) -> dict[str, dict[str, Any]]:
    """An attempt up to a step, whose answers `change` may alter: arguments by step, and answers."""
    seen: dict[str, dict[str, Any]] = {}

    def listen(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        seen[phase] = dict(arguments)
        if phase == last:
            return {}
        answers = domains.exchange(phase, arguments)
        return change(phase, answers) if change is not None else answers

    with pytest.raises(SumAborted):
        domains.run(listen)
    return seen


def replaced(messages: list[Any], index: int, message: Any) -> list[Any]:
    return [*messages[:index], message, *messages[index + 1 :]]


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
            heard = _transcript(domains)
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


# Keys, shares, rings and neighbours


@pytest.mark.parametrize("field", ["cipher_key", "mask_key"])
@pytest.mark.parametrize("point", LOW_ORDER.values(), ids=LOW_ORDER)
def test_a_key_of_low_order_is_refused_and_its_peer_named(field: str, point: bytes) -> None:
    domains = Domains(8, 6, 2)

    def weaken(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = domains.exchange(phase, arguments)
        if phase == "advertise":
            bad = answers[LIAR].model_copy(update={field: point})
            message = advert_message(domains.agreement, dict(bad))
            signature = domains.keys[LIAR].sign(message)
            answers[LIAR] = bad.model_copy(update={"signature": signature})
        return answers

    opened = domains.run(weaken)
    assert LIAR in opened.left_out
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))


def test_an_advert_for_another_ring_is_refused() -> None:
    """A domain that was told of 32 bits can't be made to take part with those told of 64."""
    domains = Domains(8, 6, 2)
    narrow = Domains(8, 6, 2, bits=32)
    narrow.keys = domains.keys
    adverts = until(domains, "share")["share"][HONEST]
    other = narrow.attempt(0).parties[LIAR].advertise()
    told = replaced(adverts, of(adverts, LIAR), other)
    with pytest.raises(SharingRefused, match="isn't signed for this attempt") as refused:
        domains.ask(HONEST, "share", told)
    assert refused.value.culprit == LIAR


@pytest.mark.parametrize("share", [shamir.PRIME, 2**528 - 1], ids=["p", "all ones"])
def test_a_share_out_of_the_field_is_pinned_on_who_answered_it(share: int) -> None:
    domains = Domains(3, 3, 1)
    opened = domains.run()
    message = _confirmed(domains, opened.transcript)
    unmaskings = list(opened.transcript.unmaskings)
    i = of(unmaskings, LIAR)
    shares = {**unmaskings[i].seed_shares, HONEST: share.to_bytes(shamir.SHARE_BYTES, "big")}
    signature = domains.keys[LIAR].sign(unmasking_message(message, LIAR, shares, {}))
    unmaskings[i] = unmaskings[i].model_copy(update={"seed_shares": shares, "signature": signature})
    forged = replace(opened.transcript, unmaskings=unmaskings)
    with pytest.raises(SharingRefused) as refused:
        open_total(domains.agreement, forged, opened.masked)
    assert refused.value.culprit == LIAR


def test_a_share_out_of_the_field_is_pinned_on_who_dealt_it() -> None:
    """All that the dealer says is signed and fits its commitments; only the share is no share."""
    domains = Domains(3, 3, 1)
    party = domains.parties[LIAR]
    bad = (2**528 - 1).to_bytes(shamir.SHARE_BYTES, "big")

    def deal(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = domains.exchange(phase, arguments)
        if phase == "share":
            i = of(answers[LIAR], HONEST, "receiver")
            secrets = party._secrets
            key = secrets.adverts[HONEST].cipher_key
            forged = answers[LIAR][i].model_copy(
                update={
                    "ciphertext": secrets.cipher.seal(bad + bad, key),
                    "seed_share_digest": share_digest(secrets.transcript, SEED, LIAR, HONEST, bad),
                    "key_share_digest": share_digest(secrets.transcript, b"key", LIAR, HONEST, bad),
                }
            )
            message = sealed_message(secrets.transcript, dict(forged))
            signature = domains.keys[LIAR].sign(message)
            answers[LIAR] = changed(answers[LIAR], i, **{**dict(forged), "signature": signature})
        return answers

    with pytest.raises(SumAborted) as aborted:
        domains.run(deal)
    assert aborted.value.domain == LIAR


def test_a_dealer_and_a_hub_together_can_t_make_a_holder_look_like_the_liar() -> None:
    """A peer deals twice, all of it signed: the hub carries one pair and shows the other."""
    domains = Domains(3, 3, 1)
    party = domains.parties[LIAR]
    shown: list[Any] = []

    def deal_twice(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = domains.exchange(phase, arguments)
        if phase == "share":
            secrets, i = party._secrets, of(answers[LIAR], HONEST, "receiver")
            pair = bytes(shamir.SHARE_BYTES), bytes(shamir.SHARE_BYTES)
            advert = secrets.adverts[HONEST]
            shown.append(secrets._sealed(HONEST, advert, pair, domains.keys[LIAR]))
            shown.append(answers[LIAR][i])
        return answers

    opened = domains.run(deal_twice)
    other, carried = shown
    sealed = [other if each == carried else each for each in opened.transcript.sealed]
    with pytest.raises(SharingRefused, match="those that it carried") as refused:
        open_total(domains.agreement, replace(opened.transcript, sealed=sealed), opened.masked)
    assert refused.value.culprit == "the coordinator"


def test_a_peer_that_signs_for_shares_it_was_not_dealt_is_named() -> None:
    domains = Domains(8, 6, 2)

    def lie(phase: str, answers: dict[str, Any]) -> dict[str, Any]:
        if phase == "reveal":
            receipt, elements = answers[LIAR]
            message = receipt_message(_transcript(domains), dict(receipt) | {"dealt": bytes(32)})
            signed = {"dealt": bytes(32), "signature": domains.keys[LIAR].sign(message)}
            answers[LIAR] = receipt.model_copy(update=signed), elements
        return answers

    opened = domains.run(lambda phase, asked: lie(phase, domains.exchange(phase, asked)))
    assert "other shares than those carried" in opened.left_out[LIAR]
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))


def test_above_sixteen_domains_shares_of_no_neighbour_are_refused() -> None:
    domains = Domains(20, 18, 2)
    around = domains.agreement.neighbourhood(HONEST)
    sealed = until(domains, "reveal")["reveal"][HONEST]
    far = next(name for name in domains.keys if name not in around)
    told = [*sealed, sealed[0].model_copy(update={"sender": far})]
    with pytest.raises(SharingRefused) as refused:
        domains.ask(HONEST, "reveal", told)
    assert refused.value.culprit == far


def test_a_hub_that_hands_a_domain_its_own_shares_is_refused() -> None:
    domains = Domains(8, 6, 2)
    sealed = until(domains, "reveal")["reveal"][HONEST]
    told = changed(sealed, of(sealed, OTHER, "sender"), sender=HONEST)
    with pytest.raises(SharingRefused):
        domains.ask(HONEST, "reveal", told)


def test_steps_of_a_party_that_never_advertised_are_refused() -> None:
    domains = Domains(8, 6, 2)
    seen = until(domains, "unmask")
    fresh = Domains(8, 6, 2)
    fresh.keys = domains.keys
    fresh.attempt(0)
    for phase in ("share", "reveal", "confirm", "unmask"):
        with pytest.raises((OutOfTurn, SharingRefused)):
            fresh.ask(HONEST, phase, seen[phase][HONEST])
    assert not fresh.said


def _transcript(domains: Domains) -> bytes:
    adverts = {a.domain: a for a in domains.said if isinstance(a, Advert)}
    return transcript_hash(domains.agreement, adverts)
