"""Sums under CKKS: exact for every randomness, opened once, and only what all domains signed."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from network.smpc.ckks import limbs, seal, tags
from network.smpc.ckks.messages import (
    Opening,
    key_holder,
    layout_for,
    pack_ciphertexts,
    pack_opening,
    read_residues,
    unpack_opening,
)
from network.smpc.ckks.transcript import (
    coming_ciphertexts,
    sum_of,
    take_ciphertexts,
    verify_ckks_transcript,
    write_ckks_transcript,
)
from network.smpc.messages import MalformedMessage, SharingRefused
from policies.homomorphic import DEGREE, MAX_ERROR, NUMBERS, layout_of
from tests.network.roster_of_domains import Domains

PAIR = seal.generate()
EXTREMES = (-1.0, 1.0)


# Exact


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([(2, 32), (3, 32), (4, 32), (3, 64), (64, 64)]), st.data())
def test_integers_come_back_from_slots_whatever_they_are(
    numbers: tuple, data: st.DataObject
) -> None:
    layout = layout_of(*numbers)
    assert layout is not None
    bound = 2 ** (layout.ring - 1)
    drawn = data.draw(st.lists(st.integers(-bound, bound - 1), max_size=9))
    values = np.array(drawn, dtype=np.int64)
    found, distance = limbs.from_slots(limbs.to_slots(values, layout), len(values), layout)
    np.testing.assert_array_equal(found, values)
    assert distance == 0


@pytest.mark.parametrize(("domains", "ring"), [(2, 32), (3, 32), (5, 32), (3, 64), (64, 64)])
def test_a_sum_of_the_largest_integers_decrypts_exactly(domains: int, ring: int) -> None:
    """Every domain at the bound, so that totals, limbs and coefficients are as large as can be."""
    layout = layout_of(domains, ring)
    assert layout is not None
    random, share = np.random.default_rng(0), 2 ** (ring - 1) // domains - 1
    total = np.zeros((layout.ciphertexts(NUMBERS // layout.limbs), 2, DEGREE), dtype=np.uint64)
    exact = np.zeros(NUMBERS // layout.limbs, dtype=np.int64)
    signs = random.choice(EXTREMES, exact.size).astype(np.int64)
    for index in range(domains):
        values = signs * (share - random.integers(0, 3, exact.size))
        if index < 3 or index == domains - 1:
            exact += values
            seal.add(
                total, seal.encrypt(PAIR[1], limbs.to_slots(values, layout), layout.scale_bits)
            )
    found, distance = limbs.from_slots(
        seal.decrypt(PAIR[0], total, layout.scale_bits), exact.size, layout
    )
    np.testing.assert_array_equal(found, exact)
    assert distance < layout.error <= MAX_ERROR


@pytest.mark.parametrize("ring", [32, 64])
@pytest.mark.parametrize("domains", [2, 3, 16, 64])
def test_no_randomness_can_make_a_sum_inexact(domains: int, ring: int) -> None:
    """All coefficients at their worst, reckoned here anew: within the bound, and no wrap."""
    layout = layout_of(domains, ring)
    assert layout is not None
    worst = domains * (DEGREE / 2 + DEGREE * DEGREE / 2 + DEGREE / 2)
    assert worst / 2**layout.scale_bits < layout.error <= MAX_ERROR
    wraps = layout.largest * 2**0.5 * 2**layout.scale_bits + worst
    assert wraps < seal.modulus() / 2


def test_more_domains_than_fit_have_no_layout() -> None:
    assert layout_of(65, 32) is None
    assert layout_of(64, 64) is not None


# The protocol


@pytest.mark.parametrize("numbers", [(2, 2, 1), (3, 3, 1), (5, 4, 2)])
@pytest.mark.parametrize("bits", [32, 64])
def test_the_total_is_the_sum_of_all_vectors(numbers: tuple, bits: int) -> None:
    domains = Domains(*numbers, length=NUMBERS + 5, bits=bits, aggregation="ckks")
    opened = domains.run()
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))
    assert len(opened.survivors) == numbers[0]


def test_the_key_goes_round_over_releases_and_attempts() -> None:
    domains = Domains(3, 3, 1, aggregation="ckks")
    holders = [key_holder(domains.attempt(number).agreement) for number in range(3)]
    assert set(holders) == set(domains.keys)


def test_only_the_key_holder_opens_and_gives_integers() -> None:
    domains = Domains(3, 3, 1, aggregation="ckks")
    domains.run()
    opened = [s for s in domains.said if isinstance(s, tuple) and isinstance(s[0], Opening)]
    [(opening, total)] = opened
    assert opening.domain == key_holder(domains.agreement)
    assert total.dtype == np.int64


def test_no_domain_is_sent_ciphertexts_but_the_sum_to_the_key_holder() -> None:
    domains = Domains(3, 3, 1, aggregation="ckks")
    told: list[tuple[str, str, Any]] = []

    def listen(phase: str, arguments: dict) -> dict:
        told.extend((phase, name, argument) for name, argument in arguments.items())
        return domains.exchange(phase, arguments)

    opened = domains.run(listen)
    arrays = [
        (phase, name, part)
        for phase, name, argument in told
        for part in (argument if isinstance(argument, tuple) else ())
        if isinstance(part, np.ndarray)
    ]
    [(phase, name, total)] = arrays
    assert (phase, name) == ("unmask", key_holder(domains.agreement))
    np.testing.assert_array_equal(total, sum_of(domains.agreement, opened.ciphertexts)[0])


def test_the_key_is_erased_and_a_second_answer_is_the_first() -> None:
    domains = Domains(3, 3, 1, aggregation="ckks")
    asked: list[Any] = []

    def listen(phase: str, arguments: dict) -> dict:
        if phase == "unmask":
            asked.append(arguments)
        return domains.exchange(phase, arguments)

    opened = domains.run(listen)
    holder = key_holder(domains.agreement)
    assert not any("held" in disk for disk in domains.disks.values())
    party = domains.restarted(holder)
    confirmations, added = asked[0][holder]
    again = party.unmask(confirmations, np.zeros_like(added))
    np.testing.assert_array_equal(again[1], opened.total)


# What is read


def kept_ciphertexts(domains: Domains, folder: Path, name: str, content: bytes) -> Any:
    """What the coordinator makes of a domain's answer to `reveal`."""
    with closing(coming_ciphertexts(folder, domains.agreement, name)) as coming:
        coming.write(content)
    return take_ciphertexts(domains.agreement, coming)


