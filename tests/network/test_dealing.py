"""What one domain needs for a computation, however many there are, and whose words it takes."""

import copy
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domains.tensors import _DEALT_BYTES
from network.dealer import Dealer, DealerError
from network.smpc.dealing import DEALER, Said, _said_message, digest_of_words
from network.smpc.messages import SharingRefused
from network.smpc.triples import Factors
from network.smpc.truncation import Truncation
from tests.network.domains_with_dealer import WithDealer, Words, shares_of

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


DEALS: dict[str, Callable[[Any, Words, Any], tuple[dict[str, Any], Words]]] = {
    "one domain's seed sealed to another": lambda dealt, corrections, _: (
        {"seeds": {**dealt.seeds, "east": dealt.seeds["north"]}}, corrections
    ),
    "no seed for a domain": lambda dealt, corrections, _: (
        {"seeds": {n: s for n, s in dealt.seeds.items() if n != "south"}}, corrections
    ),
    "a seed for a stranger": lambda dealt, corrections, _: (
        {"seeds": {**dealt.seeds, "west": dealt.seeds["north"]}}, corrections
    ),
    "a key that agrees on zero": lambda dealt, corrections, _: ({"key": bytes(32)}, corrections),
    "an earlier computation's seeds": lambda dealt, corrections, earlier: (
        {"seeds": earlier.seeds, "key": earlier.key}, corrections
    ),
    "corrections for fewer": lambda dealt, corrections, _: ({}, corrections[:, 1:]),
    "corrections in each other's place": lambda dealt, corrections, _: (
        {}, np.ascontiguousarray(corrections[::-1])
    ),
    "no corrections": lambda dealt, corrections, _: ({}, corrections[:, :0]),
    "corrections of nothing": lambda dealt, corrections, _: ({}, np.zeros_like(corrections)),
}  # fmt: skip


@pytest.mark.parametrize("lie", DEALS)
@pytest.mark.parametrize("work", [Factors((3,), (3,), matrices=False), Truncation(3, 20, 8)])
def test_what_a_dealer_signs_falsely_makes_nothing_and_names_it(lie: str, work: Any) -> None:
    together = small(work)
    earlier, _ = small(work, together).deal()
    dealt, corrections = together.deal()
    fields, corrections = DEALS[lie](dealt, corrections, earlier)
    forged = together.resigned(dealt, corrections, **fields)
    with pytest.raises(SharingRefused) as refused:
        computed(together, forged, corrections)
    assert refused.value.culprit == DEALER


def computed(together: WithDealer, dealt: Any, corrections: Words) -> Words:
    together.open(dealt, corrections)
    return together.result()


def small(work: Any, like: WithDealer | None = None) -> WithDealer:
    """Three domains and a dealer, of a computation with a few numbers."""
    random = np.random.default_rng(0)
    count = 2 if isinstance(work, Factors) else 1
    inputs = [shares_of(random.integers(0, 9, 3, np.uint64), random) for _ in range(count)]
    return WithDealer(work, inputs, **({} if like is None else {"dealer": like.dealer}))


def test_coins_are_everybodys_own_for_what_was_dealt() -> None:
    """Whoever carries them can't toss for another, nor again."""
    together, other = (small(Factors((3,), (3,), matrices=False)) for _ in range(2))
    for each in (together, other):
        keys = [party.signed_key for party in each.parties.values()]
        dealt = each.deal()
        coins = [party.take(keys, *dealt) for party in each.parties.values()]
        if each is together:
            ours = coins
    east, north, south = ours
    for wrong in (
        ours[:2],
        [*ours, south],
        [east, north, north],
        [east, north.model_copy(update={"domain": "south"}), south],
        [east, north, south.model_copy(update={"digest": bytes(32)})],
        [east, north, coins[2]],
    ):
        party = copy.copy(together.parties["east"])
        with pytest.raises(SharingRefused, match="coin"):
            party.opening(wrong)


def test_what_a_domain_says_comes_back_to_it_in_vain() -> None:
    together = small(Factors((3,), (3,), matrices=False))
    keys = [party.signed_key for party in together.parties.values()]
    dealt = together.deal()
    coins = [party.take(keys, *dealt) for party in together.parties.values()]
    east = together.parties["east"]
    own = east.opening(coins)
    with pytest.raises(SharingRefused, match="twice"):
        east.hear(*own)
    with pytest.raises(SharingRefused, match="isn't signed"):
        east.hear(own[0].model_copy(update={"domain": "north"}), own[1])


def hear_the_others(together: WithDealer, phase: str) -> None:
    """Words of the right length, signed by each of the others, one after the other."""
    first = together.parties[NAMES[0]]
    for name in NAMES[1:]:
        words = np.zeros_like(first._total)
        first.hear(said(together, name, phase, digest_of_words(words)), words)


def said(together: WithDealer, name: str, phase: str, digest: bytes) -> Said:
    message = _said_message(together.parties[NAMES[0]].transcript, phase, name, digest)
    return Said(domain=name, digest=digest, signature=together.keys[name].sign(message))
