"""One domain's part in one attempt of a sum: Bonawitz et al. 2017, against active adversaries.

"Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017, figure 4 with the
parts for malicious settings. Domain u holds a vector x_u and sends, masked twice,

    y_u = x_u + PRG(b_u) + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv)    (mod 2^bits)

s_uv is agreed by X25519, so pairwise masks cancel among survivors; b_u is u's own. Both u's mask
key and b_u are shared among the roster (Shamir, threshold tau). In the end tau domains give either
their share of b_u (u survived) or of u's mask key (u was dropped), never both. The steps:

    advertise -> share -> mask -> confirm -> unmask
    keys        shares    y_u     one set of survivors, signed    shares

With 2 tau > N + t two different sets of survivors can't both be signed by tau domains, of which t
lie; so a hub that tells domains different things opens nothing. Beyond the paper, every share and
seed is committed to (SHA-256) in a signed message, so that whoever lies about one can be named.

A `Party` answers each step once: asked again it gives the same bytes or refuses. What it says is in
its `Store` before it is returned, so that a crash can't make it answer two ways; what a crash
leaves before `mask` dies with the keys, which are only in memory until then.
"""

import json
import os
from collections.abc import Iterable, Sequence
from mmap import mmap
from typing import Any, Protocol

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.exceptions import CryptoError
from numpy.typing import NDArray

from network.smpc import ring, shamir
from network.smpc.attempt import Agreement
from network.smpc.keys import EphemeralKey
from network.smpc.masks import Mask, apply, mask_key
from network.smpc.messages import (
    Advert,
    Confirmation,
    Receipt,
    SealedShares,
    SharingRefused,
    Unmasking,
    advert_message,
    confirmation_message,
    dealt_digest,
    receipt_message,
    sealed_message,
    seed_digest,
    self_info,
    share_digest,
    transcript_hash,
    unmasking_message,
)
from network.smpc.sharing import pair_masks
from network.smpc.verification import (
    verify_adverts,
    verify_confirmations,
    verify_masked,
    verify_sealed,
)

SEED, KEY = b"seed", b"key"
"""The two secrets a dealer shares: its self-mask seed and its mask key."""


class OutOfTurn(Exception):
    """This domain won't take the step: another answer was given, or keys died in a crash."""


