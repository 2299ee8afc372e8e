"""Domains that compute together in one process, a dealer, and whoever carries their messages."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from network.smpc.attempt import Agreement, Context
from network.smpc.dealing import Computation, _dealt_message, deal, digest_of_words
from network.smpc.sharing import keys_transcript

Words = NDArray[np.uint64]


def hex_of(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


@dataclass
class WithDealer:
    """One product or truncation among three domains.

    Attributes:
        inputs: what is computed with, in shares by domain, flat.
        carry: changes what a domain is told: (phase, sender, receiver, said, words).
    """

    work: Any
    inputs: list[dict[str, Words]]
    number: int = 0
    carry: Callable[..., tuple[Any, Words]] = lambda phase, sender, receiver, said, words: (
        said,
        words,
    )
    keys: dict[str, Ed25519PrivateKey] = field(default_factory=dict)
    dealer: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    parties: dict[str, Computation] = field(default_factory=dict)
    said: dict[str, list[Words]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = self.keys or {name: Ed25519PrivateKey.generate() for name in self.inputs[0]}
        operands = self.work.digest(*("a" * 64, "b" * 64)[: len(self.inputs)])
        length = self.work.drawn[-1]
        context = Context("ab" * 32, "multiply", self.number, 0, f"{operands}/{length}")
        roster = {name: hex_of(key) for name, key in self.keys.items()}
        self.agreement = Agreement(context, roster, len(roster), 1, length, 64)
        self.parties = {
            name: Computation(
                name, self.agreement, key, hex_of(self.dealer), self.work,
                [shares[name] for shares in self.inputs],
            )
            for name, key in self.keys.items()
        }  # fmt: skip

    def deal(self) -> tuple[Any, Words]:
        keys = [party.signed_key for party in self.parties.values()]
        return deal(self.agreement, self.work, keys, self.dealer)

    def open(self, dealt: Any, corrections: Words) -> None:
        """From what was dealt to everybody's check."""
        keys = [party.signed_key for party in self.parties.values()]
        coins = [party.take(keys, dealt, corrections) for party in self.parties.values()]
        self._tell("opening", {n: p.opening(coins) for n, p in self.parties.items()})
        self._tell("check", {n: p.check() for n, p in self.parties.items()})

    def result(self) -> Words:
        """All shares together: what nobody sees."""
        shares = [party.result() for party in self.parties.values()]
        return np.sum(shares, axis=0, dtype=np.uint64)

    def resigned(self, dealt: Any, corrections: Words, **fields: Any) -> Any:
        """The same with other corrections, or other fields, under the dealer's own signature."""
        dealt = dealt.model_copy(update=fields)
        known = {party.me: party.signed_key for party in self.parties.values()}
        transcript = keys_transcript(self.agreement, known)
        digest = digest_of_words(corrections)
        message = _dealt_message(transcript, dealt.key, dealt.seeds, digest)
        signature = self.dealer.sign(message)
        return dealt.model_copy(update={"digest": digest, "signature": signature})

    def _tell(self, phase: str, told: dict[str, tuple[Any, Words]]) -> None:
        self.said[phase] = [words for _, words in told.values()]
        for receiver, party in self.parties.items():
            for sender, (said, words) in told.items():
                if sender != receiver:
                    party.hear(*self.carry(phase, sender, receiver, said, words))


def shares_of(
    values: Words, random: np.random.Generator, names: tuple[str, ...] = ("east", "north", "south")
) -> dict[str, Words]:
    """Uniform shares of a flat tensor, for three domains or those named."""
    found = {n: random.integers(0, 2**64, values.size, np.uint64) for n in names[:-1]}
    return {**found, names[-1]: values - sum(found.values(), np.zeros_like(values))}
