"""What one domain needs for a computation, however many there are."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domains.tensors import _DEALT_BYTES
from network.dealer import Dealer, DealerError
from network.smpc.dealing import Said, _said_message, digest_of_words
from network.smpc.triples import Factors
from network.smpc.truncation import Truncation
from tests.network.domains_with_dealer import WithDealer, shares_of

NAMES = tuple(f"domain-{i:02}" for i in range(64))
WORKS: dict[str, Any] = {
    "elements": Factors((40_000,), (40_000,), matrices=False),
    "matrices": Factors((200, 200), (200, 200), matrices=True),
    "outer": Factors((2000, 1), (1, 20), matrices=True),
    "inner": Factors((1, 40_000), (40_000, 1), matrices=True),
    "truncation": Truncation(3000, 38, 8),
}


def test_no_domain_deals() -> None:
    key = Ed25519PrivateKey.generate()
    with pytest.raises(DealerError, match="takes part in nothing"):
        Dealer(key, ["ab" * 32, key.public_key().public_bytes_raw().hex()])


@pytest.mark.parametrize("kind", list(WORKS))
def test_no_computation_takes_more_memory_than_a_node_sets_aside(kind: str) -> None:
    """With as many domains as may be: what the others say is added up, not kept."""
    work = WORKS[kind]
    random = np.random.default_rng(0)
    sizes = work.sizes[:2] if isinstance(work, Factors) else (work.length,)
    inputs = [shares_of(random.integers(0, 9, size, np.uint64), random, NAMES) for size in sizes]
    together = WithDealer(work, inputs)
    dealt, corrections = together.deal()
    keys = [party.signed_key for party in together.parties.values()]
    tracemalloc.start()
    first = together.parties[NAMES[0]]
    tossed = first.take(keys, dealt, corrections)
    coins = [said(together, name, "coin", bytes(32)) for name in NAMES[1:]]
    first.opening([tossed, *coins])
    hear_the_others(together, "opening")
    first.check()
    hear_the_others(together, "check")
    first.combined()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < _DEALT_BYTES * (sum(work.drawn) + work.opened)


def hear_the_others(together: WithDealer, phase: str) -> None:
    """Words of the right length, signed by each of the others, one after the other."""
    first = together.parties[NAMES[0]]
    for name in NAMES[1:]:
        words = np.zeros_like(first._total)
        first.hear(said(together, name, phase, digest_of_words(words)), words)


def said(together: WithDealer, name: str, phase: str, digest: bytes) -> Said:
    message = _said_message(together.parties[NAMES[0]].transcript, phase, name, digest)
    return Said(domain=name, digest=digest, signature=together.keys[name].sign(message))
