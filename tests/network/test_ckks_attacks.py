"""Under CKKS: a hub, a key holder and domains that lie with whole messages, and decoding's bounds.

`test_ckks_hub` has the hub that hands the key holder another sum.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from network.smpc import ring
from network.smpc.ckks import limbs, seal
from network.smpc.ckks.messages import (
    KeyAdvert,
    Opening,
    advert_message,
    key_holder,
    opening_message,
    read_residues,
    set_message,
    shape_of,
    transcript_hash,
)
from network.smpc.ckks.transcript import check_opened, sum_of
from network.smpc.coordination import SumAborted
from network.smpc.masks import digest_of
from network.smpc.messages import MalformedMessage, SharingRefused
from policies.homomorphic import DEGREE, MAX_ERROR, layout_of
from tests.network.ckks_vectors import FILE, vectors
from tests.network.roster_of_domains import Domains

Change = Callable[["Attack", Any], Any]


class Attack:
    """A run in which the hub changes what it tells, or one domain what it answers, in one step."""

    def __init__(self, domains: Domains, phase: str, change: Change, *, answers: bool) -> None:
        self.domains, self.phase, self.change, self.answers = domains, phase, change, answers
        self.holder = key_holder(domains.agreement)
        self.liar, self.other = (name for name in domains.keys if name != self.holder)
        self.earlier: dict[str, Any] = {}

    def exchange(self, phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase == self.phase and not self.answers:
            arguments = {name: self.change(self, told) for name, told in arguments.items()}
        answers = self.domains.exchange(phase, arguments)
        if phase == self.phase and self.answers:
            answers = self.change(self, answers)
        return answers

    def listen(self, phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = self.domains.exchange(phase, arguments)
        self.earlier[phase] = answers
        return answers


def domains() -> Domains:
    return Domains(3, 3, 1, aggregation="ckks")


# A hub, or whoever answers in a domain's name


def earlier_ciphertexts(a: Attack, answers: Any) -> Any:
    """One domain's ciphertexts and receipt are those of the attempt before."""
    return {**answers, a.liar: a.earlier["reveal"][a.liar]}


def swapped_ciphertexts(a: Attack, answers: Any) -> Any:
    """One domain's ciphertexts under another's receipt."""
    return {**answers, a.liar: (answers[a.liar][0], answers[a.other][1])}


def ciphertexts_under_another_name(a: Attack, answers: Any) -> Any:
    return {**answers, a.liar: answers[a.other]}


def dropped_ciphertexts(a: Attack, answers: Any) -> Any:
    """Fewer than tau are left."""
    return {name: answer for name, answer in answers.items() if name != a.liar}


def doubled_receipt(a: Attack, told: Any) -> Any:
    receipts, digest = told
    return [*receipts, next(r for r in receipts if r.domain == a.liar)], digest


def hidden_receipt(a: Attack, told: Any) -> Any:
    receipts, digest = told
    return [r for r in receipts if r.domain != a.liar], digest


def earlier_receipt(a: Attack, told: Any) -> Any:
    receipts, digest = told
    return [a.earlier["reveal"][a.liar][0] if r.domain == a.liar else r for r in receipts], digest


def hidden_confirmation(a: Attack, told: Any) -> Any:
    confirmations, total = told
    return [c for c in confirmations if c.domain != a.liar], total


def doubled_confirmation(a: Attack, told: Any) -> Any:
    confirmations, total = told
    return [*confirmations, confirmations[0]], total


def earlier_confirmation(a: Attack, told: Any) -> Any:
    confirmations, total = told
    return [a.earlier["confirm"][c.domain] for c in confirmations], total


def no_sum(a: Attack, told: Any) -> Any:
    return told[0], None


def earlier_advert(a: Attack, told: Any) -> Any:
    """The key of the attempt before, whose holder was another: nobody encrypts under it."""
    return [a.earlier["advertise"][a.liar] if m.domain == a.liar else m for m in told]


def hidden_holder(a: Attack, told: Any) -> Any:
    return [m for m in told if m.domain != a.holder]


# A domain, signing whatever it likes


def key_out_of_turn(a: Attack, answers: Any) -> Any:
    """Another domain than the key holder offers a key of its own."""
    public = seal.generate()[1]
    signature = a.domains.keys[a.liar].sign(advert_message(a.domains.agreement, a.liar, public))
    lie = KeyAdvert(domain=a.liar, public_key=public, signature=signature)
    return {**answers, a.liar: lie}