class Store(Protocol):
    """Where one attempt's answers are kept on one domain; nobody else reads it."""

    def read(self, name: str) -> bytes | mmap | None:
        """What was written under this name, or None; something long may be mapped."""

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Keep the content; on the disk, durably, when this returns."""

    def erase(self, name: str) -> None:
        """Forget what was written under this name."""


class Party:
    """One domain in one attempt.

    Args:
        me: this domain's name on the roster.
        agreement: what all domains know from the plan.
        signing_key: this node's Ed25519 key, whose public half is on the roster.
        store: of this attempt alone.
    """

    def __init__(
        self, me: str, agreement: Agreement, signing_key: Ed25519PrivateKey, store: Store
    ) -> None:
        if me not in agreement.roster:
            raise ValueError(f"{me} isn't on the roster")
        self.me = me
        self.agreement = agreement
        self._signing_key = signing_key
        self._store = store
        self._secrets: _Secrets | None = None

    def advertise(self) -> Advert:
        """Begin: two fresh public keys and a commitment, signed for this attempt alone.

        Keys that died in a crash are simply replaced: nothing was masked with them, and what peers
        dealt to them belongs to other adverts, so to another transcript.

        Raises:
            OutOfTurn: this domain has masked its input in this attempt already.
        """
        if self._secrets is not None:
            return self._secrets.advert
        if self._store.read("receipt") is not None:
            raise OutOfTurn(f"{self.me}: this attempt was used; take the next one.")
        self._secrets = _Secrets(self.me, self.agreement, self._signing_key)
        return self._secrets.advert

    def share(self, adverts: Sequence[Advert]) -> list[SealedShares]:
        """Share this domain's two secrets among the domains that advertised.

        Args:
            adverts: of at least tau domains, this one among them.

        Returns:
            One sealed pair of shares for every other domain; they are independent of any data.

        Raises:
            SharingRefused: an advert is missing, unknown, there twice or wrongly signed, or its
                keys are unusable or another's.
            OutOfTurn: not advertised yet, or shared before among other adverts.
        """
        secrets = self._alive()
        known = verify_adverts(self.agreement, adverts)
        if known.get(self.me) != secrets.advert:
            raise SharingRefused(self.me, "the advert under our own name isn't of this attempt")
        if not secrets.adverts:
            secrets.deal(known, self._signing_key)
        elif secrets.adverts != known:
            raise OutOfTurn(f"{self.me}: this attempt was shared already, among other adverts.")
        return secrets.dealt

    def mask(
        self, value: NDArray[np.int64], sealed: Iterable[SealedShares]
    ) -> tuple[Receipt, ring.Elements]:
        """This domain's masked input, and its signature over it. Charge the ledger before sending.

        The masked input and the shares held for others are stored, and this attempt's keys erased.
        Whatever fails from the masking on ends the attempt here.

        Args:
            value: int64 [P]: clipped, quantised and noised already. It is overwritten.
            sealed: what the other members dealt to this domain; who dealt is a member.

        Returns:
            The receipt and the masked elements, uint32 or uint64 [P]. Asked again, the same.

        Raises:
            SharingRefused: fewer than tau members, or shares that are there twice, from a
                stranger, for another domain, wrongly signed or not those committed to.
            OutOfTurn: nothing was shared yet.
        """
        kept = self.masked()
        if kept is not None:
            return kept
        secrets = self._alive()
        if not secrets.adverts:
            raise OutOfTurn(f"{self.me}: nothing was shared in this attempt yet.")
        if value.shape != (self.agreement.length,):
            raise ValueError(f"the agreement is on {self.agreement.length} elements")
        sealed = list(sealed)
        held = secrets.receive(sealed)
        members = tuple(sorted(held))
        masks = secrets.masks(members)
        self._secrets = None
        secrets.erase()
        elements = ring.into_ring(value, self.agreement.bits)
        digest = apply(elements, masks)
        fields: dict[str, Any] = {
            "domain": self.me,
            "members": members,
            "digest": digest,
            "dealt": dealt_digest(secrets.transcript, sealed),
        }
        signature = self._signing_key.sign(receipt_message(secrets.transcript, fields))
        receipt = Receipt(**fields, signature=signature)
        self._store.write("held", _json({n: [s.hex() for s in pair] for n, pair in held.items()}))
        self._store.write("masked", elements.data)
        # The receipt comes last: where it is, everything is.
        record = {"receipt": receipt.to_dict(), "transcript": secrets.transcript.hex()}
        self._store.write("receipt", _json(record))
        return receipt, elements

    def masked(self) -> tuple[Receipt, ring.Elements] | None:
        """What `mask` answered in this attempt, or None."""
        record, kept = self._read("receipt"), self._store.read("masked")
        if record is None or kept is None:
            return None
        elements = np.frombuffer(kept, dtype=ring.word(self.agreement.bits))
        return Receipt.from_dict(record["receipt"]), elements

    def confirm(self, receipts: Sequence[Receipt]) -> Confirmation:
        """Sign the one set of masked inputs that this domain will help to open.

        Args:
            receipts: of at least tau survivors, this domain among them.

        Raises:
            SharingRefused: fewer than tau, or one is unknown, there twice, wrongly signed, or
                names other members.
            OutOfTurn: nothing was masked yet, the attempt was given up before, or another set was
                confirmed.
        """
        receipt, transcript = self._receipt()
        survivors = verify_masked(self.agreement, transcript, receipts, receipt)
        if survivors.get(self.me) != receipt:
            raise SharingRefused(self.me, "the receipt under our own name isn't ours")
        kept = self._store.read("confirmed")
        wanted = _json({name: survivors[name].to_dict() for name in sorted(survivors)})
        if kept is None:
            if self._store.read("held") is None:
                raise OutOfTurn(f"{self.me}: this attempt was given up; its shares are erased.")
            self._store.write("confirmed", wanted)
        elif bytes(kept) != wanted:
            raise OutOfTurn(f"{self.me}: another set of survivors was confirmed in this attempt.")
        message = confirmation_message(transcript, survivors)
        return Confirmation(domain=self.me, signature=self._signing_key.sign(message))

    def unmask(self, confirmations: Sequence[Confirmation]) -> Unmasking:
        """This domain's shares: of survivors' seeds and of dropped members' mask keys.

        The shares held are erased once the answer is stored.

        Args:
            confirmations: of at least tau survivors, all of the set this domain confirmed.

        Raises:
            SharingRefused: fewer than tau, or one is unknown, there twice or of another set.
            OutOfTurn: nothing was confirmed yet.
        """
        receipt, transcript = self._receipt()
        confirmed = self._read("confirmed")
        if confirmed is None:
            raise OutOfTurn(f"{self.me}: no set of survivors was confirmed in this attempt yet.")
        survivors = {name: Receipt.from_dict(each) for name, each in confirmed.items()}
        message = confirmation_message(transcript, survivors)
        verify_confirmations(self.agreement, message, survivors, confirmations)
        answered = self._read("unmasking")
        if answered is not None:
            return Unmasking.from_dict(answered)
        held = self._read("held")
        if held is None:
            raise OutOfTurn(f"{self.me}: this attempt was given up; its shares are erased.")
        ours = [name for name in receipt.members if name in survivors]
        seeds = {name: bytes.fromhex(held[name][0]) for name in ours}
        dropped = [name for name in receipt.members if name not in survivors]
        keys = {name: bytes.fromhex(held[name][1]) for name in dropped}
        signature = self._signing_key.sign(unmasking_message(message, self.me, seeds, keys))
        unmasking = Unmasking(
            domain=self.me, seed_shares=seeds, key_shares=keys, signature=signature
        )
        self._store.write("unmasking", _json(unmasking.to_dict()))
        self._store.erase("held")
        return unmasking

    def abandon(self) -> None:
        """Give the attempt up: its secrets are erased, and it can't be opened with our help."""
        if self._secrets is not None:
            self._secrets.erase()
            self._secrets = None
        self._store.erase("held")

    def _alive(self) -> "_Secrets":
        if self._secrets is None:
            raise OutOfTurn(
                f"{self.me}: this attempt is not the one advertised last (the node may have "
                "restarted). Start the next attempt."
            )
        return self._secrets

    def _receipt(self) -> tuple[Receipt, bytes]:
        record = self._read("receipt")
        if record is None:
            raise OutOfTurn(f"{self.me}: nothing was masked in this attempt yet.")
        return Receipt.from_dict(record["receipt"]), bytes.fromhex(record["transcript"])

    def _read(self, name: str) -> dict[str, Any] | None:
        content = self._store.read(name)
        return None if content is None else dict(json.loads(bytes(content)))


