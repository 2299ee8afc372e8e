"""One attempt of a private sum: right for everyone, and refused when any message is wrong."""

import hashlib
import hmac
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from network.smpc import ring, sharing
from network.smpc.sharing import (
    Advert,
    Context,
    EphemeralKey,
    MalformedMessage,
    SealedSeed,
    SharingRefused,
    combine,
    expand,
    reveal,
    split,
    transcript_hash,
    verify_adverts,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "sharing.json").read_text())
CONTEXT = Context("ab" * 32, "train", release=3, attempt=0)
NAMES = ("north", "east", "south", "west", "upper", "lower")


@dataclass
class Domain:
    """A domain of one attempt, with everything it holds."""

    name: str
    signing_key: Ed25519PrivateKey
    ephemeral: EphemeralKey
    context: Context

    @property
    def node_key(self) -> str:
        public = self.signing_key.public_key()
        return public.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    @property
    def advert(self) -> Advert:
        return self.ephemeral.advert(self.name, self.context, self.signing_key)


class Attempt:
    """All domains of one attempt in one place; the messages pass through dictionaries."""

    def __init__(self, count: int = 3, context: Context = CONTEXT) -> None:
        self.context = context
        self.domains = {
            name: Domain(name, Ed25519PrivateKey.generate(), EphemeralKey.generate(), context)
            for name in NAMES[:count]
        }
        self.roster = {name: domain.node_key for name, domain in self.domains.items()}
        self.adverts = [domain.advert for domain in self.domains.values()]
        self.own: dict[str, np.ndarray] = {}
        self.sealed: dict[str, dict[str, SealedSeed]] = {}

    def split(self, name: str, value: np.ndarray) -> None:
        domain = self.domains[name]
        self.own[name], self.sealed[name] = split(
            value,
            me=name,
            roster=self.roster,
            adverts=self.adverts,
            ephemeral=domain.ephemeral,
            context=self.context,
            signing_key=domain.signing_key,
        )

    def split_all(self, values: dict[str, np.ndarray]) -> "Attempt":
        for name, value in values.items():
            self.split(name, value)
        return self

    def seeds_for(self, name: str) -> list[SealedSeed]:
        return [seeds[name] for seeds in self.sealed.values() if name in seeds]

    def combine(self, name: str, seeds: list[SealedSeed]) -> np.ndarray:
        return combine(
            self.own[name],
            seeds,
            me=name,
            roster=self.roster,
            adverts=self.adverts,
            ephemeral=self.domains[name].ephemeral,
            context=self.context,
        )

    def shares(self) -> dict[str, np.ndarray]:
        return {name: self.combine(name, self.seeds_for(name)) for name in self.domains}


@pytest.fixture
def attempt() -> Attempt:
    """Three domains that have split the vector (1, 2, 3, 4) each."""
    attempt = Attempt()
    return attempt.split_all({name: np.arange(1, 5, dtype=np.int64) for name in attempt.domains})


# The sum is right


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 6), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_the_revealed_total_is_the_sum_of_all_vectors(count: int, size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = {n: random.integers(-(2**59), 2**59, size) for n in NAMES[:count]}
    attempt = Attempt(count).split_all(values)
    total = reveal(attempt.shares(), attempt.roster)
    assert total.dtype == np.int64
    np.testing.assert_array_equal(total, np.sum(list(values.values()), axis=0))


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3))
def test_a_total_beyond_64_bits_wraps_and_is_never_silently_clamped(values: list[int]) -> None:
    vectors = dict(zip(NAMES, (np.array([v], dtype=np.int64) for v in values), strict=False))
    attempt = Attempt(3).split_all(vectors)
    total = int(reveal(attempt.shares(), attempt.roster)[0])
    assert (total - sum(values)) % 2**64 == 0


def test_combining_leaves_the_remainder_as_it_was(attempt: Attempt) -> None:
    before = attempt.own["north"].copy()
    first = attempt.combine("north", attempt.seeds_for("north"))
    again = attempt.combine("north", attempt.seeds_for("north"))
    np.testing.assert_array_equal(attempt.own["north"], before)
    np.testing.assert_array_equal(first, again)


def test_messages_survive_the_journey_as_json(attempt: Attempt) -> None:
    advert, sealed = attempt.adverts[0], attempt.sealed["north"]["east"]
    assert Advert.from_dict(json.loads(json.dumps(advert.to_dict()))) == advert
    assert SealedSeed.from_dict(json.loads(json.dumps(sealed.to_dict()))) == sealed