def opening_by_another(a: Attack, answers: Any) -> Any:
    """A total of its own, signed by a domain that doesn't hold the key."""
    adverts = {m.domain: m for m in a.domains.said if isinstance(m, KeyAdvert)}
    heard = transcript_hash(a.domains.agreement, adverts)
    inputs = {
        s[0].domain: s for s in a.domains.said if isinstance(s, tuple) and hasattr(s[0], "members")
    }
    digest = sum_of(a.domains.agreement, {n: s[1] for n, s in inputs.items()})[1]
    message = set_message(heard, {n: s[0] for n, s in inputs.items()}, digest)
    total = np.arange(16)
    found = digest_of(ring.to_ring(total))
    signature = a.domains.keys[a.liar].sign(opening_message(message, a.liar, found))
    lie = Opening(domain=a.liar, digest=found, signature=signature)
    return {**answers, a.holder: (lie, total)}


HUB = [
    ("share", earlier_advert), ("share", hidden_holder),
    ("confirm", doubled_receipt), ("confirm", hidden_receipt), ("confirm", earlier_receipt),
    ("unmask", hidden_confirmation), ("unmask", doubled_confirmation),
    ("unmask", earlier_confirmation), ("unmask", no_sum),
]  # fmt: skip
ANSWERS = [
    ("advertise", key_out_of_turn),
    ("reveal", earlier_ciphertexts), ("reveal", swapped_ciphertexts),
    ("reveal", ciphertexts_under_another_name), ("reveal", dropped_ciphertexts),
    ("unmask", opening_by_another),
]  # fmt: skip


@pytest.mark.parametrize(
    ("phase", "change", "answers"),
    [(*each, False) for each in HUB] + [(*each, True) for each in ANSWERS],
    ids=[change.__name__ for _, change in HUB + ANSWERS],
)
def test_a_lie_with_a_whole_message_opens_nothing(
    phase: str, change: Change, answers: bool
) -> None:
    found = domains()
    first = Attack(found, phase, change, answers=answers)
    found.run(first.listen)
    attack = Attack(found.attempt(1), phase, change, answers=answers)
    attack.earlier = first.earlier
    assert attack.holder != first.holder
    with pytest.raises(SumAborted) as aborted:
        found.run(attack.exchange)
    opened = [s for s in found.said if isinstance(s, tuple) and isinstance(s[0], Opening)]
    assert len(opened) == (change is opening_by_another), "the key holder's own answer alone"
    if answers and change is not opening_by_another:
        assert aborted.value.domain == attack.liar, "who gave it is named"
    else:
        assert found.refusals or change is opening_by_another


