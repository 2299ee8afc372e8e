"""Products and truncations of kept tensors at nodes: right, proven, and only with true dealings."""

import json
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import HTTPException
from fastapi.testclient import TestClient

from domains.computing import compute
from network.computing import Deal, carry
from network.dealer import MAX_REQUEST_BYTES, Wanted, build_app
from network.dealer import Dealer as DealingParty
from network.limits import Rate
from network.smpc.dealing import deal as dealing_deal
from network.smpc.dealing import unpack
from network.smpc.messages import MalformedMessage, SharingRefused
from network.smpc.tensors import Secret
from policies import sensitivity
from policies.admission import PlanRefused, admit
from policies.plan import Dealer
from policies.protection import check_dealer
from policies.sensitivity import Proven, TensorRefused, root
from policies.users import Bounds
from tests.domains.domains_of_tensors import CLIP_NORM, ITEMS, NAMES, USERS, Domains

KEY = Ed25519PrivateKey.generate()
DEALER = Dealer(name="notary", key=KEY.public_key().public_bytes_raw().hex())


@pytest.fixture
def domains() -> Domains:
    return Domains.create(dealer=DEALER)


def honest(wanted: Wanted) -> tuple[dict[str, Any], np.ndarray]:
    return dealt_by(wanted, KEY)


def dealt_by(wanted: Wanted, key: Ed25519PrivateKey) -> tuple[dict[str, Any], np.ndarray]:
    dealer = DealingParty(key, wanted.roster.values())
    packed = dealer.answer(json.dumps(wanted.to_dict()).encode())
    said, corrections = unpack(np.frombuffer(packed, np.uint8))
    assert isinstance(said, dict)
    return said, corrections


def computed(domains: Domains, asked: Secret, deal: Deal = honest) -> str:
    """The name of the tensor that all domains make."""
    proven = [domains.kept["east"].tensor(name).proven for name in asked.of]

    def tell(phase: str, told: Mapping[str, tuple[Any, np.ndarray]]) -> dict[str, Any]:
        return {
            name: compute(domains.kept[name], phase, json.loads(json.dumps(said)), words.tobytes())
            for name, (said, words) in told.items()
        }

    made = carry(domains.plan, deal, asked, asked.planned(proven)[1], tell)
    (name,) = {said.name for said in made.values()}
    return name


def product(domains: Domains, x: str, y: str, matrices: bool = False, deal: Deal = honest) -> str:
    do = "matrices" if matrices else "elements"
    return computed(domains, Secret(do=do, of=(x, y), number=3), deal)


def truncation(domains: Domains, x: str, dropped: int, begin: int = 0, end: int = 0) -> str:
    length = domains.kept["east"].tensor(x).proven.length
    asked = Secret(
        do="truncate", of=(x,), dropped=dropped, begin=begin, end=end or length, number=4
    )
    return computed(domains, asked)


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
    # Tensors without axes are multiplied and truncated as others are.
    one, other = (domains.apply("sum", each, axis=None) for each in (x, y))
    single = product(domains, one, other)
    assert np.allclose(domains.opened(single), u.sum() * v.sum(), rtol=1e-12)
    assert np.shape(domains.opened(truncation(domains, single, 3))) == ()
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
        product(domains, x, y, deal=lambda wanted: dealt_by(wanted, Ed25519PrivateKey.generate()))
    product(domains, x, y)
    assert domains.memory.free == free - 3 * 8 * ITEMS


def test_without_a_dealer_there_are_no_products() -> None:
    domains = Domains.create()
    x = domains.share("x")
    with pytest.raises(TensorRefused, match="no dealer"):
        domains.kept["east"].begin(Secret(do="elements", of=(x, x), number=0))


def test_bounds_forbid_products_before_any_work(domains: Domains) -> None:
    x, y = domains.share("x"), domains.share("y")
    once = product(domains, x, y)
    with pytest.raises(TensorRefused, match="2\\^62"):
        domains.kept["east"].begin(Secret(do="elements", of=(once, once), number=0))


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
    check_dealer(domains.plan, ["ab" * 32])
    with pytest.raises(PlanRefused, match="party of its own"):
        check_dealer(domains.plan, [DEALER.key])
    text = domains.plan.explain()
    assert "notary" in text
    assert "colludes with nobody" in text


