"""What anyone can check of the messages of one attempt: domains, the hub and auditors alike.

Whatever is wrong is pinned on the domain whose message it is. What a domain signs, and when, is
`network.smpc.aggregation`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from network.smpc.attempt import Agreement
from network.smpc.keys import UnusableKey, check_public_key
from network.smpc.messages import (
    Advert,
    Confirmation,
    Receipt,
    SealedShares,
    SharingRefused,
    Unmasking,
    advert_message,
    is_signed,
    members_of,
    receipt_message,
    sealed_message,
    unmasking_message,
)


def verify_adverts(agreement: Agreement, adverts: Sequence[Advert]) -> dict[str, Advert]:
    """Check that these are adverts of at least tau domains of the roster, for this attempt.

    Returns:
        The adverts by domain, sorted by name.

    Raises:
        SharingRefused: see `Party.share`.
    """
    known = _unique(agreement, adverts, agreement.names, "advert")
    owners: dict[bytes, str] = {}
    for name, advert in known.items():
        verify_advert(agreement, advert)
        for key in (advert.cipher_key, advert.mask_key):
            if key in owners:
                raise SharingRefused(name, f"uses the same public key as {owners[key]}")
            owners[key] = name
    return known


def verify_advert(agreement: Agreement, advert: Advert) -> None:
    """Check one advert's signature and keys.

    Raises:
        SharingRefused: it isn't the domain's for this attempt, or its keys are unusable.
    """
    name = advert.domain
    message = advert_message(agreement, dict(advert))
    if not is_signed(message, advert.signature, agreement.roster.get(name, "")):
        raise SharingRefused(name, "its advert isn't signed for this attempt by its node's key")
    for key in (advert.cipher_key, advert.mask_key):
        try:
            check_public_key(key)
        except UnusableKey as error:
            raise SharingRefused(name, f"it signed a bad advert: {error}") from None


def verify_sealed(agreement: Agreement, transcript: bytes, sealed: SealedShares) -> None:
    """Check the dealer's signature.

    Raises:
        SharingRefused: it isn't of this attempt and these adverts.
    """
    message = sealed_message(transcript, dict(sealed))
    if not is_signed(message, sealed.signature, agreement.roster[sealed.sender]):
        raise SharingRefused(
            sealed.sender, "its shares aren't signed by its node's key for this attempt and adverts"
        )


def verify_receipts(
    agreement: Agreement, transcript: bytes, members: tuple[str, ...], receipts: Sequence[Receipt]
) -> dict[str, Receipt]:
    """Check that these are receipts of at least tau members who all saw the same members.

    Returns:
        The receipts by domain, sorted by name: the survivors.

    Raises:
        SharingRefused: see `Party.confirm`.
    """
    known = _signed(agreement, transcript, members, receipts)
    for name, receipt in known.items():
        if receipt.members != members:
            raise SharingRefused(name, "it signed an input among other members than ours")
    return known


def verify_masked(
    agreement: Agreement,
    transcript: bytes,
    receipts: Sequence[Receipt],
    ours: Receipt | None = None,
) -> dict[str, Receipt]:
    """The same where each domain is masked with its neighbours alone.

    Where one domain is masked with another, or a third one is, all around that other must be.

    Args:
        ours: whose receipt contradicts it is named first; the first one without.

    Raises:
        SharingRefused: see `Party.confirm`.
    """
    members = members_of(receipts)
    known = _signed(agreement, transcript, members, receipts)
    first = ours or next(iter(known.values()))
    for name, receipt in known.items():
        shared = set(agreement.neighbourhood(name)) & set(agreement.neighbourhood(first.domain))
        if shared & set(receipt.members) != shared & set(first.members):
            raise SharingRefused(name, "it signed a masked input among other members than ours")
    for name, receipt in known.items():
        around = agreement.neighbourhood(name)
        if receipt.members != tuple(other for other in around if other in members):
            raise SharingRefused(name, "it signed a masked input among other members than the rest")
    return known


def _signed(
    agreement: Agreement, transcript: bytes, members: tuple[str, ...], receipts: Sequence[Receipt]
) -> dict[str, Receipt]:
    for receipt in receipts:
        # Before it is hashed: whoever carries receipts can write any members in them.
        said = set(receipt.members)
        if receipt.members != tuple(name for name in agreement.names if name in said):
            raise SharingRefused(receipt.domain, "its receipt doesn't list domains of the roster")
    known = _unique(agreement, receipts, members, "receipt")
    for name, receipt in known.items():
        message = receipt_message(transcript, dict(receipt))
        if not is_signed(message, receipt.signature, agreement.roster[name]):
            raise SharingRefused(name, "its masked input isn't signed for this attempt and adverts")
    return known


def verify_confirmations(
    agreement: Agreement,
    message: bytes,
    survivors: Mapping[str, Receipt],
    confirmations: Sequence[Confirmation],
) -> dict[str, Confirmation]:
    """Check that at least tau survivors confirmed the set that `message` describes.

    Raises:
        SharingRefused: see `Party.unmask`.
    """
    known = _unique(agreement, confirmations, tuple(survivors), "confirmation")
    for name, confirmation in known.items():
        if not is_signed(message, confirmation.signature, agreement.roster[name]):
            raise SharingRefused(name, "it didn't confirm the set of survivors that we confirmed")
    return known


def verify_confirmation(
    agreement: Agreement, message: bytes, name: str, confirmation: Confirmation
) -> None:
    """Check what one survivor answered when it was asked to confirm the set `message` describes.

    Raises:
        SharingRefused: it speaks for another, or didn't sign this set.
    """
    if confirmation.domain != name:
        raise SharingRefused(name, "sent a confirmation under another name")
    if not is_signed(message, confirmation.signature, agreement.roster[name]):
        raise SharingRefused(name, "it didn't confirm the set of survivors that it was asked for")


def verify_unmasking(
    agreement: Agreement,
    message: bytes,
    survivors: Mapping[str, Receipt],
    name: str,
    answer: Unmasking,
) -> None:
    """Check that these are a survivor's own shares, and of all that it was to give shares of.

    Args:
        message: the set that tau domains confirmed.

    Raises:
        SharingRefused: it speaks for another, didn't sign this, or gives other shares.
    """
    if answer.domain != name:
        raise SharingRefused(name, "sent shares under another name")
    if name not in survivors:
        raise SharingRefused(name, "sent shares but isn't among the survivors")
    said = unmasking_message(message, name, answer.seed_shares, answer.key_shares)
    if not is_signed(said, answer.signature, agreement.roster[name]):
        raise SharingRefused(name, "its shares aren't signed for this set of survivors")
    around = set(agreement.neighbourhood(name))
    dropped = set(members_of(survivors.values())) - set(survivors)
    asked = set(survivors) & around, dropped & around
    if (set(answer.seed_shares), set(answer.key_shares)) != asked:
        raise SharingRefused(name, "it signed shares of other domains than those asked for")


class _Said(Protocol):
    @property
    def domain(self) -> str: ...


_M = TypeVar("_M", bound=_Said)


def _unique(
    agreement: Agreement, messages: Sequence[_M], expected: Sequence[str], what: str
) -> dict[str, _M]:
    known: dict[str, _M] = {}
    for message in messages:
        if message.domain not in expected:
            raise SharingRefused(message.domain, f"sent a {what} but isn't on the list for it")
        if message.domain in known:
            raise SharingRefused(message.domain, f"sent more than one {what} for this attempt")
        known[message.domain] = message
    if len(known) < agreement.threshold:
        missing = [name for name in expected if name not in known]
        raise SharingRefused(
            next(iter(missing or expected), "the coordinator"),
            f"sent no {what}; {len(known)} are fewer than the threshold {agreement.threshold}",
        )
    return {name: known[name] for name in sorted(known)}