class _Secrets:
    """What a domain holds in memory between `advertise` and `mask`."""

    def __init__(self, me: str, agreement: Agreement, signing_key: Ed25519PrivateKey) -> None:
        self.me = me
        self.agreement = agreement
        self.cipher = EphemeralKey.generate()
        self.pairwise = EphemeralKey.generate()
        self.seed = bytearray(os.urandom(shamir.SECRET_BYTES))
        fields: dict[str, Any] = {
            "domain": me,
            "cipher_key": self.cipher.public_key,
            "mask_key": self.pairwise.public_key,
            "seed_digest": seed_digest(agreement, me, self.seed),
        }
        signature = signing_key.sign(advert_message(agreement, fields))
        self.advert = Advert(**fields, signature=signature)
        self.adverts: dict[str, Advert] = {}
        self.transcript = b""
        self.dealt: list[SealedShares] = []
        self._own: tuple[bytes, bytes] = (b"", b"")

    def deal(self, adverts: dict[str, Advert], signing_key: Ed25519PrivateKey) -> None:
        size, enough = len(self.agreement.roster), self.agreement.share_threshold
        seeds = shamir.split(self.seed, enough, size)
        keys = shamir.split(self.pairwise.secret, enough, size)
        self.transcript = transcript_hash(self.agreement, adverts)
        for name in self.agreement.neighbourhood(self.me):
            if name not in adverts:
                continue
            index = self.agreement.holder(name) - 1
            pair = seeds[index], keys[index]
            if name == self.me:
                self._own = pair
            else:
                self.dealt.append(self._sealed(name, adverts[name], pair, signing_key))
        self.adverts = adverts

    def _sealed(
        self, name: str, advert: Advert, pair: tuple[bytes, bytes], signing_key: Ed25519PrivateKey
    ) -> SealedShares:
        fields: dict[str, Any] = {
            "sender": self.me,
            "receiver": name,
            "ciphertext": self.cipher.seal(b"".join(pair), advert.cipher_key),
            "seed_share_digest": share_digest(self.transcript, SEED, self.me, name, pair[0]),
            "key_share_digest": share_digest(self.transcript, KEY, self.me, name, pair[1]),
        }
        signature = signing_key.sign(sealed_message(self.transcript, fields))
        return SealedShares(**fields, signature=signature)

    def receive(self, sealed: Iterable[SealedShares]) -> dict[str, tuple[bytes, bytes]]:
        """The shares held for every member around us, by dealer; our own among them."""
        held = {self.me: self._own}
        around = self.agreement.neighbourhood(self.me)
        for each in sealed:
            known = each.sender in self.adverts and each.sender in around
            if each.sender in held or not known:
                raise SharingRefused(each.sender, "dealt shares twice or without an advert")
            if each.receiver != self.me:
                raise SharingRefused(each.sender, "its shares are meant for another domain")
            verify_sealed(self.agreement, self.transcript, each)
            held[each.sender] = self._opened(each)
        needed = len(around) - (len(self.agreement.roster) - self.agreement.threshold)
        if len(held) < needed:
            missing = sorted(set(self.adverts) & set(around) - set(held))
            raise SharingRefused(
                missing[0] if missing else self.me,
                f"dealt no shares; {len(held)} members are fewer than {needed}",
            )
        return held

    def _opened(self, sealed: SealedShares) -> tuple[bytes, bytes]:
        try:
            opened = self.cipher.open(sealed.ciphertext, self.adverts[sealed.sender].cipher_key)
        except (CryptoError, TypeError, ValueError):
            raise SharingRefused(
                sealed.sender, "the shares it signed can't be opened with our key"
            ) from None
        pair = opened[: shamir.SHARE_BYTES], opened[shamir.SHARE_BYTES :]
        wanted = (sealed.seed_share_digest, sealed.key_share_digest)
        for kind, share, digest in zip((SEED, KEY), pair, wanted, strict=True):
            if share_digest(self.transcript, kind, sealed.sender, self.me, share) != digest:
                raise SharingRefused(sealed.sender, "the shares it signed aren't those inside")
        return pair

    def masks(self, members: Sequence[str]) -> list[Mask]:
        """Our self-mask and one mask for every other member: added if it comes after us."""
        own = Mask(mask_key(self.seed, self_info(self.transcript, self.me)))
        keys = {name: self.adverts[name].mask_key for name in members}
        return [own, *pair_masks(self.transcript, self.me, self.pairwise, keys)]

    def erase(self) -> None:
        self.cipher.erase()
        self.pairwise.erase()
        self.seed[:] = bytes(len(self.seed))
        self._own = (b"", b"")


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
