"""The parts of the sum: sharing secrets, masks, keys, messages, and vectors for others to check."""

import hashlib
import hmac
import json
import pickle
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from network.smpc import masks, ring, shamir
from network.smpc.aggregation import OutOfTurn
from network.smpc.agreement import agreement_of
from network.smpc.attempt import Agreement, Context
from network.smpc.coordination import SumAborted
from network.smpc.keys import EphemeralKey, UnusableKey, check_public_key
from network.smpc.masks import Mask, apply, mask_key
from network.smpc.messages import Advert, MalformedMessage, SharingRefused
from tests.network.attempt_of_vectors import vectors
from tests.network.roster_of_domains import CONTEXT, Domains
from tests.policies.test_plan import changed

VECTORS = json.loads((Path(__file__).parent / "vectors" / "aggregation.json").read_text())


# The sum


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([(3, 3, 1), (4, 3, 1), (5, 4, 2), (2, 2, 1)]), st.sampled_from([32, 64]),
       st.integers(0, 40))  # fmt: skip
def test_the_total_is_the_sum_of_all_vectors(
    numbers: tuple[int, int, int], bits: int, length: int
) -> None:
    domains = Domains(*numbers, length=length, bits=bits)
    opened = domains.run()
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))
    assert len(opened.survivors) == numbers[0]


def test_vectors_longer_than_a_chunk_and_of_any_remainder() -> None:
    domains = Domains(3, 3, 1, length=masks.CHUNK_BYTES // 4 + 5)
    opened = domains.run()
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))


@pytest.mark.parametrize("numbers", [(3, 2, 1), (8, 5, 2), (4, 4, 4), (3, 4, 1), (1, 1, 0)])
def test_a_threshold_that_two_sets_of_survivors_could_reach_is_refused(
    numbers: tuple[int, int, int],
) -> None:
    with pytest.raises(ValueError, match="domains"):
        Domains(*numbers)


def test_masked_inputs_of_nothing_are_uniform() -> None:
    """Chi-square over the bytes of masked zeros; fails once in 10^9 runs of a right program."""
    domains = Domains(3, 3, 1, length=2**15)
    domains.values = {name: np.zeros(2**15, dtype=np.int64) for name in domains.keys}
    opened = domains.run()
    assert not opened.total.any()
    masked = list(opened.masked.values())
    for elements in (*masked, masked[0] + masked[1], masked[1] - masked[2]):
        counts = np.bincount(elements.view(np.uint8), minlength=256)
        assert scipy.stats.chisquare(counts).pvalue > 1e-9 / 5


def test_keys_die_with_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    domains = Domains(3, 3, 1)
    secrets = {}

    def listen(phase: str, arguments: dict) -> dict:
        if phase == "share":
            secrets.update({n: domains.parties[n]._secrets for n in arguments})
        return domains.exchange(phase, arguments)

    domains.run(listen)
    for name, held in secrets.items():
        assert not any(held.seed)
        with pytest.raises(ValueError, match="erased"):
            held.cipher.secret  # noqa: B018
        with pytest.raises(ValueError, match="erased"):
            held.pairwise.secret  # noqa: B018
        assert set(domains.disks[name]) == {"receipt", "masked", "confirmed", "unmasking"}


def test_an_attempt_given_up_is_never_opened() -> None:
    domains = Domains(3, 3, 1)

    def give_up(phase: str, arguments: dict) -> dict:
        if phase == "unmask":
            for party in domains.parties.values():
                party.abandon()
        return domains.exchange(phase, arguments)

    with pytest.raises(SumAborted):
        domains.run(give_up)
    assert all(isinstance(error, OutOfTurn) for _, error in domains.refusals)
    assert not domains.unmaskings()


# Shamir's shares


@settings(max_examples=20, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 6), st.integers(0, 3))
def test_any_threshold_shares_open_the_secret(secret: bytes, threshold: int, more: int) -> None:
    shares = dict(enumerate(shamir.split(secret, threshold, threshold + more), start=1))
    for chosen in combinations(shares, threshold):
        assert shamir.join({x: shares[x] for x in chosen}, threshold) == secret


def test_one_share_too_few_fits_every_secret() -> None:
    """With tau - 1 shares, each of several secrets is completed by exactly one last share."""
    shares = dict(enumerate(shamir.split(bytes(32), 3, 3), start=1))
    known = {1: shares[1], 2: shares[2]}
    with pytest.raises(shamir.NotShares, match="3 are needed"):
        shamir.join(known, 3)
    opened = set()
    for guess in (bytes(32), b"\x01" * 32, b"\xff" * 32):
        top = int.from_bytes(guess, "big") - sum(
            int.from_bytes(known[x], "big") * shamir._weight(x, [1, 2, 3]) for x in known
        )
        last = top * pow(shamir._weight(3, [1, 2, 3]), -1, shamir.PRIME) % shamir.PRIME
        opened.add(shamir.join({**known, 3: last.to_bytes(shamir.SHARE_BYTES, "big")}, 3))
    assert len(opened) == 3


