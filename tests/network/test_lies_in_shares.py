"""Lies about keys, shares, rings and members: what a domain is told, and what it says.

As in `test_malicious`: nothing is learned, no wrong sum opens, the liar is named where it can be.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from network.smpc import shamir
from network.smpc.aggregation import SEED, OutOfTurn
from network.smpc.coordination import SumAborted
from network.smpc.messages import (
    Receipt,
    SharingRefused,
    advert_message,
    receipt_message,
    sealed_message,
    share_digest,
    unmasking_message,
)
from network.smpc.transcript import open_total
from tests.network.lies import (
    HONEST,
    LIAR,
    OTHER,
    changed,
    of,
    replaced,
    transcript_of,
    until,
)
from tests.network.roster_of_domains import Domains
from tests.network.test_malicious import _confirmed

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
            message = receipt_message(transcript_of(domains), dict(receipt) | {"dealt": bytes(32)})
            signed = {"dealt": bytes(32), "signature": domains.keys[LIAR].sign(message)}
            answers[LIAR] = receipt.model_copy(update=signed), elements
        return answers

    opened = domains.run(lambda phase, asked: lie(phase, domains.exchange(phase, asked)))
    assert "other shares than those carried" in opened.left_out[LIAR]
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))


def test_a_domain_masks_only_where_all_but_n_minus_tau_dealt() -> None:
    """One dealer fewer is refused, and nothing is masked then; as many as that are enough."""
    domains = Domains(8, 6, 2)
    sealed = until(domains, "reveal")["reveal"][HONEST]
    assert len(sealed) == 7
    with pytest.raises(SharingRefused, match="5 members are fewer than 6"):
        domains.ask(HONEST, "reveal", sealed[:4])
    assert not domains.disks[HONEST]
    receipt, _ = domains.ask(HONEST, "reveal", sealed[:5])
    assert len(receipt.members) == 6


@pytest.mark.parametrize("field", ["cipher_key", "mask_key"])
def test_a_domain_deals_nothing_where_two_domains_have_one_key(field: str) -> None:
    """With another's key, a peer would have its masks cancelled, or be sealed what is for it."""
    domains = Domains(8, 6, 2)
    adverts = until(domains, "share")["share"][HONEST]
    i = of(adverts, LIAR)
    copied = adverts[i].model_copy(update={field: adverts[of(adverts, OTHER)].mask_key})
    signature = domains.keys[LIAR].sign(advert_message(domains.agreement, dict(copied)))
    told = replaced(adverts, i, copied.model_copy(update={"signature": signature}))
    with pytest.raises(SharingRefused, match="the same public key as") as refused:
        domains.ask(HONEST, "share", told)
    assert {LIAR, OTHER} == {refused.value.culprit, str(refused.value).rpartition(" ")[2]}


def signed_for(domains: Domains, receipt: Receipt, members: tuple[str, ...]) -> Receipt:
    """A domain's receipt with other members than it masked with."""
    message = receipt_message(transcript_of(domains), dict(receipt) | {"members": members})
    signature = domains.keys[receipt.domain].sign(message)
    return receipt.model_copy(update={"members": members, "signature": signature})


def test_who_contradicts_our_own_members_is_named_and_not_we() -> None:
    domains = Domains(8, 6, 2)
    sealed = until(domains, "reveal")["reveal"]
    given = {n: [s for s in told if s.sender != "domain-7"] for n, told in sealed.items()}
    receipts = {n: domains.ask(n, "reveal", given[n])[0] for n in given if n != "domain-7"}
    receipts[LIAR] = signed_for(domains, receipts[LIAR], tuple(sorted(domains.keys)))
    with pytest.raises(SharingRefused, match="among other members than ours") as refused:
        domains.ask(HONEST, "confirm", list(receipts.values()))
    assert refused.value.culprit == LIAR


def test_a_receipt_from_beyond_our_neighbours_must_have_all_of_its_own() -> None:
    """Above 16 domains: a far peer leaves a neighbour of its own out, who is nobody to us."""
    domains = Domains(30, 30, 2)
    around = {name: set(domains.agreement.neighbourhood(name)) for name in domains.keys}
    far = next(n for n in domains.keys if not around[n] & around[HONEST])
    receipts = until(domains, "confirm")["confirm"][HONEST]
    i = of(receipts, far)
    left_out = next(name for name in receipts[i].members if name != far)
    members = tuple(name for name in receipts[i].members if name != left_out)
    told = replaced(receipts, i, signed_for(domains, receipts[i], members))
    with pytest.raises(SharingRefused, match="among other members than the rest") as refused:
        domains.ask(HONEST, "confirm", told)
    assert refused.value.culprit == far
    assert domains.ask(HONEST, "confirm", receipts)


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
