"""Splitting a sum of private vectors into shares, each of which is uniform by itself.

Domain u holds a vector x_u. Its share of the sum of all of them is

    x_u + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv)    (mod 2^64)

with s_uv agreed by X25519 for this one sharing: what `aggregation` sends, without the mask that is
only the domain's own. The masks cancel in the sum over all domains, and any N - 1 of the shares are
uniform and independent. So a tensor is lost with any domain, and its shares stay where they are.

The same pairs of keys, signed for one purpose, seal multiplication triples (`triples`).
"""

import hashlib
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from network.smpc import ring
from network.smpc.attempt import Agreement, framed
from network.smpc.keys import EphemeralKey, UnusableKey, check_public_key
from network.smpc.masks import Mask, apply, mask_key
from network.smpc.messages import (
    Key,
    Name,
    SharingRefused,
    Signature,
    _Message,
    is_signed,
    pair_info,
)


class TensorKey(_Message):
    """A domain's fresh X25519 key, signed for one sharing or one product."""

    domain: Name
    key: Key
    signature: Signature


def sign_key(
    me: str, agreement: Agreement, key: EphemeralKey, signing_key: Ed25519PrivateKey
) -> TensorKey:
    """This domain's key for what the agreement's context says."""
    message = _key_message(agreement, me, key.public_key)
    return TensorKey(domain=me, key=key.public_key, signature=signing_key.sign(message))


def verify_keys(agreement: Agreement, keys: Sequence[TensorKey]) -> dict[str, TensorKey]:
    """Check that these are usable keys of the whole roster, each signed for this purpose.

    Returns:
        The keys by domain, sorted by name.

    Raises:
        SharingRefused: one is missing, there twice, a stranger's, wrongly signed or unusable.
    """
    known = {each.domain: each for each in keys}
    if len(known) != len(keys) or set(known) != set(agreement.names):
        missing = sorted(set(agreement.names) - set(known))
        raise SharingRefused(
            missing[0] if missing else keys[0].domain, "every domain's key is needed, once"
        )
    if len({each.key for each in keys}) != len(keys):
        raise SharingRefused(keys[0].domain, "two domains have the same key")
    for name, each in known.items():
        message = _key_message(agreement, name, each.key)
        if not is_signed(message, each.signature, agreement.roster[name]):
            raise SharingRefused(name, "its key isn't signed for this by its node's key")
        try:
            check_public_key(each.key)
        except UnusableKey as error:
            raise SharingRefused(name, f"it signed a bad key: {error}") from None
    return {name: known[name] for name in sorted(known)}


def keys_transcript(agreement: Agreement, keys: Mapping[str, TensorKey]) -> bytes:
    """SHA-256 over the agreement and all keys, sorted by domain."""
    parts = [_key_message(agreement, name, keys[name].key) for name in sorted(keys)]
    return hashlib.sha256(framed(b"coterie-tensor-keys-v1", agreement.bytes, *parts)).digest()


class Sharing:
    """One domain's part in sharing one sum; its key dies with it.

    Args:
        me: this domain's name on the roster.
        agreement: on this one sharing; 64-bit ring.
        signing_key: this node's Ed25519 key.
    """

    def __init__(self, me: str, agreement: Agreement, signing_key: Ed25519PrivateKey) -> None:
        self.me = me
        self.agreement = agreement
        self._key = EphemeralKey.generate()
        self.signed_key = sign_key(me, agreement, self._key, signing_key)

    def verify(self, keys: Sequence[TensorKey]) -> bytes:
        """The transcript of these keys, if they are everybody's and ours is ours.

        Raises:
            SharingRefused: see `verify_keys`.
        """
        return keys_transcript(self.agreement, self._known(keys))

    def share(self, value: NDArray, keys: Sequence[TensorKey]) -> ring.Elements:
        """This domain's share of the sum: uint64 [P], in the memory of `value`. Once only.

        Args:
            value: int64 [P], this domain's own vector; overwritten.

        Raises:
            SharingRefused: see `verify_keys`.
        """
        known = self._known(keys)
        elements = ring.into_ring(value, self.agreement.bits)
        public = {name: each.key for name, each in known.items()}
        apply(elements, pair_masks(self.verify(keys), self.me, self._key, public))
        self._key.erase()
        return elements

    def _known(self, keys: Sequence[TensorKey]) -> dict[str, TensorKey]:
        known = verify_keys(self.agreement, keys)
        if known[self.me] != self.signed_key:
            raise SharingRefused(self.me, "the key under our own name isn't of this sharing")
        return known


def pair_masks(
    transcript: bytes, me: str, key: EphemeralKey, public_keys: Mapping[str, bytes]
) -> list[Mask]:
    """The masks that `me` shares with each other domain: added with those that come after."""
    masks = []
    for name, public_key in public_keys.items():
        if name != me:
            agreed = key.agree(public_key)
            masks.append(Mask(mask_key(agreed, pair_info(transcript, me, name)), name < me))
    return masks


def _key_message(agreement: Agreement, domain: str, key: bytes) -> bytes:
    return framed(b"coterie-tensor-key-v1", agreement.bytes, domain.encode(), key)