def test_single_shares_are_uniform_over_the_field() -> None:
    """Chi-square over 16 equal parts of the field, 4,000 splits; false alarm once in 10^9."""
    shares = [shamir.split(b"\xff" * 32, 2, 2)[1] for _ in range(4000)]
    parts = [int.from_bytes(share, "big") >> (521 - 4) for share in shares]
    assert scipy.stats.chisquare(np.bincount(parts, minlength=16)).pvalue > 1e-9


def test_shares_of_different_secrets_dont_join() -> None:
    one, other = shamir.split(b"a" * 32, 2, 2), shamir.split(b"b" * 32, 2, 2)
    # They meet in a random field element, which is a 32-byte number with probability 2^-265.
    with pytest.raises(shamir.NotShares, match="belong together"):
        shamir.join({1: one[0], 2: other[1]}, 2)
    with pytest.raises(shamir.NotShares, match="field"):
        shamir.join({1: one[0], 2: b"\xff" * shamir.SHARE_BYTES}, 2)


# Keys and messages


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)], ids=["zero", "one"])
def test_a_low_order_key_is_unusable(point: bytes) -> None:
    with pytest.raises(UnusableKey):
        check_public_key(point)


@pytest.mark.parametrize("beyond", [2**255 - 19, 2**255], ids=["p more", "the top bit"])
def test_a_key_has_one_encoding(beyond: int) -> None:
    """X25519 agrees on the same secret for 9 and for p + 9, with the top bit and without."""
    check_public_key((9).to_bytes(32, "little"))
    with pytest.raises(UnusableKey, match="canonically"):
        check_public_key((9 + beyond).to_bytes(32, "little"))


def test_an_ephemeral_key_is_neither_pickled_nor_printed() -> None:
    key = EphemeralKey(b"k" * 32)
    assert (b"k" * 32).hex() not in repr(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)


@pytest.mark.parametrize(
    "change",
    [{"domain": ""}, {"domain": 3}, {"mask_key": "00"}, {"mask_key": "ZZ" * 32}, {"more": 1},
     {"signature": None}],
    ids=str,
)  # fmt: skip
def test_a_malformed_message_is_refused_by_field(change: dict) -> None:
    advert = Domains(3, 3, 1).parties["domain-0"].advertise()
    good = json.loads(json.dumps(advert.to_dict()))
    assert Advert.from_dict(good) == advert
    with pytest.raises(MalformedMessage, match=next(iter(change))):
        Advert.from_dict({**good, **change})


OTHERS = {
    "plan": {"context": replace(CONTEXT, plan_hash="cd" * 32)},
    "step": {"context": replace(CONTEXT, step="other")},
    "release": {"context": replace(CONTEXT, release=4)},
    "attempt": {"context": replace(CONTEXT, attempt=9)},
    "threshold": {"threshold": 7},
    "length": {"length": 17},
    "ring": {"bits": 32},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_nothing_signed_for_one_agreement_is_taken_in_another(other: dict) -> None:
    domains = Domains(8, 6, 2)
    adverts = [party.advertise() for party in domains.parties.values()]
    domains.agreement = replace(domains.agreement, **other)
    party = domains.restarted("domain-0")
    theirs = [party.advertise(), *adverts[1:]]
    with pytest.raises(SharingRefused, match="isn't signed for this attempt") as refused:
        party.share(theirs)
    assert refused.value.culprit == "domain-1"


def test_a_plan_binds_the_roster_ring_and_length() -> None:
    plan = changed(purpose="agreed on")
    agreement = agreement_of(plan, plan.steps[0].name, 0, 0)
    assert isinstance(agreement, Agreement)
    assert agreement.context == Context(plan.hash, plan.steps[0].name, 0, 0)
    assert agreement.length == plan.steps[0].width
    assert agreement.bits == plan.steps[0].ring
    assert agreement.roster == {entry.name: entry.node_key for entry in plan.roster}


# Masks, and vectors that another implementation can check itself with


def test_a_mask_taken_away_leaves_what_was_there() -> None:
    words = np.arange(1000, dtype=np.uint32)
    apply(words, [Mask(b"k" * 32), Mask(b"l" * 32, subtract=True)])
    assert not np.array_equal(words, np.arange(1000))
    apply(words, [Mask(b"k" * 32, subtract=True), Mask(b"l" * 32)])
    np.testing.assert_array_equal(words, np.arange(1000))


def test_a_mask_is_hkdf_then_aes_in_counter_mode() -> None:
    secret = b"s" * 32
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    key = hmac.new(extracted, b"info\x01", hashlib.sha256).digest()
    assert mask_key(secret, b"info") == key
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(80))
    words = np.zeros(10, dtype=np.uint64)
    digest = apply(words, [Mask(key)])
    assert words.tobytes() == stream
    assert digest == masks.digest_of(words) == blake3(stream).digest()


def test_every_primitive_and_whole_attempts_give_their_known_answers() -> None:
    assert json.loads(json.dumps(vectors())) == VECTORS
    assert VECTORS["attempt"]["total"] == [6, -12, 18, 24]
    for frame in VECTORS["attempt"]["masked"].values():
        assert len(ring.unpack(bytes.fromhex(frame), 4, 32)) == 4
