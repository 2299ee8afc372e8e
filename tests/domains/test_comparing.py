"""Comparisons by SPU: refused without it, with how to get it; right, bounded and private with it.

    COTERIE_SPU=/opt/spu/bin/python pytest tests/domains/test_comparing.py

runs those that need SPU 0.9.5, in an environment of its own.
"""

import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from domains.comparing import Comparing, free_ports
from network.smpc.comparisons import Comparison, Offer, verify_offers
from network.smpc.messages import MalformedMessage, SharingRefused
from policies import bounded, sensitivity
from policies.admission import PlanRefused, admit
from policies.owner_policy import OwnerPolicy, PlanFacts
from policies.plan import Plan
from policies.sensitivity import Proven, TensorRefused
from policies.users import Bounds
from tests.domains.domains_of_tensors import ITEMS, NAMES, USERS, Domains

SPU = os.environ.get("COTERIE_SPU", "")
needs_spu = pytest.mark.skipif(not SPU, reason="needs SPU 0.9.5: COTERIE_SPU=PYTHON")


@pytest.fixture
def domains(tmp_path: Path) -> Domains:
    """Three domains that say where SPU is; whether it is there or not."""
    found = Domains.create(comparisons="spu")
    for name, port in zip(NAMES, free_ports(3), strict=True):
        found.spu[name] = tmp_path / f"{name}.toml"
        python = SPU or "/usr/bin/env"
        found.spu[name].write_text(f'python = "{python}"\naddress = "127.0.0.1:{port}"\n')
        found.restart(name)
    return found


def asked(do: str, x: str, low: int = 0, high: int = 0) -> Comparison:
    said = {"do": do, "of": x, "low": str(low), "high": str(high), "number": 7}
    return Comparison.from_dict(said)


@pytest.fixture(autouse=True)
def room_for_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """The domains of a test share this process; a node has one comparison at a time."""
    monkeypatch.setattr("domains.comparing._AT_WORK", threading.Semaphore(3))


def compared(domains: Domains, comparison: Comparison) -> str:
    """The name of what all domains make."""
    offers = [domains.kept[name].offer(comparison) for name in NAMES]
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda name: domains.kept[name].compare(offers), NAMES))
    (found,) = set(made)
    return found


def proven(domains: Domains, tensor: str) -> Proven:
    return domains.kept["east"].tensor(tensor).proven


@needs_spu
def test_comparisons_are_exact_and_bounded(domains: Domains) -> None:
    x, u = domains.share("x"), domains.value("x")
    unit = proven(domains, x).unit
    threshold = int(np.sort(u)[2] / unit)
    minus = domains.apply("scale", x, factor="-1")
    square = domains.apply("reshape", minus, shape=(2, 3))
    for comparison, wanted, moved in (
        (asked("above", x, threshold), u > threshold * float(unit), np.sqrt(ITEMS)),
        (asked("above", minus, -threshold), -u > -threshold * float(unit), np.sqrt(ITEMS)),
        (asked("argmax", square), one_hot(-u.reshape(2, 3)), 2.0),
        (asked("clip", x, -3000, 100), np.clip(u, -3000 * unit, 100 * unit),
         min(np.sqrt(ITEMS) * 3100 * unit, proven(domains, x).sensitivity)),
    ):  # fmt: skip
        made = compared(domains, comparison)
        assert np.allclose(domains.opened(made), np.asarray(wanted, float), rtol=1e-12)
        assert float(proven(domains, made).sensitivity) == pytest.approx(float(moved), 1e-4)
    for party in domains.kept.values():
        party.revealable(f"{made}/{ITEMS}", domains.plan.step("x"))


@needs_spu
@pytest.mark.parametrize("unit", [Fraction(1, 2**22), Fraction(-3, 7), Fraction(1, 10**9)])
def test_a_sigmoid_is_close_for_any_unit(domains: Domains, unit: Fraction) -> None:
    x = domains.share("x")
    for name, kept in domains.kept.items():
        known = kept.tensor(x)
        # The same integers, far out and close to 0, in another unit.
        mine = np.array([0, 1, -1, 5, -7, 40], float) / float(abs(unit)) / 8
        part = mine.astype(np.int64).view(np.uint64) if name == "east" else np.zeros(6, np.uint64)
        changed = Proven(known.proven.shape, unit, known.proven.norm2, 1, ("x",))
        kept._tensors[x] = type(known)(changed, part)
    value = domains.opened(x)
    made = compared(domains, asked("sigmoid", x))
    assert np.abs(domains.opened(made) - 1 / (1 + np.exp(-value))).max() < 0.005