# Adverts: exactly the roster's, for exactly this attempt


def refusal_of_adverts(attempt: Attempt, adverts: list[Advert]) -> SharingRefused:
    with pytest.raises(SharingRefused) as refused:
        verify_adverts(adverts, attempt.roster, attempt.context)
    return refused.value


OTHER_CONTEXTS = [
    replace(CONTEXT, plan_hash="cd" * 32),
    replace(CONTEXT, step="evaluate"),
    replace(CONTEXT, release=4),
    replace(CONTEXT, attempt=1),
]


def test_adverts_of_exactly_the_roster_are_accepted_in_any_order(attempt: Attempt) -> None:
    known = verify_adverts(attempt.adverts[::-1], attempt.roster, CONTEXT)
    assert list(known) == sorted(attempt.roster)


@pytest.mark.parametrize("other", OTHER_CONTEXTS, ids=["plan", "step", "release", "attempt"])
def test_an_advert_of_another_attempt_is_refused(attempt: Attempt, other: Context) -> None:
    east = attempt.domains["east"]
    replayed = east.ephemeral.advert("east", other, east.signing_key)
    north, _, south = attempt.adverts
    refused = refusal_of_adverts(attempt, [north, replayed, south])
    assert refused.culprit == "east"
    assert "signed" in str(refused)


def test_a_missing_advert_names_the_domain(attempt: Attempt) -> None:
    refused = refusal_of_adverts(attempt, attempt.adverts[:2])
    assert refused.culprit == "south"
    assert "no advert" in str(refused)


def test_a_second_advert_of_one_domain_is_refused(attempt: Attempt) -> None:
    refused = refusal_of_adverts(attempt, [*attempt.adverts, attempt.adverts[1]])
    assert refused.culprit == "east"
    assert "more than one" in str(refused)


def test_a_stranger_is_refused(attempt: Attempt) -> None:
    stranger = Attempt(4).adverts[3]
    refused = refusal_of_adverts(attempt, [*attempt.adverts, stranger])
    assert refused.culprit == "west"
    assert "roster" in str(refused)


def test_an_advert_under_anothers_name_is_refused(attempt: Attempt) -> None:
    north, east, south = attempt.adverts
    refused = refusal_of_adverts(attempt, [north, replace(south, domain="east"), south])
    assert refused.culprit == "east"
    assert (
        refusal_of_adverts(
            attempt, [north, replace(east, signature=north.signature), south]
        ).culprit
        == "east"
    )


def test_a_replaced_public_key_is_refused(attempt: Attempt) -> None:
    north, east, south = attempt.adverts
    swapped = replace(east, public_key=EphemeralKey.generate().public_key)
    assert refusal_of_adverts(attempt, [north, swapped, south]).culprit == "east"


def test_two_domains_with_one_public_key_are_refused(attempt: Attempt) -> None:
    south = attempt.domains["south"]
    copied = attempt.domains["north"].ephemeral.advert("south", CONTEXT, south.signing_key)
    refused = refusal_of_adverts(attempt, [*attempt.adverts[:2], copied])
    assert refused.culprit == "south"
    assert "same public key" in str(refused)


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)], ids=["zero", "one"])
def test_a_low_order_public_key_is_refused(attempt: Attempt, point: bytes) -> None:
    east = attempt.domains["east"]
    east.ephemeral.public_key = point  # the domain itself signs a key that hides nothing
    north, _, south = attempt.adverts
    refused = refusal_of_adverts(attempt, [north, east.advert, south])
    assert refused.culprit == "east"
    assert "X25519" in str(refused)


def test_nothing_is_split_for_unverified_adverts(attempt: Attempt) -> None:
    attempt.adverts[1] = replace(attempt.adverts[1], signature=bytes(64))
    with pytest.raises(SharingRefused) as refused:
        attempt.split("north", np.zeros(2, dtype=np.int64))
    assert refused.value.culprit == "east"


def test_our_own_replayed_advert_is_noticed(attempt: Attempt) -> None:
    attempt.domains["north"].ephemeral = EphemeralKey.generate()
    with pytest.raises(SharingRefused, match="our own name") as refused:
        attempt.split("north", np.zeros(2, dtype=np.int64))
    assert refused.value.culprit == "north"


