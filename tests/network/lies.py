"""What a hub and a domain may try in one step of an attempt, as functions of what it says.

A hub changes the argument of one domain's step, a peer what it answers. Each lie is listed with its
step and with who is to be named, if the protocol can.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from network.smpc import shamir
from network.smpc.coordination import SumAborted
from network.smpc.keys import EphemeralKey
from network.smpc.messages import (
    Advert,
    Receipt,
    advert_message,
    confirmation_message,
    receipt_message,
    sealed_message,
    transcript_hash,
    unmasking_message,
)
from tests.network.coalition import Coalition
from tests.network.roster_of_domains import Domains

HONEST, LIAR, OTHER = "domain-0", "domain-1", "domain-2"
Tamper = Callable[["Attack", str, Any], Any]


@dataclass
class Attack:
    """A run in which the hub changes what it hands to one domain, or a peer what it answers."""

    domains: Domains
    phase: str
    change: Tamper
    whom: str
    answers: bool
    earlier: dict[str, Any]
    coalition: Coalition = field(init=False)

    def __post_init__(self) -> None:
        self.coalition = Coalition(self.domains, (LIAR, OTHER))

    def exchange(self, phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase == self.phase and not self.answers:
            found = dict(arguments)
            found[self.whom] = self.change(self, self.whom, found[self.whom])
            arguments = found
        answers = self.coalition.exchange(phase, arguments)
        if phase == self.phase and self.answers and self.whom in answers:
            answers[self.whom] = self.change(self, self.whom, answers[self.whom])
        return answers

    def sign(self, name: str, message: bytes) -> bytes:
        return self.domains.keys[name].sign(message)

    def transcript(self) -> bytes:
        adverts = {a.domain: a for a in self.domains.said if isinstance(a, Advert)}
        return transcript_hash(self.domains.agreement, adverts)


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def of(messages: list[Any], name: str, field: str = "domain") -> int:
    return next(i for i, m in enumerate(messages) if getattr(m, field) == name)


def changed(messages: list[Any], index: int, **fields: Any) -> list[Any]:
    messages = list(messages)
    messages[index] = messages[index].model_copy(update=fields)
    return messages


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


def transcript_of(domains: Domains) -> bytes:
    adverts = {a.domain: a for a in domains.said if isinstance(a, Advert)}
    return transcript_hash(domains.agreement, adverts)


# What a hub may try: the argument of one domain's step


def swapped_key(a: Attack, _: str, adverts: list[Advert]) -> list[Advert]:
    """A hub in the middle puts its own key in."""
    key = EphemeralKey.generate().public_key
    return changed(adverts, of(adverts, LIAR), mask_key=key)


def old_advert(a: Attack, _: str, adverts: list[Advert]) -> list[Advert]:
    return [a.earlier["advert"] if m.domain == LIAR else m for m in adverts]


def other_plan(a: Attack, _: str, adverts: list[Advert]) -> list[Advert]:
    there = replace(
        a.domains.agreement, context=replace(a.domains.agreement.context, plan_hash="cd" * 32)
    )
    mine = adverts[of(adverts, LIAR)]
    signature = a.sign(LIAR, advert_message(there, dict(mine)))
    return changed(adverts, of(adverts, LIAR), signature=signature)


def split_roster(a: Attack, _: str, adverts: list[Advert]) -> list[Advert]:
    return [m for m in adverts if m.domain != LIAR]


def doubled_advert(a: Attack, _: str, adverts: list[Advert]) -> list[Advert]:
    return [*adverts, adverts[of(adverts, LIAR)]]


def stranger(a: Attack, _: str, adverts: list[Advert]) -> list[Advert]:
    return [*adverts, adverts[0].model_copy(update={"domain": "mallory"})]


def ours_replaced(a: Attack, name: str, adverts: list[Advert]) -> list[Advert]:
    return [a.earlier["own advert"] if m.domain == name else m for m in adverts]


def flipped_shares(a: Attack, _: str, sealed: list[Any]) -> list[Any]:
    i = of(sealed, LIAR, "sender")
    return changed(sealed, i, ciphertext=flip(sealed[i].ciphertext))


def readdressed(a: Attack, _: str, sealed: list[Any]) -> list[Any]:
    return changed(sealed, of(sealed, LIAR, "sender"), receiver=OTHER)


def resold(a: Attack, _: str, sealed: list[Any]) -> list[Any]:
    """One peer's shares under another's name."""
    return changed(sealed, of(sealed, LIAR, "sender"), sender=OTHER)


def old_shares(a: Attack, name: str, sealed: list[Any]) -> list[Any]:
    return [a.earlier["sealed"] if m.sender == LIAR else m for m in sealed]


def reflected(a: Attack, name: str, sealed: list[Any]) -> list[Any]:
    """What a domain dealt to a peer comes back to it as what the peer dealt."""
    dealt = next(
        said for said in a.domains.said if isinstance(said, list) and said[0].sender == name
    )
    mine = dealt[of(dealt, LIAR, "receiver")]
    back = mine.model_copy(update={"sender": LIAR, "receiver": name})
    return [back if m.sender == LIAR else m for m in sealed]


def hidden_dealers(a: Attack, _: str, sealed: list[Any]) -> list[Any]:
    return sealed[:1]


def split_members(a: Attack, _: str, sealed: list[Any]) -> list[Any]:
    """One domain is told that a peer never dealt; the others aren't."""
    return [m for m in sealed if m.sender != LIAR]