def test_only_the_key_holder_is_of_use_and_it_answers_for_one_sum() -> None:
    """A hub that asks the others to open gets nothing; a later question gets the first answer."""
    found = domains()
    asked: dict[str, Any] = {}

    def listen(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase == "unmask":
            asked.update(arguments)
        return found.exchange(phase, arguments)

    opened = found.run(listen)
    holder = key_holder(found.agreement)
    confirmations, added = asked[holder]
    for name in found.keys:
        if name != holder:
            assert found.ask(name, "unmask", (confirmations, added)) is None
    doubled = added.copy()
    seal.add(doubled, added)
    again = found.ask(holder, "unmask", (confirmations, doubled))
    np.testing.assert_array_equal(again[1], opened.total)


def test_a_domain_is_left_out_at_five_and_the_sum_is_that_of_the_rest() -> None:
    found = Domains(5, 4, 2, aggregation="ckks")
    silent = next(name for name in found.keys if name != key_holder(found.agreement))

    def without(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = found.exchange(phase, arguments)
        return {n: a for n, a in answers.items() if phase != "reveal" or n != silent}

    opened = found.run(without)
    assert silent not in opened.survivors
    np.testing.assert_array_equal(opened.total, found.sum_of(opened.survivors))


def test_a_total_that_the_key_holder_signed_falsely_is_its_own() -> None:
    """What nobody can check without the key; that it was this domain's word, everybody can."""
    found = domains()
    opened = found.run()
    lie = opened.total + 1
    with pytest.raises(SharingRefused, match="isn't the one that"):
        check_opened(found.agreement, opened.transcript, opened.ciphertexts, lie)


# Keys and ciphertexts that nobody made


def made_up_keys() -> dict[str, bytes]:
    random = np.random.default_rng(5)
    key = (2, 2, DEGREE)
    moduli = np.array(seal._moduli(), dtype=np.uint64)[None, :, None]
    return {
        "zero": bytes(seal.PUBLIC_KEY_BYTES),
        "largest": np.broadcast_to(moduli - np.uint64(1), key).astype("<u8").tobytes(),
        "random": (random.integers(0, 2**63, key, dtype=np.uint64) % moduli).tobytes(),
    }


@pytest.mark.parametrize(
    ("kind", "why"),
    [("zero", "isn't random"), ("largest", "isn't random"), ("random", "aren't integers")],
)
def test_a_made_up_key_opens_nothing_and_hurts_nobody(kind: str, why: str) -> None:
    """A key holder that signs residues which are no key. Under zeros, ciphertexts would be clear;
    under others, domains encrypt and nothing decrypts."""
    found = domains()
    holder = key_holder(found.agreement)
    public = made_up_keys()[kind]

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = found.exchange(phase, arguments)
        if phase == "advertise":
            signature = found.keys[holder].sign(advert_message(found.agreement, holder, public))
            lie = KeyAdvert(domain=holder, public_key=public, signature=signature)
            answers[holder] = found.parties[holder]._advert = lie
        return answers

    with pytest.raises(SumAborted) as aborted:
        found.run(exchange)
    assert aborted.value.domain == holder
    assert why in str(aborted.value) + str(found.refusals)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("value", [0, 1, -1])
def test_made_up_ciphertexts_within_range_decrypt_to_something(part: int, value: int) -> None:
    """SEAL's own code takes all that passes our checks; `from_slots` judges what comes out."""
    secret, _ = seal.generate()
    ciphertext = np.zeros((1, 2, DEGREE), dtype=np.uint64)
    ciphertext[:, part, :] = value % seal.modulus()
    slots = seal.decrypt(secret, ciphertext, 27)
    assert np.isfinite(slots.view(np.float64)).all()


@pytest.mark.parametrize("size", [0, 1, seal.CIPHERTEXT_BYTES - 1, 2 * seal.CIPHERTEXT_BYTES])
def test_other_than_the_agreed_bytes_are_refused_by_their_number(size: int) -> None:
    agreement = domains().agreement
    assert shape_of(agreement) == (1, 2, DEGREE)
    with pytest.raises(MalformedMessage, match="expected"):
        read_residues(agreement, memoryview(bytes(size)))


# Decoding at its bounds


def slots_of(numbers: list[float]) -> np.ndarray:
    found = np.zeros(DEGREE)
    found[: len(numbers)] = numbers
    return found.view(np.complex128)[None]


@pytest.mark.parametrize("sign", [-1, 1])
def test_numbers_decode_up_to_the_error_and_the_bounds_and_no_further(sign: int) -> None:
    layout = layout_of(3, 32)
    assert layout is not None
    quarter, most = float(MAX_ERROR), float(layout.largest)
    found, distance = limbs.from_slots(slots_of([sign * quarter, 7 - sign * quarter]), 2, layout)
    assert found.tolist() == [0, 7]
    assert distance == quarter
    largest = most - 1 if sign > 0 else -most
    assert limbs.from_slots(slots_of([largest]), 1, layout)[0].tolist() == [int(largest)]
    beyond = np.nextafter(quarter, 1)
    for wrong, why in (
        ([sign * beyond], "aren't integers"),
        ([sign * (most + 1)], "bounds"),
        ([sign * np.inf], "aren't integers"),
        ([np.nan], "aren't integers"),
        ([0.0, sign], "more numbers"),
    ):
        with pytest.raises(limbs.NotIntegers, match=why):
            limbs.from_slots(slots_of(wrong), 1, layout)


def test_a_total_beyond_the_ring_is_not_opened() -> None:
    layout = layout_of(64, 64)
    assert layout is not None
    top = [0.0] * (layout.limbs - 1) + [2.0 ** (layout.limb_bits + 3)]
    with pytest.raises(limbs.NotIntegers, match="beyond"):
        limbs.from_slots(slots_of(top), 1, layout)


def test_every_primitive_gives_its_known_answers() -> None:
    assert json.loads(json.dumps(vectors())) == json.loads(FILE.read_text())