# Seeds: exactly one valid one from every peer


def refusal_of_seeds(attempt: Attempt, name: str, seeds: list[SealedSeed]) -> SharingRefused:
    with pytest.raises(SharingRefused) as refused:
        attempt.combine(name, seeds)
    return refused.value


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


TAMPERINGS: dict[str, Callable[[SealedSeed], SealedSeed]] = {
    "nonce": lambda seed: replace(seed, ciphertext=flipped(seed.ciphertext, 0)),
    "ciphertext": lambda seed: replace(seed, ciphertext=flipped(seed.ciphertext, 60)),
    "signature": lambda seed: replace(seed, signature=flipped(seed.signature, 5)),
    "receiver": lambda seed: replace(seed, receiver="south"),
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
def test_a_tampered_seed_is_refused(
    attempt: Attempt, tamper: Callable[[SealedSeed], SealedSeed]
) -> None:
    from_east, from_south = attempt.seeds_for("north")
    assert refusal_of_seeds(attempt, "north", [tamper(from_east), from_south]).culprit == "east"


def test_a_missing_seed_names_the_peer(attempt: Attempt) -> None:
    refused = refusal_of_seeds(attempt, "north", attempt.seeds_for("north")[:1])
    assert refused.culprit == "south"
    assert "no seed" in str(refused)


def test_a_second_seed_of_one_peer_is_refused(attempt: Attempt) -> None:
    seeds = attempt.seeds_for("north")
    refused = refusal_of_seeds(attempt, "north", [*seeds, seeds[0]])
    assert refused.culprit == "east"
    assert "more than one" in str(refused)


def test_swapped_seeds_are_refused(attempt: Attempt) -> None:
    _, from_south = attempt.seeds_for("north")
    meant_for_south = attempt.sealed["east"]["south"]
    refused = refusal_of_seeds(attempt, "north", [meant_for_south, from_south])
    assert refused.culprit == "east"
    assert "another domain" in str(refused)


def test_a_seed_under_another_peers_name_is_refused(attempt: Attempt) -> None:
    from_east, from_south = attempt.seeds_for("north")
    disguised = replace(from_south, sender="east")
    assert refusal_of_seeds(attempt, "north", [disguised, from_south]).culprit == "east"
    as_stranger = replace(from_east, sender="west")
    assert refusal_of_seeds(attempt, "north", [as_stranger, from_south]).culprit == "west"


def test_our_own_seed_is_not_a_peers(attempt: Attempt) -> None:
    own = replace(attempt.sealed["north"]["east"], receiver="north")
    refused = refusal_of_seeds(attempt, "north", [own, *attempt.seeds_for("north")])
    assert refused.culprit == "north"


def test_a_seed_of_another_attempt_is_refused(attempt: Attempt) -> None:
    later = Attempt(3, replace(CONTEXT, attempt=1))
    for name, domain in later.domains.items():
        domain.signing_key = attempt.domains[name].signing_key
        domain.ephemeral = attempt.domains[name].ephemeral  # even if the keys were kept
    later.roster = attempt.roster
    later.adverts = [domain.advert for domain in later.domains.values()]
    later.split("east", np.zeros(4, dtype=np.int64))
    _, from_south = attempt.seeds_for("north")
    refused = refusal_of_seeds(attempt, "north", [later.sealed["east"]["north"], from_south])
    assert refused.culprit == "east"
    assert "this attempt" in str(refused)


def test_a_seed_sealed_under_other_adverts_is_refused(attempt: Attempt) -> None:
    """A carrier that shows east another (validly signed) key of south gains nothing."""
    south = attempt.domains["south"]
    other = EphemeralKey.generate().advert("south", CONTEXT, south.signing_key)
    north_advert, east_advert, south_advert = attempt.adverts
    attempt.adverts = [north_advert, east_advert, other]
    attempt.split("east", np.zeros(4, dtype=np.int64))
    attempt.adverts = [north_advert, east_advert, south_advert]
    refused = refusal_of_seeds(attempt, "north", attempt.seeds_for("north"))
    assert refused.culprit == "east"


def test_a_validly_signed_seed_that_cannot_be_opened_is_refused(attempt: Attempt) -> None:
    east = attempt.domains["east"]
    known = verify_adverts(attempt.adverts, attempt.roster, CONTEXT)
    rubbish = bytes(sharing._CIPHERTEXT_BYTES)
    message = sharing._seed_message(
        CONTEXT, "east", "north", transcript_hash(known, CONTEXT), rubbish
    )
    seed = SealedSeed("east", "north", rubbish, east.signing_key.sign(message))
    _, from_south = attempt.seeds_for("north")
    refused = refusal_of_seeds(attempt, "north", [seed, from_south])
    assert refused.culprit == "east"
    assert "opened" in str(refused)


# Reveal: exactly the roster's shares


def test_reveal_needs_every_share_and_no_other(attempt: Attempt) -> None:
    shares = attempt.shares()
    short = {name: share for name, share in shares.items() if name != "south"}
    with pytest.raises(SharingRefused, match="no share") as missing:
        reveal(short, attempt.roster)
    assert missing.value.culprit == "south"
    with pytest.raises(SharingRefused, match="roster") as stranger:
        reveal({**shares, "west": shares["north"]}, attempt.roster)
    assert stranger.value.culprit == "west"


@pytest.mark.parametrize(
    "share", [np.zeros(3, np.uint64), np.zeros(4, np.int64), np.zeros((2, 2), np.uint64)]
)
def test_reveal_refuses_a_share_of_another_shape_or_type(
    attempt: Attempt, share: np.ndarray
) -> None:
    with pytest.raises(SharingRefused, match="doesn't fit") as refused:
        reveal({**attempt.shares(), "south": share}, attempt.roster)
    assert refused.value.culprit == "south"


# What is sent says nothing about the value.
# Each test below fails by chance with probability 1e-6 at most.

FALSE_ALARM = 1e-6
WORDS = 1 << 15
TELLING = np.full(WORDS, 0x0123456789ABCDEF, dtype=np.int64)


def uniformity(words: np.ndarray) -> float:
    """p-value of Pearson's chi-square test that all 256 byte values are equally likely."""
    counts = np.bincount(words.astype("<u8").view(np.uint8), minlength=256)
    return float(scipy.stats.chisquare(counts).pvalue)


def additive_shares(attempt: Attempt, name: str) -> list[np.ndarray]:
    """The N shares of one domain's value: its remainder and every expanded seed."""
    known = verify_adverts(attempt.adverts, attempt.roster, attempt.context)
    transcript = transcript_hash(known, attempt.context)
    parts = [attempt.own[name]]
    for peer, sealed in attempt.sealed[name].items():
        seed = attempt.domains[peer].ephemeral.open(sealed.ciphertext, known[name].public_key)
        parts.append(expand(seed, len(parts[0]), attempt.context, name, peer, transcript))
    return parts


@pytest.mark.parametrize("count", [3, 4])
def test_any_all_but_one_shares_of_a_value_are_uniform(count: int) -> None:
    attempt = Attempt(count).split_all({"north": TELLING})
    parts = additive_shares(attempt, "north")
    total = np.sum(parts, axis=0, dtype=np.uint64)
    np.testing.assert_array_equal(ring.from_ring(total), TELLING)
    tests = 2 * count
    for left_out in range(count):
        seen = [part for index, part in enumerate(parts) if index != left_out]
        together = np.sum(seen, axis=0, dtype=np.uint64)
        assert uniformity(together) > FALSE_ALARM / tests
        assert uniformity(parts[left_out]) > FALSE_ALARM / tests


def test_all_but_one_shares_look_alike_whatever_the_value() -> None:
    """Two values, same test: bytes of the colluders' partial sums don't tell them apart."""
    zero = np.zeros(WORDS, dtype=np.int64)
    tables = []
    for value in (zero, TELLING):
        parts = additive_shares(Attempt(3).split_all({"north": value}), "north")
        partial = np.sum(parts[:-1], axis=0, dtype=np.uint64)
        tables.append(np.bincount(partial.astype("<u8").view(np.uint8), minlength=256))
    assert scipy.stats.chi2_contingency(np.array(tables)).pvalue > FALSE_ALARM


def test_shares_of_the_sum_are_uniform_though_their_total_is_not() -> None:
    values = dict.fromkeys(NAMES[:3], TELLING // 4)
    attempt = Attempt(3).split_all(values)
    shares = attempt.shares()
    for name, share in shares.items():
        others = [other for peer, other in shares.items() if peer != name]
        assert uniformity(share) > FALSE_ALARM / 6
        assert uniformity(np.sum(others, axis=0, dtype=np.uint64)) > FALSE_ALARM / 6


def test_the_chi_square_test_would_notice_the_bare_value() -> None:
    assert uniformity(ring.to_ring(TELLING)) < FALSE_ALARM


# No keystream is used twice


def test_the_same_value_split_twice_gives_unrelated_remainders() -> None:
    attempt = Attempt(3).split_all({"north": TELLING})
    first = attempt.own["north"]
    attempt.split("north", TELLING)
    assert uniformity(first - attempt.own["north"]) > FALSE_ALARM


@pytest.mark.parametrize("other", OTHER_CONTEXTS, ids=["plan", "step", "release", "attempt"])
def test_even_a_repeated_seed_gives_another_keystream_in_another_attempt(other: Context) -> None:
    seed, transcript = bytes(32), bytes(32)
    here = expand(seed, WORDS, CONTEXT, "north", "east", transcript)
    there = expand(seed, WORDS, other, "north", "east", transcript)
    assert not np.any(here == there)
    assert uniformity(here - there) > FALSE_ALARM / len(OTHER_CONTEXTS)


def test_a_repeated_seed_gives_another_keystream_in_each_direction_and_transcript() -> None:
    seed, transcript = bytes(32), bytes(32)
    streams = [
        expand(seed, 8, CONTEXT, "north", "east", transcript),
        expand(seed, 8, CONTEXT, "east", "north", transcript),
        expand(seed, 8, CONTEXT, "northe", "ast", transcript),
        expand(seed, 8, CONTEXT, "north", "east", b"\x01" + bytes(31)),
    ]
    assert len({stream.tobytes() for stream in streams}) == len(streams)


def test_every_seed_of_a_split_is_fresh(attempt: Attempt) -> None:
    ciphertexts = {
        sealed.ciphertext[:24] for seeds in attempt.sealed.values() for sealed in seeds.values()
    }
    streams = {part.tobytes() for n in attempt.domains for part in additive_shares(attempt, n)[1:]}
    assert len(ciphertexts) == 6
    assert len(streams) == 6


# Secrets


def test_an_erased_key_is_zeroed_and_refuses_to_work() -> None:
    secret = bytearray(range(32))
    key = EphemeralKey(secret)
    key.erase()
    assert secret == bytes(32)
    with pytest.raises(ValueError, match="erased"):
        key.open(bytes(72), bytes(32))
    with pytest.raises(ValueError, match="erased"):
        key.advert("north", CONTEXT, Ed25519PrivateKey.generate())


def test_a_key_is_neither_shown_nor_pickled() -> None:
    secret = bytearray(range(32))
    key = EphemeralKey(bytearray(secret))
    assert secret.hex() not in repr(key) + str(key)
    assert str(bytes(secret)) not in repr(key)
    with pytest.raises(TypeError, match="must not leave"):
        pickle.dumps(key)


def test_a_short_secret_is_no_key() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        EphemeralKey(bytearray(31))


# Parsing


BAD_ADVERTS: dict[str, object] = {
    "not an object": ["north"],
    "null": None,
    "surplus field": {**VECTORS["adverts"][0], "note": "x"},
    "missing field": {"domain": "north", "public_key": "00" * 32},
    "not text": {**VECTORS["adverts"][0], "public_key": 7},
    "empty name": {**VECTORS["adverts"][0], "domain": ""},
    "long name": {**VECTORS["adverts"][0], "domain": "n" * 65},
    "control character": {**VECTORS["adverts"][0], "domain": "north\n"},
    "surrogate": {**VECTORS["adverts"][0], "domain": "\ud800"},
    "upper case": {**VECTORS["adverts"][0], "public_key": "AB" * 32},
    "spaces": {**VECTORS["adverts"][0], "public_key": "a " * 32},
    "short key": {**VECTORS["adverts"][0], "public_key": "ab" * 31},
    "long signature": {**VECTORS["adverts"][0], "signature": "ab" * 65},
}


@pytest.mark.parametrize("message", BAD_ADVERTS.values(), ids=BAD_ADVERTS)
def test_a_malformed_advert_is_not_read(message: object) -> None:
    with pytest.raises(MalformedMessage):
        Advert.from_dict(message)


@pytest.mark.parametrize("field", ["sender", "receiver", "ciphertext", "signature"])
def test_a_malformed_sealed_seed_is_not_read(attempt: Attempt, field: str) -> None:
    message = attempt.sealed["north"]["east"].to_dict()
    for wrong in ("", "x" * 1000, None, 5, ["ab"]):
        with pytest.raises(MalformedMessage, match=field):
            SealedSeed.from_dict({**message, field: wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"plan_hash": "ab" * 31},
        {"plan_hash": "AB" * 32},
        {"step": ""},
        {"step": "s" * 65},
        {"release": -1},
        {"attempt": 2**32},
        {"attempt": True},
        {"release": 1.0},
    ],
)
def test_a_context_out_of_bounds_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(CONTEXT, **wrong)


def test_different_contexts_have_different_bytes() -> None:
    contexts = [CONTEXT, *OTHER_CONTEXTS, replace(CONTEXT, release=0, attempt=3)]
    assert len({context.bytes for context in contexts}) == len(contexts)


# Known answers: vectors/sharing.json. Whoever writes a second implementation starts there.


def vector_context() -> Context:
    return Context(**VECTORS["context"])


def vector_adverts() -> dict[str, Advert]:
    return {a["domain"]: Advert.from_dict(a) for a in VECTORS["adverts"]}


def test_known_answers_for_the_bytes_that_are_signed_and_hashed() -> None:
    context = vector_context()
    assert context.bytes.hex() == VECTORS["context_bytes"]
    for name, advert in vector_adverts().items():
        ephemeral = EphemeralKey(bytearray.fromhex(VECTORS["ephemeral_secrets"][name]))
        signing_key = Ed25519PrivateKey.from_private_bytes(
            bytes.fromhex(VECTORS["signing_secrets"][name])
        )
        assert ephemeral.advert(name, context, signing_key) == advert
    known = verify_adverts(list(vector_adverts().values()), VECTORS["roster"], context)
    assert transcript_hash(known, context).hex() == VECTORS["transcript"]


@pytest.mark.parametrize("mask", VECTORS["masks"], ids=lambda m: f"{m['sender']}-{m['receiver']}")
def test_known_answers_for_masks_also_by_textbook_hkdf_and_counter_mode(mask: dict) -> None:
    seed, transcript = bytes.fromhex(mask["seed"]), bytes.fromhex(VECTORS["transcript"])
    parties = (mask["sender"], mask["receiver"])
    words = expand(seed, len(mask["words"]), vector_context(), *parties, transcript)
    assert [int(word) for word in words] == [int(word) for word in mask["words"]]
    assert words.tobytes() == textbook_mask(seed, len(words), *parties)


def textbook_mask(seed: bytes, length: int, sender: str, receiver: str) -> bytes:
    """RFC 5869 by `hmac`, SP 800-38A counter mode by single block encryptions."""
    parts = [
        b"coterie-mask-v1",
        bytes.fromhex(VECTORS["context_bytes"]),
        sender.encode(),
        receiver.encode(),
        bytes.fromhex(VECTORS["transcript"]),
    ]
    info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    extracted = hmac.digest(bytes(32), seed, "sha256")
    key = hmac.digest(extracted, info + b"\x01", hashlib.sha256)
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    counters = (index.to_bytes(16, "big") for index in range((length + 1) // 2))
    return b"".join(block.update(counter) for counter in counters)[: 8 * length]


def test_known_answers_for_a_whole_attempt() -> None:
    seeds = [SealedSeed.from_dict(message) for message in VECTORS["sealed_seeds"]]
    shares = {}
    for name in VECTORS["roster"]:
        shares[name] = combine(
            np.array([int(word) for word in VECTORS["own"][name]], dtype=np.uint64),
            [seed for seed in seeds if seed.receiver == name],
            me=name,
            roster=VECTORS["roster"],
            adverts=list(vector_adverts().values()),
            ephemeral=EphemeralKey(bytearray.fromhex(VECTORS["ephemeral_secrets"][name])),
            context=vector_context(),
        )
        assert [str(word) for word in shares[name]] == VECTORS["shares"][name]
    total = reveal(shares, VECTORS["roster"])
    assert total.tolist() == VECTORS["total"]
    assert total.tolist() == np.sum(list(VECTORS["values"].values()), axis=0).tolist()