def other_survivors(a: Attack, _: str, receipts: list[Receipt]) -> list[Receipt]:
    """One domain is told that a peer dropped; the others, that it survived."""
    return [m for m in receipts if m.domain != LIAR]


def too_few_survivors(a: Attack, _: str, receipts: list[Receipt]) -> list[Receipt]:
    return receipts[:2]


def forged_receipt(a: Attack, _: str, receipts: list[Receipt]) -> list[Receipt]:
    return changed(receipts, of(receipts, LIAR), digest=bytes(32))


def ours_dropped(a: Attack, name: str, receipts: list[Receipt]) -> list[Receipt]:
    return [m for m in receipts if m.domain != name]


def renamed_receipt(a: Attack, _: str, receipts: list[Receipt]) -> list[Receipt]:
    """One peer's masked input counts twice, the second time as another's."""
    mine = receipts[of(receipts, OTHER)]
    return [mine.model_copy(update={"domain": LIAR}) if m.domain == LIAR else m for m in receipts]


def everybodys_members_changed(a: Attack, _: str, receipts: list[Receipt]) -> list[Receipt]:
    """All receipts say that a survivor never was a member, as if none were masked with it."""
    left = tuple(name for name in receipts[0].members if name != LIAR)
    return [m.model_copy(update={"members": left}) for m in receipts if m.domain != LIAR]


def own_confirmation_for_all(a: Attack, name: str, confirmations: list[Any]) -> list[Any]:
    """A domain's own words come back to it from everybody."""
    mine = confirmations[of(confirmations, name)]
    return [mine.model_copy(update={"domain": m.domain}) for m in confirmations]


def too_few_confirmations(a: Attack, _: str, confirmations: list[Any]) -> list[Any]:
    return confirmations[:-4]


def forged_confirmation(a: Attack, _: str, confirmations: list[Any]) -> list[Any]:
    i = of(confirmations, LIAR)
    return changed(confirmations, i, signature=flip(confirmations[i].signature))


def doubled_confirmation(a: Attack, _: str, confirmations: list[Any]) -> list[Any]:
    return [*confirmations, confirmations[of(confirmations, LIAR)]]


# What a peer may try, signing whatever it likes: its own answer


def weak_key(a: Attack, name: str, advert: Advert) -> Advert:
    return resigned_advert(a, advert, mask_key=bytes(32))


def copied_key(a: Attack, name: str, advert: Advert) -> Advert:
    return resigned_advert(a, advert, mask_key=a.domains.parties[HONEST].advertise().mask_key)


def one_key_twice(a: Attack, name: str, advert: Advert) -> Advert:
    return resigned_advert(a, advert, mask_key=advert.cipher_key)


def disguised_key(a: Attack, name: str, advert: Advert) -> Advert:
    """An honest peer's key in another encoding: X25519 doesn't look at the top bit."""
    theirs = a.domains.parties[HONEST].advertise().mask_key
    return resigned_advert(a, advert, mask_key=theirs[:31] + bytes([theirs[31] ^ 128]))


def resigned_advert(a: Attack, advert: Advert, **fields: Any) -> Advert:
    bad = advert.model_copy(update=fields)
    message = advert_message(a.domains.agreement, dict(bad))
    return bad.model_copy(update={"signature": a.sign(advert.domain, message)})


def crossed(a: Attack, name: str, sealed: list[Any]) -> list[Any]:
    """One domain is dealt what is sealed for another."""
    theirs = sealed[of(sealed, OTHER, "receiver")]
    return resealed(a, sealed, ciphertext=theirs.ciphertext)


def unopenable(a: Attack, name: str, sealed: list[Any]) -> list[Any]:
    return resealed(a, sealed, ciphertext=flip(sealed[of(sealed, HONEST, "receiver")].ciphertext))


def uncommitted(a: Attack, name: str, sealed: list[Any]) -> list[Any]:
    return resealed(a, sealed, seed_share_digest=bytes(32))


def resealed(a: Attack, sealed: list[Any], **fields: Any) -> list[Any]:
    """What is dealt to the honest domain, changed and signed."""
    i = of(sealed, HONEST, "receiver")
    bad = sealed[i].model_copy(update=fields)
    signature = a.sign(bad.sender, sealed_message(a.transcript(), dict(bad)))
    return changed(sealed, i, **fields, signature=signature)


