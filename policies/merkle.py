"""Merkle trees over a growing list: one hash for all of it, and short proofs about parts of it.

Hashes, audit paths and consistency proofs as in RFC 6962, section 2.1; how they are checked, as in
RFC 9162, sections 2.1.3.2 and 2.1.4.2. A leaf and an inner node are hashed under different
prefixes, so that neither can stand for the other.
"""

from collections.abc import Sequence
from hashlib import sha256

Proof = tuple[bytes, ...]


def leaf_hash(leaf: bytes) -> bytes:
    """RFC 6962, 2.1: SHA-256(0x00 || leaf)."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962, 2.1: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """A list that only grows. Appending takes one hash on average, a proof log2(size)."""

    def __init__(self) -> None:
        # _levels[k][i]: the complete subtree of leaves i * 2^k to (i + 1) * 2^k.
        self._levels: list[list[bytes]] = [[]]

    def __len__(self) -> int:
        return len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        """Add one leaf at the end."""
        found, level = leaf_hash(leaf), 0
        self._levels[0].append(found)
        while len(self._levels[level]) % 2 == 0:
            found = node_hash(self._levels[level][-2], found)
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(found)

    def root(self, size: int) -> bytes:
        """The head of the first `size` leaves: MTH of RFC 6962, 2.1."""
        self._require(0 <= size <= len(self))
        return self._range(0, size) if size else sha256(b"").digest()

    def inclusion(self, index: int, size: int) -> Proof:
        """The audit path of leaf `index` (from 0) among the first `size`: RFC 6962, 2.1.1."""
        self._require(0 <= index < size <= len(self))
        return self._path(index, 0, size)

    def consistency(self, old: int, new: int) -> Proof:
        """That the first `old` leaves begin the first `new` ones: RFC 6962, 2.1.2."""
        self._require(0 < old <= new <= len(self))
        return self._subproof(old, 0, new, True)

    def _require(self, within: bool) -> None:
        if not within:
            raise ValueError(f"out of range: the tree has {len(self)} leaves")

    def _range(self, start: int, end: int) -> bytes:
        size = end - start
        if size & (size - 1) == 0:
            level = size.bit_length() - 1
            return self._levels[level][start >> level]
        middle = start + _split(size)
        return node_hash(self._range(start, middle), self._range(middle, end))

    def _path(self, index: int, start: int, end: int) -> Proof:
        if end - start == 1:
            return ()
        middle = start + _split(end - start)
        if index < middle:
            return (*self._path(index, start, middle), self._range(middle, end))
        return (*self._path(index, middle, end), self._range(start, middle))

    def _subproof(self, old: int, start: int, end: int, whole: bool) -> Proof:
        if old == end:
            return () if whole else (self._range(start, end),)
        middle = start + _split(end - start)
        if old <= middle:
            return (*self._subproof(old, start, middle, whole), self._range(middle, end))
        return (*self._subproof(old, middle, end, False), self._range(start, middle))


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether `leaf` stands at `index` (from 0) of the `size` leaves under `root`.

    RFC 9162, 2.1.3.2.
    """
    if not 0 <= index < size:
        return False
    fn, sn, found = index, size - 1, leaf_hash(leaf)
    for each in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            found = node_hash(each, found)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = node_hash(found, each)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and found == root


def verify_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether the `new` leaves under `new_root` begin with the `old` ones under `old_root`.

    RFC 9162, 2.1.4.2.
    """
    if not 0 < old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for each in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            first, second = node_hash(each, first), node_hash(each, second)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = node_hash(second, each)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and first == old_root and second == new_root


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1