def test_only_ciphertexts_of_the_agreed_number_and_range_are_read(tmp_path: Path) -> None:
    domains = Domains(3, 3, 1, aggregation="ckks")
    opened = domains.run()
    agreement = domains.agreement
    receipt, residues = opened.transcript.receipts[0], opened.ciphertexts["domain-0"]
    packed = pack_ciphertexts(receipt, residues).tobytes()
    again = kept_ciphertexts(domains, tmp_path, "domain-0", packed)
    assert again[0] == receipt
    np.testing.assert_array_equal(again[1].read(), residues)
    too_large = residues.copy()
    too_large[0, 0, 0] = seal.modulus()
    for wrong in (
        packed[:-1],
        packed[:3],
        packed + b"0",
        packed + bytes(2**17),
        residues.tobytes(),
        residues.tobytes() + packed,
        pack_ciphertexts(receipt, too_large).tobytes(),
    ):
        with pytest.raises(MalformedMessage):
            kept_ciphertexts(domains, tmp_path, "domain-0", wrong)
    other = residues.copy()
    other[0, 0, 0] ^= np.uint64(1)
    with pytest.raises(SharingRefused, match="aren't those that it signed"):
        kept_ciphertexts(domains, tmp_path, "domain-0", pack_ciphertexts(receipt, other).tobytes())
    with pytest.raises(MalformedMessage):
        read_residues(agreement, residues.tobytes() * 2)
    opening = pack_opening(opened.transcript.opening, opened.total)
    np.testing.assert_array_equal(unpack_opening(agreement, opening)[1], opened.total)
    with pytest.raises(MalformedMessage):
        unpack_opening(agreement, opening[:-8])