def missing_receiver(a: Attack, name: str, sealed: list[Any]) -> list[Any]:
    return sealed[1:]


def other_vector(a: Attack, name: str, answer: tuple[Receipt, np.ndarray]) -> Any:
    """Masked elements that aren't the signed ones."""
    return answer[0], answer[1] + np.uint64(1)


def own_members(a: Attack, name: str, answer: tuple[Receipt, np.ndarray]) -> Any:
    return members_changed(a, answer, answer[0].members[:-1])


def itself_twice(a: Attack, name: str, answer: tuple[Receipt, np.ndarray]) -> Any:
    return members_changed(a, answer, tuple(sorted((*answer[0].members, name))))


def members_changed(a: Attack, answer: tuple[Receipt, np.ndarray], members: tuple[str, ...]) -> Any:
    receipt = answer[0]
    message = receipt_message(a.transcript(), dict(receipt) | {"members": members})
    signature = a.sign(receipt.domain, message)
    return receipt.model_copy(update={"members": members, "signature": signature}), answer[1]


def false_confirmation(a: Attack, name: str, confirmation: Any) -> Any:
    return confirmation.model_copy(update={"signature": a.sign(name, b"something else")})


def confirms_as_another(a: Attack, name: str, confirmation: Any) -> Any:
    return confirmation.model_copy(update={"domain": OTHER})


def unmasks_as_another(a: Attack, name: str, unmasking: Any) -> Any:
    return unmasking.model_copy(update={"domain": OTHER})


def another_s_share_signed(a: Attack, name: str, unmasking: Any) -> Any:
    """A share that its dealer never dealt, and signed, so that only opening with it tells."""
    shares = {**unmasking.seed_shares, HONEST: bytes(shamir.SHARE_BYTES)}
    said = [each for each in a.domains.said if isinstance(each, tuple)]
    message = confirmation_message(a.transcript(), {r.domain: r for r, _ in said})
    signature = a.sign(name, unmasking_message(message, name, shares, unmasking.key_shares))
    return unmasking.model_copy(update={"seed_shares": shares, "signature": signature})


def false_share(a: Attack, name: str, unmasking: Any) -> Any:
    shares = {**unmasking.seed_shares, HONEST: bytes(shamir.SHARE_BYTES)}
    return resigned(a, name, unmasking, shares)


def withheld_share(a: Attack, name: str, unmasking: Any) -> Any:
    shares = {n: s for n, s in unmasking.seed_shares.items() if n != HONEST}
    return resigned(a, name, unmasking, shares)


def resigned(a: Attack, name: str, unmasking: Any, shares: dict[str, bytes]) -> Any:
    bad = unmasking.model_copy(update={"seed_shares": shares, "signature": bytes(64)})
    a.earlier["forged"] = bad
    return bad


HUB: list[tuple[str, Tamper, str | None]] = [
    ("share", swapped_key, LIAR),
    ("share", old_advert, LIAR),
    ("share", other_plan, LIAR),
    ("share", split_roster, HONEST),
    ("share", doubled_advert, LIAR),
    ("share", stranger, "mallory"),
    ("share", ours_replaced, HONEST),
    ("reveal", flipped_shares, LIAR),
    ("reveal", readdressed, LIAR),
    ("reveal", resold, OTHER),
    ("reveal", old_shares, LIAR),
    ("reveal", reflected, LIAR),
    ("reveal", hidden_dealers, OTHER),
    ("reveal", split_members, HONEST),
    ("confirm", other_survivors, None),
    ("confirm", too_few_survivors, OTHER),
    ("confirm", forged_receipt, LIAR),
    ("confirm", ours_dropped, HONEST),
    ("confirm", renamed_receipt, LIAR),
    ("confirm", everybodys_members_changed, None),
    ("unmask", own_confirmation_for_all, None),
    ("unmask", too_few_confirmations, None),
    ("unmask", forged_confirmation, LIAR),
    ("unmask", doubled_confirmation, LIAR),
]
PEER: list[tuple[str, Tamper, str | None]] = [
    ("advertise", weak_key, LIAR),
    ("advertise", copied_key, LIAR),
    ("advertise", one_key_twice, LIAR),
    ("advertise", disguised_key, LIAR),
    ("share", crossed, LIAR),
    ("share", unopenable, LIAR),
    ("share", uncommitted, LIAR),
    ("share", missing_receiver, LIAR),
    ("reveal", other_vector, LIAR),
    ("reveal", own_members, LIAR),
    ("reveal", itself_twice, LIAR),
    ("confirm", false_confirmation, LIAR),
    ("confirm", confirms_as_another, LIAR),
    ("unmask", false_share, LIAR),
    ("unmask", unmasks_as_another, LIAR),
    ("unmask", another_s_share_signed, LIAR),
    ("unmask", withheld_share, LIAR),
]
