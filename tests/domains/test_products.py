"""Products of kept tensors at nodes: exact, proven, and only of true triples by the dealer."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import HTTPException

from domains.products import multiply
from network.dealer import Wanted, answer
from network.products import Deal, carry_product
from network.smpc.messages import MalformedMessage, SharingRefused
from network.smpc.triples import DealerLied, Factors, unpack
from policies import sensitivity
from policies.admission import PlanRefused, admit
from policies.plan import Dealer
from policies.sensitivity import TensorRefused, root
from policies.users import Bounds
from tests.domains.domains_of_tensors import CLIP_NORM, ITEMS, NAMES, USERS, Domains

KEY = Ed25519PrivateKey.generate()
DEALER = Dealer(name="notary", key=KEY.public_key().public_bytes_raw().hex())


@pytest.fixture
def domains() -> Domains:
    return Domains.create(dealer=DEALER)


def honest(wanted: Wanted) -> tuple[dict[str, Any], np.ndarray]:
    packed = answer(json.dumps(wanted.to_dict()).encode(), KEY)
    said, corrections = unpack(np.frombuffer(packed, np.uint8))
    assert isinstance(said, dict)
    return said, corrections


def product(domains: Domains, x: str, y: str, matrices: bool = False, deal: Deal = honest) -> str:
    """The name of the product that all domains make."""
    shapes = [domains.kept["east"].tensor(name).proven.shape for name in (x, y)]

    def tell(phase: str, told: Mapping[str, tuple[Any, np.ndarray]]) -> dict[str, Any]:
        return {
            name: multiply(domains.kept[name], phase, json.loads(json.dumps(said)), words.tobytes())
            for name, (said, words) in told.items()
        }

    made = carry_product(domains.plan, deal, Factors(*shapes, matrices), x, y, tell)
    (name,) = {str(said["name"]) for said in made.values()}
    return name


def test_products_are_exact_and_go_on(domains: Domains) -> None:
    x, y = domains.share("x"), domains.share("y")
    u, v = domains.value("x"), domains.value("y")
    xy = product(domains, x, y)
    assert np.allclose(domains.opened(xy), u * v, rtol=1e-12)
    square = domains.apply("reshape", x, shape=(2, 3))
    other = domains.apply("reshape", y, shape=(3, 2))
    found = domains.opened(product(domains, square, other, matrices=True))
    assert np.allclose(found, u.reshape(2, 3) @ v.reshape(3, 2), rtol=1e-12)
    total = domains.apply("sum", xy, axis=None)
    assert np.allclose(domains.opened(total), u @ v, rtol=1e-12)
    tensor = domains.kept["east"].tensor(total).proven
    assert tensor.sources == ("x", "y")
    sensitivity.noise_share(tensor, domains.plan, domains.plan.step("x"))


def test_no_user_moves_a_product_further_than_proven(domains: Domains) -> None:
    random = np.random.default_rng(5)
    x, y = domains.share("x"), domains.share("y")
    square = domains.apply("reshape", x, shape=(2, 3))
    other = domains.apply("reshape", y, shape=(3, 2))
    for name, matrices in (
        (product(domains, x, y), False),
        (product(domains, square, other, matrices=True), True),
    ):
        proven = domains.kept["east"].tensor(name).proven
        largest = 3 * USERS * CLIP_NORM
        for _ in range(500):
            u, v = (long_as(largest, random.normal(size=ITEMS)) for _ in range(2))
            # She moves both along themselves, or at random.
            along = random.integers(2)
            du, dv = (
                long_as(CLIP_NORM, -w if along else random.normal(size=ITEMS)) for w in (u, v)
            )
            before, after = times(u, v, matrices), times(u + du, v + dv, matrices)
            assert np.linalg.norm(after - before) <= float(proven.sensitivity) * (1 + 1e-9)
            assert np.linalg.norm(before) <= root(proven.norm2) * float(proven.unit) * (1 + 1e-9)


def long_as(norm: float, vector: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = vector / np.linalg.norm(vector) * norm
    return scaled


def times(u: np.ndarray, v: np.ndarray, matrices: bool) -> np.ndarray:
    return u.reshape(2, 3) @ v.reshape(3, 2) if matrices else u * v


def test_a_lying_dealer_leaves_nothing_behind(domains: Domains) -> None:
    def lies(wanted: Wanted) -> tuple[dict[str, Any], np.ndarray]:
        """The triples of another product of the same factors' shapes."""
        said, corrections = honest(wanted)
        return said, corrections + np.uint64(1)

    x, y = domains.share("x"), domains.share("y")
    free = domains.memory.free
    with pytest.raises(SharingRefused, match="dealer"):
        product(domains, x, y, deal=lies)
    with pytest.raises(SharingRefused, match="dealer"):
        product(domains, x, y, deal=lambda wanted: honest_of(wanted, Ed25519PrivateKey.generate()))
    product(domains, x, y)
    assert domains.memory.free == free - 3 * 8 * ITEMS


