"""Z_2^64: embedding, wrap-around, and frames that are checked before anything is allocated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.smpc import ring

EDGES = [0, 1, -1, 2**62, -(2**62), 2**63 - 1, -(2**63)]
signed = st.integers(-(2**63), 2**63 - 1)


def integers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def elements(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


@given(st.lists(signed, max_size=20))
def test_decoding_undoes_embedding(values: list[int]) -> None:
    array = np.array(values, dtype=np.int64)
    assert ring.from_ring(ring.to_ring(array)).tolist() == values


def test_embedding_is_the_value_modulo_two_to_the_64() -> None:
    assert ring.to_ring(integers(*EDGES)).tolist() == [v % 2**64 for v in EDGES]


def test_decoding_is_centred_at_zero() -> None:
    decoded = ring.from_ring(elements(0, 2**63 - 1, 2**63, 2**64 - 1))
    assert decoded.tolist() == [0, 2**63 - 1, -(2**63), -1]


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20))
def test_a_32_bit_ring_holds_32_bit_numbers_in_half_the_bytes(values: list[int]) -> None:
    array = np.array(values, dtype=np.int64)
    embedded = ring.to_ring(array, bits=32)
    assert ring.from_ring(embedded).tolist() == values
    frame = ring.pack(embedded)
    assert len(frame) == 12 + 4 * len(values)
    assert ring.from_ring(ring.unpack(frame, len(values), 32)).tolist() == values


def test_a_frame_of_another_ring_is_refused() -> None:
    narrow, wide = ring.to_ring(integers(1, 2), 32), ring.to_ring(integers(1), 64)
    with pytest.raises(ring.RingError, match="64-bit"):
        ring.unpack(ring.pack(narrow), 1, 64)
    with pytest.raises(ring.RingError, match="32-bit"):
        ring.unpack(ring.pack(wide), 2, 32)
    with pytest.raises(ring.RingError, match="bits wide"):
        ring.unpack(ring.pack(wide), 1, 16)


def test_the_narrowest_ring_that_cannot_wrap_is_chosen() -> None:
    assert ring.smallest_width(0) == 32
    assert ring.smallest_width(2**31 - 1) == 32
    assert ring.smallest_width(2**31) == 64


def test_embedding_in_64_bits_is_the_same_memory_and_in_32_a_copy() -> None:
    value = integers(1, 2)
    ring.to_ring(value, 64)[0] = 9
    ring.to_ring(value, 32)[1] = 9
    assert value.tolist() == [9, 2]


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(3), np.zeros(3, np.int32), np.zeros((2, 2), np.int64), np.int64(3), [1, 2]],
    ids=["float", "int32", "matrix", "scalar", "list"],
)
def test_only_one_dimensional_int64_is_embedded(wrong: object) -> None:
    with pytest.raises(ring.RingError, match="expected"):
        ring.to_ring(wrong)  # type: ignore[arg-type]


def test_a_frame_is_little_endian_behind_its_magic_and_count() -> None:
    frame = ring.pack(elements(1, 2**64 - 2))
    assert frame.hex() == (
        "5a363401" + "0200000000000000" + "0100000000000000" + "feffffffffffffff"
    )


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_unpacking_undoes_packing(values: list[int]) -> None:
    words = np.array(values, dtype=np.uint64)
    read = ring.unpack(ring.pack(words), len(values))
    assert read.tolist() == values
    assert read.flags.writeable


@pytest.mark.parametrize(
    ("frame", "length", "said"),
    [
        (b"", 1, "shorter"),
        (b"Z64\x01\x01", 1, "shorter"),
        (b"PK\x03\x04" + bytes(16), 1, "mark"),
        (ring.pack(elements(1, 2)), 1, "announces 2 elements; 1 expected"),
        (ring.pack(elements(1, 2))[:-1], 2, "exactly 2"),
        (ring.pack(elements(1, 2)) + b"x", 2, "exactly 2"),
        (b"Z64\x01" + (2**60).to_bytes(8, "little"), 2**60, "asked for"),
        (b"Z64\x01" + (2**27).to_bytes(8, "little"), 2**27, "exactly"),
    ],
    ids=["empty", "cut head", "foreign", "other count", "cut", "surplus", "huge", "bomb"],
)
def test_a_frame_that_is_not_what_was_agreed_is_refused(
    frame: bytes, length: int, said: str
) -> None:
    with pytest.raises(ring.RingError, match=said):
        ring.unpack(frame, length)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("length", [0, 1, 5, 2**16, 2**16 + 1, 2**17 + 3])
def test_a_vector_becomes_ring_elements_in_its_own_memory(bits: int, length: int) -> None:
    values = np.random.default_rng(length).integers(-(2**31), 2**31, length)
    expected = ring.to_ring(values.copy(), bits).copy()
    found = ring.into_ring(values, bits)
    np.testing.assert_array_equal(found, expected)
    assert length == 0 or np.shares_memory(found, values)
