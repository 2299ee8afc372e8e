"""Secret products: exact, nothing to see for whoever carries them, and a lying dealer is caught."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from network.smpc import wide
from network.smpc.dealing import DealerLied, deal, digest_of_words, pack, unpack
from network.smpc.messages import MalformedMessage, SharingRefused
from network.smpc.ring import matmul
from network.smpc.triples import Factors
from tests.network.domains_with_dealer import WithDealer, Words, shares_of
from tests.network.tensors_of_vectors import vectors

ELEMENTS = Factors((5,), (5,), matrices=False)
MATRICES = Factors((2, 3), (3, 4), matrices=True)
CASES = [ELEMENTS, MATRICES, Factors((3,), (3, 2), True), Factors((2, 3), (3,), True)]


def words(random: np.random.Generator, size: int) -> Words:
    return random.integers(0, 2**64, size, np.uint64)


def product(factors: Factors, seed: int = 1, **more: Any) -> tuple[WithDealer, Words]:
    """A product that is ready to begin, and what it must give."""
    random = np.random.default_rng(seed)
    x, y = (words(random, size) for size in factors.sizes[:2])
    return (
        WithDealer(factors, [shares_of(x, random), shares_of(y, random)], **more),
        factors.times(x, y),
    )


@pytest.mark.parametrize("size", [(3, 5, 4), (2, 600, 3), (1, 1, 1)])
def test_wide_numbers_are_what_python_says(size: tuple[int, int, int]) -> None:
    random = np.random.default_rng(2)
    m, k, n = size
    x, y = words(random, m * k * 2).reshape(m, k, 2), words(random, k * n * 2).reshape(k, n, 2)

    def integers(w: Words) -> np.ndarray:
        return w[..., 0].astype(object) + w[..., 1].astype(object) * 2**64

    other = words(random, m * k * 2).reshape(m, k, 2)
    for found, wanted in (
        (wide.add(x, other), integers(x) + integers(other)),
        (wide.sub(x, other), integers(x) - integers(other)),
        (wide.mul(x, other), integers(x) * integers(other)),
        (wide.total(x, axis=1), integers(x).sum(axis=1)),
        (wide.matmul(x, y), integers(x) @ integers(y)),
    ):
        assert (integers(found) == wanted % 2**128).all()
    assert (matmul(x[..., 0], y[..., 0]) == x[..., 0] @ y[..., 0]).all()


@pytest.mark.parametrize("factors", CASES)
def test_products_are_exact(factors: Factors) -> None:
    multiplying, wanted = product(factors)
    multiplying.open(*multiplying.deal())
    assert np.array_equal(multiplying.result(), wanted)


def test_what_is_carried_is_uniform_whatever_the_factors() -> None:
    """Both factors are 0 and their shares as well: openings show the triples' noise alone."""
    found = []
    for number in range(60):
        nothing = {name: np.zeros(100, np.uint64) for name in ("east", "north", "south")}
        factors = Factors((100,), (100,), False)
        multiplying = WithDealer(factors, [nothing, nothing], number)
        multiplying.open(*multiplying.deal())
        found += multiplying.said["opening"]
    octets = np.concatenate(found).view(np.uint8)
    # Fails by chance once in a thousand million runs.
    assert chisquare(np.bincount(octets, minlength=256)).pvalue > 1e-9


@pytest.mark.parametrize("factors", [ELEMENTS, MATRICES])
@pytest.mark.parametrize("bit", [0, 1, 31, 63])
@pytest.mark.parametrize("both", [False, True])
def test_a_dealer_who_lies_in_any_bit_is_caught(factors: Factors, bit: int, both: bool) -> None:
    """The top bit of the ring is where a check modulo 2^64 would be blind half of the time."""
    for seed in range(8):
        multiplying, _ = product(factors, seed)
        dealt, corrections = multiplying.deal()
        lied = corrections.copy()
        lied[0, 1, 0] ^= np.uint64(1 << bit)
        if both:
            lied[1, 1, 0] ^= np.uint64(1 << bit)
        forged = multiplying.resigned(dealt, lied)
        multiplying.open(forged, lied)
        for party in multiplying.parties.values():
            with pytest.raises(DealerLied):
                party.result()