@pytest.mark.parametrize(
    ("phase", "said", "octets"),
    [
        ("open", {}, b""),
        ("begin", {}, b""),
        ("begin", {"do": "elements", "of": ["a" * 64, "b" * 64], "number": 0.5}, b""),
        ("begin", {"do": "elements", "of": ["a" * 64, "b" * 64], "number": -1}, b""),
        ("begin", {"do": "elements", "of": ["a" * 64], "number": 1, "more": 2}, b""),
        ("begin", {"do": "open", "of": ["a" * 64], "number": 1}, b""),
        ("begin", {"do": "truncate", "of": ["../x"], "number": 1}, b""),
        ("take", {}, b""),
        ("take", {"keys": [], "dealt": {}}, b""),
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
        compute(domains.kept["east"], phase, said, octets)


def test_the_dealer_takes_only_what_is_signed(domains: Domains) -> None:
    asked: list[Wanted] = []

    def deal(wanted: Wanted) -> tuple[dict[str, Any], np.ndarray]:
        asked.append(wanted)
        return honest(wanted)

    x, y = domains.share("x"), domains.share("y")
    product(domains, x, y, deal=deal)
    good = asked[0].to_dict()
    dealer = DealingParty(KEY, good["roster"].values())
    for change in (
        {"number": 1},
        {"number": -1},
        {"plan_hash": "0" * 64},
        {"work": {**good["work"], "x": [2**20], "y": [2**20]}},
        {"work": {**good["work"], "x": []}},
        {"work": {**good["work"], "x": [0], "y": [0]}},
        {"work": {**good["work"], "x": [2**16] * 4, "y": [2**16] * 4}},
        {"work": {"matrices": True, "x": [2, 3], "y": [2, 3]}},
        {"work": {"matrices": True, "x": [], "y": []}},
        {"work": {"matrices": True, "x": [2], "y": []}},
        {"work": {"matrices": True, "x": [1, 2, 3], "y": [3]}},
        {"work": {"length": 2**19, "bound": 20, "dropped": 3}},
        {"work": {"length": 3, "bound": 20, "dropped": 21}},
        {"work": {"length": 3, "bound": 63, "dropped": 1}},
        {"work": {}},
        {"keys": []},
        {"more": 1},
        {"roster": {**good["roster"], "east": "0" * 64}},
        {"collusion": 3},
    ):
        with pytest.raises(HTTPException):
            dealer.answer(json.dumps(good | change).encode())
    for bad in (b"", b"[]", b"{}", b"[" * 10_000):
        with pytest.raises(HTTPException):
            dealer.answer(bad)
    assert set(good["roster"]) == set(NAMES)


def test_the_dealer_deals_to_whom_it_was_told_of_and_once(domains: Domains) -> None:
    asked: list[Wanted] = []

    def deal(wanted: Wanted) -> tuple[dict[str, Any], np.ndarray]:
        asked.append(wanted)
        return honest(wanted)

    product(domains, domains.share("x"), domains.share("y"), deal=deal)
    body = json.dumps(asked[0].to_dict()).encode()
    known = [domains.plan.roster[0].node_key, domains.plan.roster[1].node_key]
    for some in ((), known):
        with pytest.raises(HTTPException) as refused:
            DealingParty(KEY, some).answer(body)
        assert refused.value.status_code == 403
    dealer = DealingParty(KEY, asked[0].roster.values())
    dealer.answer(body)
    with pytest.raises(HTTPException) as refused:
        dealer.answer(body)
    assert refused.value.status_code == 409


def test_the_dealer_answers_one_address_at_a_bounded_rate() -> None:
    now = [0.0]
    rate = Rate(1.0, 3, lambda: now[0])
    client = TestClient(build_app(DealingParty(KEY, ()), rate))
    found = [client.post("/deal", content=b"{}").status_code for _ in range(5)]
    assert found == [422, 422, 422, 429, 429]
    now[0] = 2.0
    assert client.post("/deal", content=b" " * (MAX_REQUEST_BYTES + 1)).status_code == 413


def test_two_products_in_a_row_fit_once_the_first_is_truncated(domains: Domains) -> None:
    x, y = domains.share("x"), domains.share("y")
    u, v = domains.value("x"), domains.value("y")
    xy = product(domains, x, y)
    with pytest.raises(TensorRefused, match="truncate first"):
        product(domains, product(domains, xy, x), y)
    kept = domains.kept["east"].tensor(xy).proven
    dropped = sensitivity.bits_of(kept) // 2
    less = truncation(domains, xy, dropped)
    coarser = domains.kept["east"].tensor(less).proven
    assert coarser.unit == kept.unit * 2**dropped
    assert np.abs(domains.opened(less) - u * v).max() < float(coarser.unit)
    again = product(domains, less, x)
    largest = np.abs(u).max() * float(coarser.unit)
    assert np.abs(domains.opened(again) - u * v * u).max() < largest
    # What is revealed of it has the noise of a proven sensitivity.
    proven = domains.kept["east"].tensor(again).proven
    for party in domains.kept.values():
        share, moved = party.revealable(f"{again}/{ITEMS}", domains.plan.step("x"))
        assert share.size == ITEMS
        assert moved == sensitivity.units(proven)


def test_pieces_of_one_truncation_are_joined_and_no_others(domains: Domains) -> None:
    x, y = domains.share("x"), domains.share("y")
    square = domains.apply("reshape", x, shape=(2, 3))
    first, last = truncation(domains, square, 4, 0, 2), truncation(domains, square, 4, 2, 6)
    whole = domains.apply("join", first, last)
    proven = domains.kept["east"].tensor(whole).proven
    assert proven == sensitivity.truncated(domains.kept["east"].tensor(square).proven, 4)
    off = domains.opened(whole) - domains.value("x").reshape(2, 3)
    assert np.abs(off).max() < float(proven.unit)
    other = truncation(domains, square, 5, 2, 6)
    elsewhere = truncation(domains, x, 4, 2, 6)
    for wrong in (
        (last, first), (first,), (last,), (first, other), (first, elsewhere), (first, first),
        (first, last, last), (first, last, y), (x, y), (y,), (whole,),
    ):  # fmt: skip
        with pytest.raises(TensorRefused, match="joined"):
            domains.apply("join", *wrong)


@pytest.mark.parametrize(("dropped", "begin", "end"), [(0, 0, 6), (63, 0, 6), (3, 2, 2), (3, 0, 7)])
def test_what_cannot_be_truncated_is_refused(
    domains: Domains, dropped: int, begin: int, end: int
) -> None:
    x = domains.share("x")
    said = {
        "do": "truncate",
        "of": (x,),
        "dropped": dropped,
        "begin": begin,
        "end": end,
        "number": 0,
    }
    with pytest.raises((TensorRefused, MalformedMessage)):
        domains.kept["east"].begin(Secret.from_dict(said))


def test_domains_told_of_different_pieces_make_nothing(domains: Domains) -> None:
    x = domains.share("x")
    for name, begin in zip(NAMES, (0, 3, 0), strict=True):
        asked = Secret(do="truncate", of=(x,), dropped=4, begin=begin, end=begin + 3, number=0)
        domains.kept[name].begin(asked)
    keys = [domains.kept[name].computation.signed_key for name in NAMES]
    agreement = domains.kept["east"].computation.agreement
    with pytest.raises(SharingRefused, match="isn't signed for this"):
        dealing_deal(agreement, domains.kept["east"].computation.work, keys, KEY)


def test_no_user_moves_a_truncated_tensor_further_than_proven(domains: Domains) -> None:
    """For every public d, over integers that she moves in the worst ways."""
    random = np.random.default_rng(8)
    for _ in range(400):
        length, dropped = int(random.integers(1, 40)), int(random.integers(1, 12))
        moved2 = int(random.integers(1, 2000))
        before = random.integers(-(2**18), 2**18, length)
        after = before + integers_of(moved2, length, random)
        proven = Proven((length,), Fraction(1), 2**50, moved2, ("x",))
        less = sensitivity.truncated(proven, dropped)
        d = random.integers(0, 2**dropped, length)
        change = ((after + d) >> dropped) - ((before + d) >> dropped)
        assert (change**2).sum() <= less.sensitivity2
        norm2 = int((before**2).sum())
        rounded = sensitivity.truncated(Proven((length,), Fraction(1), norm2, 1, ("x",)), dropped)
        assert (((before + d) >> dropped) ** 2).sum() <= rounded.norm2


def integers_of(norm2: int, length: int, random: np.random.Generator) -> np.ndarray:
    """Integers of a squared norm of at most `norm2`: a few large ones or many of one."""
    found = np.zeros(length, np.int64)
    while norm2 > 0:
        most = math.isqrt(norm2)
        size = 1 if random.integers(2) else int(random.integers(1, most + 1))
        place = int(random.integers(length))
        if found[place]:
            break
        found[place] = size * random.choice([-1, 1])
        norm2 -= size**2
    return found
