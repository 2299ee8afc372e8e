"""What anyone can check of an attempt's messages under CKKS; see `network.smpc.verification`."""

from collections.abc import Mapping, Sequence

from network.smpc.attempt import Agreement
from network.smpc.ckks import seal
from network.smpc.ckks.messages import (
    Joining,
    KeyAdvert,
    TaggedConfirmation,
    advert_message,
    challenge_of,
    confirmation_message,
    joining_message,
    key_holder,
    require_all,
)
from network.smpc.ckks.tags import add_tags, tag_of
from network.smpc.masks import digest_of
from network.smpc.messages import SharingRefused, is_signed


def verify_adverts(agreement: Agreement, adverts: Sequence[KeyAdvert]) -> dict[str, KeyAdvert]:
    """Check that these are adverts of at least tau domains, the key holder among them.

    Returns:
        The adverts by domain, sorted by name.

    Raises:
        SharingRefused: see `CkksParty.share`.
    """
    known: dict[str, KeyAdvert] = {}
    for advert in adverts:
        verify_advert(agreement, advert)
        if advert.domain in known:
            raise SharingRefused(advert.domain, "sent more than one advert for this attempt")
        known[advert.domain] = advert
    _require_enough(agreement, known, "advert")
    return {name: known[name] for name in sorted(known)}


def verify_advert(agreement: Agreement, advert: KeyAdvert) -> None:
    """Check one advert's signature and key.

    Raises:
        SharingRefused: it isn't the domain's for this attempt, or its key is unusable.
    """
    name = advert.domain
    message = advert_message(agreement, name, advert.public_key)
    if not is_signed(message, advert.signature, agreement.roster.get(name, "")):
        raise SharingRefused(name, "its advert isn't signed for this attempt by its node's key")
    if name != key_holder(agreement):
        if advert.public_key:
            raise SharingRefused(name, "it signed a public key, but it isn't its turn")
        return
    try:
        seal.check_public_key(advert.public_key)
    except seal.NotResidues as error:
        raise SharingRefused(name, f"it signed a bad advert: {error}") from None


def verify_joined(
    agreement: Agreement, transcript: bytes, joined: Sequence[Joining]
) -> tuple[str, ...]:
    """Check that at least tau domains joined, the key holder among them; gives them sorted.

    Raises:
        SharingRefused: see `CkksParty.mask`.
    """
    known: dict[str, Joining] = {}
    for each in joined:
        verify_joining(agreement, transcript, each)
        if each.domain in known:
            raise SharingRefused(each.domain, "joined twice")
        known[each.domain] = each
    _require_enough(agreement, known, "message that it joins")
    return tuple(sorted(known))


def verify_joining(agreement: Agreement, transcript: bytes, joining: Joining) -> None:
    """Check one domain's signature that it joins.

    Raises:
        SharingRefused: it isn't of this attempt and these adverts.
    """
    name = joining.domain
    message = joining_message(transcript, name)
    if not is_signed(message, joining.signature, agreement.roster.get(name, "")):
        raise SharingRefused(name, "it didn't join this attempt under these adverts")


def verify_confirmations(
    agreement: Agreement,
    message: bytes,
    chosen: Sequence[str],
    total: bytes,
    confirmations: Sequence[TaggedConfirmation],
) -> None:
    """Check that every domain of the set confirmed it and its sum.

    Args:
        message: `set_message`.

    Raises:
        SharingRefused: see `CkksParty.unmask`.
    """
    require_all([each.domain for each in confirmations], chosen, "confirmation")
    for each in confirmations:
        said = confirmation_message(message, each.domain, each.tag)
        if each.total != total or not is_signed(
            said, each.signature, agreement.roster[each.domain]
        ):
            raise SharingRefused(each.domain, "it didn't confirm the set and sum that we confirmed")


def verify_sum(
    message: bytes,
    total: bytes,
    confirmations: Sequence[TaggedConfirmation],
    ciphertexts: seal.Residues,
) -> None:
    """Check that ciphertexts are the confirmed sum, and the sum of what was confirmed.

    Raises:
        SharingRefused: they aren't. Whoever added them may be to blame, or a domain whose tag
            isn't that of its ciphertexts.
    """
    if digest_of(ciphertexts.ravel()) != total:
        raise SharingRefused("the coordinator", "sent another sum than the one confirmed")
    expected = add_tags([each.tag for each in confirmations])
    if tag_of(challenge_of(message), ciphertexts) != expected:
        raise SharingRefused("the coordinator", "its sum isn't that of the ciphertexts confirmed")


def _require_enough(agreement: Agreement, known: Mapping[str, object], what: str) -> None:
    if len(known) < agreement.threshold or key_holder(agreement) not in known:
        missing = [name for name in agreement.names if name not in known]
        holder = key_holder(agreement)
        culprit = holder if holder in missing else missing[0]
        raise SharingRefused(
            culprit,
            f"sent no {what}; there must be {agreement.threshold}, of the key holder {holder} too",
        )