@pytest.mark.parametrize("phase", ["opening", "check"])
@pytest.mark.parametrize("how", ["shifted", "replayed", "renamed", "shortened"])
def test_whoever_carries_openings_cannot_change_them(phase: str, how: str) -> None:
    """A shifted d would make (x + shift) y of the product, with noise for x y."""

    def carry(at: str, sender: str, receiver: str, said: Any, told: Words) -> tuple[Any, Words]:
        if at != phase or sender != "north":
            return said, told
        if how == "shifted":
            told = told + np.uint64(1)
        elif how == "shortened":
            told = told[:-1]
        elif how == "renamed":
            said = said.model_copy(update={"domain": "south"})
        else:
            earlier, _ = product(ELEMENTS, keys=multiplying.keys, dealer=multiplying.dealer)
            earlier.open(*earlier.deal())
            said = earlier.parties["north"]._say(phase, digest_of_words(told))
        return said, told

    multiplying, _ = product(ELEMENTS, carry=carry)
    with pytest.raises(SharingRefused) as refused:
        multiplying.open(*multiplying.deal())
    assert refused.value.culprit in ("north", "south")


@pytest.mark.parametrize("phase", ["opening", "check"])
def test_a_partner_who_tells_domains_different_things_is_noticed(phase: str) -> None:
    """Both versions are its own and signed; those who heard different ones go no further."""

    def carry(at: str, sender: str, receiver: str, said: Any, told: Words) -> tuple[Any, Words]:
        if (at, sender, receiver) != (phase, "north", "south"):
            return said, told
        other = told.copy()
        other[-1] += np.uint64(1)
        return together.parties["north"]._say(phase, digest_of_words(other)), other

    together, _ = product(ELEMENTS, carry=carry)
    if phase == "check":
        # It passes for a lying dealer at the one, and nothing is there to share with the others.
        together.open(*together.deal())
        with pytest.raises(DealerLied):
            together.parties["south"].result()
        return
    with pytest.raises(SharingRefused, match="check isn't signed for this computation"):
        together.open(*together.deal())


def test_a_triple_serves_one_product_and_its_own_domain() -> None:
    multiplying, _ = product(ELEMENTS)
    other, _ = product(ELEMENTS, keys=multiplying.keys, dealer=multiplying.dealer, number=1)
    dealt, corrections = multiplying.deal()
    keys = [party.signed_key for party in other.parties.values()]
    with pytest.raises(SharingRefused, match="isn't signed for this computation"):
        other.parties["east"].take(keys, dealt, corrections)
    stranger, _ = product(ELEMENTS, keys=multiplying.keys)
    with pytest.raises(SharingRefused, match="isn't of this computation"):
        stranger.parties["east"].take(
            [party.signed_key for party in multiplying.parties.values()], dealt, corrections
        )
    own = [party.signed_key for party in multiplying.parties.values()]
    with pytest.raises(SharingRefused, match="corrections that it signed"):
        multiplying.parties["east"].take(own, dealt, corrections + np.uint64(1))


def test_only_the_plans_dealer_deals() -> None:
    multiplying, _ = product(ELEMENTS)
    keys = [party.signed_key for party in multiplying.parties.values()]
    dealt, corrections = deal(multiplying.agreement, ELEMENTS, keys, multiplying.keys["north"])
    for party in multiplying.parties.values():
        with pytest.raises(SharingRefused, match="the dealer"):
            party.take(keys, dealt, corrections)


def test_steps_come_in_order_and_once() -> None:
    multiplying, _ = product(ELEMENTS)
    east = multiplying.parties["east"]
    for step in (east.check, east.result, lambda: east.opening([])):
        with pytest.raises(SharingRefused):
            step()
    dealt, corrections = multiplying.deal()
    multiplying.open(dealt, corrections)
    east.result()
    keys = [party.signed_key for party in multiplying.parties.values()]
    for again in (east.check, east.result, lambda: east.take(keys, dealt, corrections)):
        with pytest.raises(SharingRefused):
            again()


def test_words_travel_as_they_are() -> None:
    sent = np.arange(6, dtype=np.uint64)
    said, found = unpack(pack({"a": 1}, sent))
    assert said == {"a": 1}
    assert np.array_equal(found, sent)
    for bad in (b"", b"\xff\xff\xff\xff", b"\x02\x00\x00\x00{}1234567", b"\x01\x00\x00\x00{"):
        with pytest.raises(MalformedMessage):
            unpack(np.frombuffer(bad, np.uint8))


def test_known_answers() -> None:
    """Kept as a file, so that another implementation can check itself."""
    kept = json.loads((Path(__file__).parent / "vectors" / "tensors.json").read_text())
    assert json.loads(json.dumps(vectors())) == kept
    said = kept["truncation"]
    shares = [np.frombuffer(bytes.fromhex(each), "<u8") for each in said["shares"].values()]
    found = np.sum(shares, axis=0, dtype=np.uint64).view(np.int64)
    assert np.abs(found - np.array(said["numbers"]) / 2 ** said["truncation"][2]).max() < 1