@needs_spu
def test_shares_of_a_result_are_fresh(domains: Domains) -> None:
    x = domains.share("x")
    first, second = (compared(domains, asked("clip", x, -(2**40), 2**40)) for _ in range(2))
    assert np.array_equal(domains.opened(first), domains.opened(second))
    for name in NAMES:
        shares = [domains.shares(each)[name] for each in (x, first, second)]
        assert len({share.tobytes() for share in shares}) == 3


@needs_spu
def test_nobody_but_the_roster_takes_part(
    domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    """South's process shows another certificate than the one it signed: no link, and no result."""
    monkeypatch.setattr("domains.comparing._LINK_SECONDS", 4)
    monkeypatch.setattr("domains.comparing._SECONDS", 20)
    x = domains.share("x")
    comparison = asked("above", x)
    offers = [domains.kept[name].offer(comparison) for name in NAMES]
    parties = [begun(domains, name) for name in NAMES]
    south = parties[2]
    other = Comparing("south", south.agreement, domains.keys["south"], south._place)
    south.offer, south._tls_key = other.offer, other._tls_key
    job = comparison.job(proven(domains, x))

    def run(party: Comparing) -> None:
        party.transcript = b"t"
        with pytest.raises(SharingRefused, match="SPU failed here"):
            party._computed(offers, job, domains.shares(x)[party.me], 60)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, parties))


def begun(domains: Domains, name: str) -> Comparing:
    found = domains.kept[name]._comparing
    assert found is not None
    return found[1]


