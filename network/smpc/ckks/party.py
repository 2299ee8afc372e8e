"""One domain's part in one attempt of a sum under CKKS.

    advertise -> share -> mask -> confirm -> unmask
    public key   joins    c_u     tag, signed   the total, by the key holder

A domain of the roster, another for each attempt (`key_holder`), makes a key pair for this attempt
alone. Every domain encrypts its vector, noised in full; the hub collects and adds the ciphertexts.
The key holder gets their sum alone, never a single domain's, and decrypts once: what every domain
in it signed as the sum, which the tags prove (`network.smpc.ckks.tags`). It answers integers, never
what CKKS decrypts to: that carries noise that depends on the key (Li and Micciancio 2021). Exact
sums carry none, as the scheme's error can't reach them (`policies.homomorphic`).

Hub and key holder together can decrypt every domain's vector alone. So each is noised in full, and
is charged as if it were published: privacy hangs on neither the key nor this protocol. docs/ckks.md
says what the protocol adds and what it doesn't.

As in `network.smpc.aggregation`, a party answers each step once, and what it said is stored first.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from network.smpc import ring
from network.smpc.aggregation import OutOfTurn, Store
from network.smpc.attempt import Agreement
from network.smpc.ckks import limbs, seal
from network.smpc.ckks.messages import (
    Joining,
    KeyAdvert,
    Opening,
    TaggedConfirmation,
    advert_message,
    challenge_of,
    confirmation_message,
    joining_message,
    key_holder,
    layout_for,
    opening_message,
    read_residues,
    residues_bytes,
    set_message,
    transcript_hash,
)
from network.smpc.ckks.tags import tag_of
from network.smpc.ckks.verification import (
    verify_adverts,
    verify_confirmations,
    verify_joined,
    verify_sum,
)
from network.smpc.masks import digest_of
from network.smpc.messages import (
    Receipt,
    SharingRefused,
    dealt_digest,
    receipt_message,
)
from network.smpc.verification import verify_receipts


class CkksParty:
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
        self.layout = layout_for(agreement)
        self._signing_key = signing_key
        self._store = store
        self._advert: KeyAdvert | None = None
        self._secret = b""
        self._adverts: dict[str, KeyAdvert] = {}

    def advertise(self) -> KeyAdvert:
        """Begin: the key holder makes this attempt's key pair and gives the public half.

        Raises:
            OutOfTurn: this domain has given its ciphertexts in this attempt already.
        """
        if self._advert is not None:
            return self._advert
        if self._store.read("receipt") is not None:
            raise OutOfTurn(f"{self.me}: this attempt was used; take the next one.")
        public = b""
        if key_holder(self.agreement) == self.me:
            self._secret, public = seal.generate()
        signature = self._signing_key.sign(advert_message(self.agreement, self.me, public))
        self._advert = KeyAdvert(domain=self.me, public_key=public, signature=signature)
        return self._advert

    def share(self, adverts: Sequence[KeyAdvert]) -> list[Joining]:
        """Take the public key and join.

        Args:
            adverts: of at least tau domains, this one and the key holder among them.

        Raises:
            SharingRefused: an advert is missing, unknown, there twice, wrongly signed, or without
                a usable key.
            OutOfTurn: not advertised yet, or shared before among other adverts.
        """
        own = self._alive()
        known = verify_adverts(self.agreement, adverts)
        if known.get(self.me) != own:
            raise SharingRefused(self.me, "the advert under our own name isn't of this attempt")
        if self._adverts and self._adverts != known:
            raise OutOfTurn(f"{self.me}: this attempt was shared already, among other adverts.")
        self._adverts = known
        message = joining_message(transcript_hash(self.agreement, known), self.me)
        return [Joining(domain=self.me, signature=self._signing_key.sign(message))]

    def mask(
        self, value: NDArray[np.int64], joined: Sequence[Joining]
    ) -> tuple[Receipt, seal.Residues]:
        """This domain's ciphertexts, and its signature over them. Charge the ledger before sending.

        Ciphertexts, and the secret key at its holder, are stored.

        Args:
            value: int64 [P]: clipped, quantised and noised in full already. It is erased.
            joined: of at least tau domains, this one and the key holder among them: the members.

        Raises:
            SharingRefused: fewer than tau, or one is unknown, there twice or wrongly signed.
            OutOfTurn: nothing was shared yet.
        """
        kept = self.masked()
        if kept is not None:
            return kept
        self._alive()
        if not self._adverts:
            raise OutOfTurn(f"{self.me}: nothing was shared in this attempt yet.")
        if value.shape != (self.agreement.length,):
            raise ValueError(f"the agreement is on {self.agreement.length} elements")
        transcript = transcript_hash(self.agreement, self._adverts)
        members = verify_joined(self.agreement, transcript, joined)
        if self.me not in members:
            raise SharingRefused(self.me, "we aren't among those who joined")
        public = self._adverts[key_holder(self.agreement)].public_key
        slots = limbs.to_slots(value, self.layout)
        value[:] = 0
        ciphertexts = seal.encrypt(public, slots, self.layout.scale_bits)
        digest = digest_of(ciphertexts.ravel())
        fields: dict[str, Any] = {
            "domain": self.me,
            "members": members,
            "digest": digest,
            "dealt": dealt_digest(transcript, ()),
        }
        signature = self._signing_key.sign(receipt_message(transcript, fields))
        receipt = Receipt(**fields, signature=signature)
        if self._secret:
            self._store.write("held", self._secret)
        self._forget()
        self._store.write("masked", residues_bytes(ciphertexts))
        # The receipt comes last: where it is, everything is.
        record = {"receipt": receipt.to_dict(), "transcript": transcript.hex()}
        self._store.write("receipt", _json(record))
        return receipt, ciphertexts

    def masked(self) -> tuple[Receipt, seal.Residues] | None:
        """What `mask` answered in this attempt, or None."""
        record, kept = self._read("receipt"), self._store.read("masked")
        if record is None or kept is None:
            return None
        return Receipt.from_dict(record["receipt"]), read_residues(self.agreement, memoryview(kept))

    def confirm(self, receipts: Sequence[Receipt], total: bytes) -> TaggedConfirmation:
        """Sign the one set of ciphertexts that may be opened, their sum, and our tag.

        Args:
            receipts: of at least tau domains, this one and the key holder among them.
            total: BLAKE3 of the sum of all their ciphertexts, 32 bytes.

        Raises:
            SharingRefused: a receipt is missing, unknown, there twice or wrongly signed, or names
                other members.
            OutOfTurn: nothing was given yet, or another set or sum was confirmed.
        """
        receipt, transcript = self._record()
        chosen = verify_receipts(self.agreement, transcript, receipt.members, receipts)
        if chosen.get(self.me) != receipt:
            raise SharingRefused(self.me, "the receipt under our own name isn't ours")
        wanted = _json(
            {"total": total.hex(), "receipts": {n: r.to_dict() for n, r in chosen.items()}}
        )
        kept = self._store.read("confirmed")
        if kept is None:
            self._store.write("confirmed", wanted)
        elif kept != wanted:
            raise OutOfTurn(f"{self.me}: another set of inputs was confirmed in this attempt.")
        stored = self._store.read("masked")
        if stored is None:
            raise OutOfTurn(f"{self.me}: this attempt's ciphertexts are gone.")
        message = set_message(transcript, chosen, total)
        tag = tag_of(challenge_of(message), read_residues(self.agreement, memoryview(stored)))
        signature = self._signing_key.sign(confirmation_message(message, self.me, tag))
        return TaggedConfirmation(domain=self.me, total=total, tag=tag, signature=signature)

    def unmask(
        self, confirmations: Sequence[TaggedConfirmation], ciphertexts: seal.Residues | None
    ) -> tuple[Opening, NDArray[np.int64]] | None:
        """The total, at the key holder; nothing at the others, who need do nothing.

        The secret key is erased once the answer is stored.

        Args:
            confirmations: of every domain in the set that this domain confirmed.
            ciphertexts: their sum, at the key holder.

        Raises:
            SharingRefused: a confirmation is missing, surplus or wrongly signed; the sum isn't the
                one confirmed, isn't that of the ciphertexts, or doesn't decrypt to integers within
                the plan's bounds.
            OutOfTurn: nothing was confirmed yet, or the attempt was given up.
        """
        _, transcript = self._record()
        confirmed = self._read("confirmed")
        if confirmed is None:
            raise OutOfTurn(f"{self.me}: no set of inputs was confirmed in this attempt yet.")
        chosen = {n: Receipt.from_dict(each) for n, each in confirmed["receipts"].items()}
        total = bytes.fromhex(confirmed["total"])
        message = set_message(transcript, chosen, total)
        verify_confirmations(self.agreement, message, tuple(chosen), total, confirmations)
        if key_holder(self.agreement) != self.me:
            return None
        answered, opened = self._read("opening"), self._store.read("opened")
        if answered is not None and opened is not None:
            return Opening.from_dict(answered), np.frombuffer(opened, dtype="<i8")
        secret = self._store.read("held")
        if secret is None:
            raise OutOfTurn(f"{self.me}: this attempt was given up; its key is erased.")
        if ciphertexts is None:
            raise SharingRefused(self.me, "we hold the key and got no sum to open")
        verify_sum(message, total, confirmations, ciphertexts)
        integers = self._decrypted(bytes(secret), ciphertexts)
        digest = digest_of(ring.to_ring(integers))
        signature = self._signing_key.sign(opening_message(message, self.me, digest))
        opening = Opening(domain=self.me, digest=digest, signature=signature)
        self._store.write("opened", integers.astype("<i8").data)
        self._store.write("opening", _json(opening.to_dict()))
        self._store.erase("held")
        return opening, integers

    def abandon(self) -> None:
        """Give the attempt up: its key is erased, and it can't be opened with our help."""
        self._forget()
        self._store.erase("held")

    def _decrypted(self, secret: bytes, ciphertexts: seal.Residues) -> NDArray[np.int64]:
        slots = seal.decrypt(secret, ciphertexts, self.layout.scale_bits)
        try:
            return limbs.from_slots(slots, self.agreement.length, self.layout)[0]
        except limbs.NotIntegers as error:
            # Some domain's ciphertexts aren't an encryption of its vector; which, nobody can see.
            # Nothing else about them is said, and this key answers no more.
            self._store.erase("held")
            raise SharingRefused(self.me, f"we didn't open the sum: {error}") from None

    def _alive(self) -> KeyAdvert:
        if self._advert is None:
            raise OutOfTurn(
                f"{self.me}: this attempt is not the one advertised last (the node may have "
                "restarted). Start the next attempt."
            )
        return self._advert

    def _forget(self) -> None:
        # SEAL's own copies live until their memory is used again.
        self._advert, self._secret = None, b""

    def _record(self) -> tuple[Receipt, bytes]:
        record = self._read("receipt")
        if record is None:
            raise OutOfTurn(f"{self.me}: nothing was given in this attempt yet.")
        return Receipt.from_dict(record["receipt"]), bytes.fromhex(record["transcript"])

    def _read(self, name: str) -> dict[str, Any] | None:
        content = self._store.read(name)
        return None if content is None else dict(json.loads(bytes(content)))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