def test_seal_refuses_nothing_that_we_build_and_everything_else_is_refused_first() -> None:
    layout = layout_of(3, 32)
    assert layout is not None
    for wrong in (
        np.zeros((1, 2, DEGREE), dtype=np.int64),
        np.zeros((1, 3, DEGREE), dtype=np.uint64),
        np.full((1, 2, DEGREE), seal.modulus(), dtype=np.uint64),
    ):
        with pytest.raises(seal.NotResidues):
            seal.decrypt(PAIR[0], wrong, layout.scale_bits)
    with pytest.raises(seal.NotResidues):
        seal.encrypt(PAIR[1][:-8], np.zeros((1, seal.SLOTS), dtype=complex), layout.scale_bits)


def test_a_tag_is_linear_and_differs_for_any_other_ciphertext() -> None:
    random = np.random.default_rng(3)
    parts = [random.integers(0, seal.modulus(), (3, 2, DEGREE), dtype=np.uint64) for _ in range(3)]
    total = parts[0].copy()
    seal.add(total, parts[1])
    seal.add(total, parts[2])
    challenge = b"\x07" * 32
    assert tags.add_tags([tags.tag_of(challenge, p) for p in parts]) == tags.tag_of(
        challenge, total
    )
    exact = sum(
        int(r) * int(c)
        for r, c in zip(first_row(challenge, total.size), total.ravel(), strict=True)
    )
    assert int.from_bytes(tags.tag_of(challenge, total)[:8], "little") == exact % seal.modulus()


def first_row(challenge: bytes, count: int) -> np.ndarray:
    """The first row of R, drawn anew: 16-bit words of AES-256-CTR, chunk by chunk, row by row."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    stream = Cipher(algorithms.AES(challenge), modes.CTR(bytes(16))).encryptor()
    rows = []
    for start in range(0, count, 2**15):
        size = min(2**15, count - start)
        rows.append(np.frombuffer(stream.update(bytes(16 * size)), dtype="<u2")[:size])
    return np.concatenate(rows)


# What is kept


def test_a_kept_attempt_is_checked_and_every_lie_in_it_is_named(tmp_path: Path) -> None:
    domains = Domains(3, 3, 1, aggregation="ckks")
    opened = domains.run()
    agreement, holder = domains.agreement, key_holder(domains.agreement)
    for receipt in opened.transcript.receipts:
        packed = pack_ciphertexts(receipt, opened.ciphertexts[receipt.domain]).tobytes()
        kept_ciphertexts(domains, tmp_path, receipt.domain, packed)
    write_ckks_transcript(tmp_path, agreement, opened.transcript, opened.total)
    np.testing.assert_array_equal(verify_ckks_transcript(agreement, tmp_path), opened.total)

    def refused(file: str, change: Callable[[bytes], bytes], culprit: str) -> None:
        kept = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(change(kept))
        with pytest.raises(SharingRefused) as caught:
            verify_ckks_transcript(agreement, tmp_path)
        assert caught.value.culprit == culprit
        (tmp_path / file).write_bytes(kept)

    refused("total.ring", lambda kept: kept[:-1] + bytes([kept[-1] ^ 1]), "the coordinator")
    refused("ciphertexts-01.residues", lambda kept: bytes([kept[0] ^ 1]) + kept[1:], "domain-0")

    def other_tag(kept: bytes) -> bytes:
        messages = json.loads(kept)
        messages["confirmations"][1]["tag"] = "00" * tags.TAG_BYTES
        return json.dumps(messages).encode()

    refused("messages.json", other_tag, "domain-1")
    assert layout_for(agreement).limbs == 3
    assert holder in opened.survivors