def one_hot(rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.eye(rows.shape[-1])[rows.argmax(axis=-1)]
    return found


def test_without_spu_the_refusal_says_how_to_install_it(domains: Domains, tmp_path: Path) -> None:
    x = domains.share("x")
    domains.spu["east"].unlink()
    with pytest.raises(TensorRefused, match=re.escape("pip install spu==0.9.5")):
        domains.kept["east"].offer(asked("above", x))
    for bad in ("", "python = 3", "[", 'python = "/no/such"\naddress = "127.0.0.1:1"',
                'python = "/usr/bin/env"\naddress = "127.0.0.1:1"\nmore = 1'):  # fmt: skip
        domains.spu["north"].write_text(bad)
        with pytest.raises(TensorRefused, match=r"north: .*pip install spu"):
            domains.kept["north"].offer(asked("above", x))
    plain = Domains.create()
    with pytest.raises(TensorRefused, match="has no comparisons"):
        plain.kept["east"].offer(asked("above", plain.share("x")))


def test_a_failing_engine_makes_nothing(domains: Domains) -> None:
    x = domains.share("x")
    free = domains.memory.free
    offers = [domains.kept[name].offer(asked("above", x)) for name in NAMES]
    object.__setattr__(begun(domains, "east")._place, "python", "/bin/false")
    with pytest.raises(SharingRefused, match="SPU failed here"):
        domains.kept["east"].compare(offers)
    with pytest.raises(TensorRefused, match="no comparison was begun"):
        domains.kept["east"].compare(offers)
    assert domains.memory.free == free


ENDLESS = """#!/bin/sh
[ "$2" = -c ] && { printf '%s\\n' "${0%/*}" /usr/bin /bin; exit; }
while :; do :; done
"""


def test_an_engine_is_ended_at_the_plans_deadline(domains: Domains, tmp_path: Path) -> None:
    """Whoever holds a comparison up doesn't hold up the run for longer than a release may take."""
    endless = tmp_path / "python"
    endless.write_text(ENDLESS)
    endless.chmod(0o700)
    domains.plan = domains.plan.model_copy(update={"deadline_s": 1})
    for name in NAMES:
        domains.restart(name)
    x = domains.share("x")
    offers = [domains.kept[name].offer(asked("above", x)) for name in NAMES]
    object.__setattr__(begun(domains, "east")._place, "python", str(endless))
    with pytest.raises(SharingRefused, match="SPU failed here: no result within 1 s"):
        domains.kept["east"].compare(offers)


def test_a_node_does_one_comparison_at_a_time(
    domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = domains.share("x")
    offers = [domains.kept[name].offer(asked("above", x)) for name in NAMES]
    monkeypatch.setattr("domains.comparing._AT_WORK", threading.Semaphore(0))
    with pytest.raises(SharingRefused, match="another comparison is under way"):
        domains.kept["east"].compare(offers)


def test_offers_are_everybodys_signed_for_this_comparison(domains: Domains) -> None:
    x = domains.share("x")

    def offers(comparison: Comparison) -> list[Offer]:
        return [domains.kept[name].offer(comparison) for name in NAMES]

    others = offers(asked("above", x, 1))
    mine = offers(asked("above", x))
    agreement = begun(domains, "east").agreement
    assert list(verify_offers(agreement, mine)) == sorted(NAMES)
    moved = mine[1].model_copy(update={"address": "127.0.0.1:9"})
    swapped = mine[1].model_copy(update={"certificate": others[1].certificate})
    for wrong in (mine[:2], [*mine, mine[0]], [*mine[:2], others[2]], [mine[0], moved, mine[2]],
                  [mine[0], swapped, mine[2]], [mine[0], mine[0], mine[2]]):  # fmt: skip
        with pytest.raises(SharingRefused):
            verify_offers(agreement, wrong)
    assert domains.kept["east"].offer(asked("above", x)).key != mine[0].key
    with pytest.raises(SharingRefused, match="isn't of this comparison"):
        domains.kept["east"].compare(mine)


@pytest.mark.parametrize(
    ("do", "low", "high"),
    [("clip", 1, 1), ("clip", 2, 1), ("clip", -(2**62), 0), ("above", 2**61, 0), ("open", 0, 0),
     ("above", 10**30, 0)],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(domains: Domains, do: str, low: int, high: int) -> None:
    x = domains.share("x")
    with pytest.raises((TensorRefused, MalformedMessage)):
        domains.kept["east"].offer(asked(do, x, low, high))


def test_no_user_moves_an_answer_further_than_proven() -> None:
    random = np.random.default_rng(2)
    for _ in range(300):
        length = int(random.integers(1, 30))
        before = random.integers(-50, 50, length)
        change = random.integers(-3, 4, length)
        x = Proven((length,), Fraction(-1, 4), 2**30, int((change**2).sum()), ("x",))
        low = int(random.integers(-20, 10))
        high = low + int(random.integers(1, 20))
        clipped = bounded.clipped(x, low, high)
        ends = [np.clip(each, low, high) for each in (before, before + change)]
        assert ((ends[0] - ends[1]) ** 2).sum() <= clipped.sensitivity2
        assert (ends[0] ** 2).sum() <= clipped.norm2
        above = [bounded.ONE * (each > low) for each in (before, -before)]
        assert ((above[0] - above[1]) ** 2).sum() <= bounded.answered(x).sensitivity2
        assert clipped.unit > 0
    rows = bounded.largest(Proven((4, 3), Fraction(1), 9, 9, ("x",)))
    hot = [bounded.ONE * one_hot(random.normal(size=(4, 3))) for _ in range(50)]
    assert max(((a - b) ** 2).sum() for a in hot for b in hot) <= rows.sensitivity2
    assert max((a**2).sum() for a in hot) <= rows.norm2


def test_a_clip_to_numbers_that_could_leave_the_ring_together_is_refused() -> None:
    """Else a truncation would take them for longer than 62 bits, for which it isn't right."""
    x = Proven((2**16,), Fraction(1), 2**80, 2**40, ("x",))
    with pytest.raises(TensorRefused, match=r"at most 2\^62 fit the ring"):
        bounded.clipped(x, 2**60, 2**61)
    assert sensitivity.bits_of(bounded.clipped(x, 2**40, 2**41)) <= 62
    assert bounded.clipped(x, -(2**61), 2**61).norm2 == x.norm2


def test_a_products_revealed_clip_has_the_clips_sensitivity() -> None:
    """However far a product may be moved: the final clip to declared bounds is what counts."""
    wide = Proven((10,), Fraction(1, 2**30), 2**120, 2**110, ("x", "y"))
    assert sensitivity.root(bounded.clipped(wide, -100, 100).sensitivity2) == 633


def test_admission_takes_three_domains_whose_owners_list_spu(domains: Domains) -> None:
    bounds = Bounds(ITEMS, 4, USERS)
    admit(domains.plan, bounds, public=False)
    text = domains.plan.explain()
    assert "honest majority" in text
    assert "SPU" in text
    plain = domains.plan.model_copy(update={"comparisons": None})
    assert "SPU" not in plain.explain()
    assert '"comparisons":"spu"' in domains.plan.to_json()
    assert Plan.from_json(domains.plan.to_json()) == domains.plan
    assert '"comparisons"' not in Domains.create().plan.to_json()
    two = domains.plan.model_copy(
        update={"roster": domains.plan.roster[:2], "threshold": 2, "two_domains": True}
    )
    with pytest.raises(PlanRefused, match="exactly three"):
        admit(two, bounds, public=False)
    facts = PlanFacts.of(domains.plan.events(), 1e-5, 1000, comparisons="spu")
    rules = OwnerPolicy(epsilon=100.0, min_noise_multiplier=0)
    assert [each.rule for each in rules.check(facts)] == ["comparisons"]
    assert rules.model_copy(update={"comparisons": ("spu",)}).check(facts) == []