def honest_of(wanted: Wanted, key: Ed25519PrivateKey) -> tuple[dict[str, Any], np.ndarray]:
    said, corrections = unpack(
        np.frombuffer(answer(json.dumps(wanted.to_dict()).encode(), key), np.uint8)
    )
    assert isinstance(said, dict)
    return said, corrections


def test_without_a_dealer_there_are_no_products() -> None:
    domains = Domains.create()
    x = domains.share("x")
    with pytest.raises(TensorRefused, match="no dealer"):
        domains.kept["east"].begin_product(x, x, matrices=False, number=0)


def test_bounds_forbid_products_before_any_work(domains: Domains) -> None:
    x, y = domains.share("x"), domains.share("y")
    once = product(domains, x, y)
    with pytest.raises(TensorRefused, match="2\\^62"):
        domains.kept["east"].begin_product(once, once, matrices=False, number=0)


def test_a_dealer_is_nobody_who_takes_part(domains: Domains) -> None:
    bounds = Bounds(ITEMS, 4, USERS)
    admit(domains.plan, bounds, public=False)
    east = domains.plan.roster[0]
    for name, key in (
        ("notary", east.node_key),
        ("notary", east.owner_key),
        ("notary", domains.plan.scientist),
        (east.name, DEALER.key),
    ):
        plan = domains.plan.model_copy(update={"dealer": Dealer(name=name, key=key)})
        with pytest.raises(PlanRefused, match="party of its own"):
            admit(plan, bounds, public=False)
    text = domains.plan.explain()
    assert "notary" in text
    assert "colludes with nobody" in text


@pytest.mark.parametrize(
    ("phase", "said", "octets"),
    [
        ("open", {}, b""),
        ("begin", {}, b""),
        ("begin", {"x": "a", "y": "b", "matrices": 1, "number": 0}, b""),
        ("begin", {"x": "a", "y": "b", "matrices": False, "number": 0.5}, b""),
        ("triple", {}, b""),
        ("triple", {"keys": [], "dealt": {}}, b""),
        ("hear", {"said": {}}, b""),
        ("hear", {}, b"1234567"),
        ("opening", {"coins": [1]}, b""),
        ("check", {}, b""),
        ("end", {}, b""),
    ],
)
def test_nodes_take_only_the_steps_of_a_product(
    domains: Domains, phase: str, said: Mapping[str, Any], octets: bytes
) -> None:
    with pytest.raises((MalformedMessage, TensorRefused, SharingRefused)):
        multiply(domains.kept["east"], phase, said, octets)


def test_the_dealer_takes_only_what_is_signed(domains: Domains) -> None:
    asked: list[Wanted] = []

    def deal(wanted: Wanted) -> tuple[dict[str, Any], np.ndarray]:
        asked.append(wanted)
        return honest(wanted)

    x, y = domains.share("x"), domains.share("y")
    product(domains, x, y, deal=deal)
    good = asked[0].to_dict()
    for change in (
        {"number": 1},
        {"number": -1},
        {"plan_hash": "0" * 64},
        {"x": [2**20], "y": [2**20]},
        {"x": []},
        {"x": [0], "y": [0]},
        {"x": [2**16] * 4, "y": [2**16] * 4},
        {"keys": []},
        {"more": 1},
        {"matrices": True, "x": [2, 3], "y": [2, 3]},
        {"roster": {**good["roster"], "east": "0" * 64}},
        {"collusion": 3},
    ):
        with pytest.raises(HTTPException):
            answer(json.dumps(good | change).encode(), KEY)
    for bad in (b"", b"[]", b"{}", b"[" * 10_000):
        with pytest.raises(HTTPException):
            answer(bad, KEY)
    assert issubclass(DealerLied, SharingRefused)
    assert set(good["roster"]) == set(NAMES)
