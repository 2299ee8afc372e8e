"""Merkle trees: the published vectors, every proof of small trees, and none of anything else."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.merkle import Tree, leaf_hash, node_hash, verify_consistency, verify_inclusion

LEAVES = [
    bytes.fromhex(each)
    for each in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
# Heads of the first 1 to 8 of these leaves: the reference vectors of Certificate Transparency.
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def tree_of(leaves: list[bytes]) -> Tree:
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf)
    return tree


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH as RFC 6962 writes it."""
    if len(leaves) < 2:
        return leaf_hash(leaves[0]) if leaves else hashlib.sha256(b"").digest()
    k = max(2**e for e in range(20) if 2**e < len(leaves))
    return node_hash(by_definition(leaves[:k]), by_definition(leaves[k:]))


def test_heads_are_the_published_ones() -> None:
    tree = tree_of(LEAVES)
    assert [tree.root(size).hex() for size in range(1, 9)] == ROOTS
    assert tree.root(0) == hashlib.sha256(b"").digest()


def test_every_proof_of_a_small_tree_holds_and_holds_for_nothing_else() -> None:
    leaves = [bytes([number]) for number in range(20)]
    tree = tree_of(leaves)
    roots = [by_definition(leaves[:size]) for size in range(21)]
    for size in range(1, 21):
        assert tree.root(size) == roots[size]
        for index in range(size):
            proof = tree.inclusion(index, size)
            said = [(verify_inclusion(leaves[i], i, size, proof, roots[size])) for i in range(size)]
            assert said == [i == index for i in range(size)]
            assert not verify_inclusion(b"x", index, size, proof, roots[size])
        for old in range(1, size + 1):
            proof = tree.consistency(old, size)
            assert verify_consistency(old, size, roots[old], roots[size], proof)
            assert not verify_consistency(old, size, roots[old - 1], roots[size], proof)
            assert not verify_consistency(old, size, roots[old], roots[size - 1], proof)
            assert not verify_consistency(old, size, roots[old], roots[size], (*proof, b"0" * 32))


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 69), st.data())
def test_a_rewritten_past_has_no_proof(
    old: int, more: int, changed: int, data: st.DataObject
) -> None:
    leaves = [bytes([number]) for number in range(old + more)]
    before = tree_of(leaves).root(old)
    leaves[changed % old] = b"rewritten"
    forged = tree_of(leaves)
    proof = list(forged.consistency(old, old + more))
    assert not verify_consistency(old, old + more, before, forged.root(old + more), proof)
    honest = data.draw(st.permutations(proof))
    assert not verify_consistency(old, old + more, before, forged.root(old + more), honest)


@pytest.mark.parametrize(("old", "new"), [(0, 3), (4, 3), (-1, 3), (2, 0)])
def test_sizes_out_of_order_prove_nothing(old: int, new: int) -> None:
    tree = tree_of(LEAVES)
    assert not verify_consistency(old, new, tree.root(3), tree.root(3), ())
    assert not verify_inclusion(LEAVES[0], new, old, (), tree.root(1))
    with pytest.raises(ValueError, match="out of range"):
        tree.consistency(old, new)
