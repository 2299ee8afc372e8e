"""What a node does with tensors: exact maps, proven bounds, shares that say nothing."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chisquare

from domains.kept import Memory
from network.smpc.aggregation import Party
from network.smpc.agreement import agreement_of
from network.smpc.messages import MalformedMessage, SharingRefused
from network.smpc.tensors import Operation, fraction, read_matrix
from policies import sensitivity
from policies.admission import PlanRefused, admit
from policies.graph import TensorSpec
from policies.plan import Plan
from policies.protection import check_kept
from policies.sensitivity import Proven, TensorRefused, root
from policies.users import Bounds
from tests.domains.domains_of_tensors import CLIP_NORM, ITEMS, NAMES, USERS, Domains
from tests.network.roster_of_domains import Disk


@pytest.fixture
def domains() -> Domains:
    return Domains.create()


def proven(domains: Domains, tensor: str) -> Proven:
    return domains.kept["east"].tensor(tensor).proven


def test_the_shares_of_a_sum_add_up_to_it(domains: Domains) -> None:
    assert np.array_equal(domains.opened(domains.share("x")), domains.value("x"))


def test_every_domains_share_is_uniform_and_fresh(domains: Domains) -> None:
    """The value is the same each time; only chance differs."""
    step = domains.plan.step("x")
    many = step.model_copy(update={"releases": 100})
    plan = domains.plan.model_copy(update={"steps": (many, domains.plan.steps[1])})
    domains.plan = plan
    for name in NAMES:
        domains.restart(name)
    found = []
    for number in range(100):
        tensor = domains.share("x", number)
        found.append(domains.shares(tensor))
        for kept in domains.kept.values():
            kept.drop([tensor])
    for name in NAMES:
        octets = np.concatenate([each[name] for each in found]).view(np.uint8)
        # Fails by chance once in a thousand million runs.
        assert chisquare(np.bincount(octets, minlength=256)).pvalue > 1e-9


def test_public_linear_maps_are_exact(domains: Domains) -> None:
    x, y = domains.share("x"), domains.share("y")
    u, v = domains.value("x"), domains.value("y")
    matrix = np.array([[1, -2, 3, 0, 5, 1], [0, 1, 0, -1, 0, 7]])
    square = domains.apply("reshape", x, shape=(2, 3))
    cases = [
        (domains.apply("add", x, y), u + v),
        (domains.apply("scale", x, factor="-1000"), -1000 * u),
        (domains.apply("add", domains.apply("scale", x, factor="-3/8"), y), v - 0.375 * u),
        (domains.apply("sum", x, axis=None), u.sum()),
        (domains.apply("sum", square, axis=0), u.reshape(2, 3).sum(0)),
        (domains.apply("slice", square, bounds=((0, 2, 1), (0, 3, 2))), u.reshape(2, 3)[:, ::2]),
        (domains.apply("concatenate", square, square, axis=1), np.tile(u.reshape(2, 3), 2)),
        (domains.apply("left", x, public=matrix, factor="1/4"), matrix @ u / 4),
    ]
    for tensor, wanted in cases:
        assert np.allclose(domains.opened(tensor), wanted, rtol=1e-12)
        assert proven(domains, tensor).shape == np.shape(wanted)


def test_a_thousand_times_is_a_thousand_times_and_beside_itself_sqrt_two(domains: Domains) -> None:
    x = domains.share("x")
    own = proven(domains, x).sensitivity
    assert own == pytest.approx(CLIP_NORM, rel=1e-6)
    thousand = domains.apply("scale", x, factor="1000")
    beside = domains.apply("concatenate", x, x, axis=0)
    assert proven(domains, thousand).sensitivity == 1000 * own
    assert float(proven(domains, beside).sensitivity / own) == pytest.approx(math.sqrt(2), 1e-6)


def test_no_program_moves_further_than_proven(domains: Domains) -> None:
    """Random programs, against the worst user found for the linear map that they are."""
    random = np.random.default_rng(3)
    names = {"x": domains.share("x"), "y": domains.share("y")}
    basis = np.eye(2 * ITEMS)
    maps = {names["x"]: basis[:ITEMS], names["y"]: basis[ITEMS:]}
    for _ in range(150):
        a, b = (str(each) for each in random.choice(list(maps), 2))
        kind = random.integers(4)
        try:
            if kind == 0 and maps[a].shape == maps[b].shape:
                tensor, made = domains.apply("add", a, b), maps[a] + maps[b]
            elif kind == 1:
                factor = Fraction(int(random.integers(1, 9)), int(random.integers(1, 9)))
                factor *= int(random.choice([-1, 1]))
                tensor = domains.apply("scale", a, factor=str(factor))
                made = float(factor) * maps[a]
            elif kind == 2:
                tensor = domains.apply("concatenate", a, b, axis=0)
                made = np.concatenate([maps[a], maps[b]])
            else:
                matrix = random.integers(-3, 4, (4, len(maps[a]))) | 1
                tensor = domains.apply("left", a, public=matrix)
                made = matrix @ maps[a]
        except TensorRefused:
            continue
        maps[tensor] = made
        # One user moves x and y by vectors of norm CLIP_NORM each, in the worst directions.
        blocks = np.linalg.norm(made[:, :ITEMS], 2), np.linalg.norm(made[:, ITEMS:], 2)
        worst = CLIP_NORM * max(np.linalg.norm(made, 2), *blocks)
        assert worst <= float(proven(domains, tensor).sensitivity) * (1 + 1e-9)
    assert len(maps) > 60


def test_overflow_is_refused_from_bounds(domains: Domains) -> None:
    """The numbers here are far from overflowing; what could be there isn't."""
    x = domains.share("x")
    tensor = domains.apply("left", x, public=np.full((ITEMS, ITEMS), 2**20))
    with pytest.raises(TensorRefused, match="2\\^62"):
        domains.apply("left", tensor, public=np.full((ITEMS, ITEMS), 2**20))
    far = domains.apply("scale", x, factor=str(2**63))
    with pytest.raises(TensorRefused, match="2\\^62"):
        domains.apply("add", domains.apply("scale", x, factor=f"1/{2**63}"), far)


@pytest.mark.parametrize(
    "factor",
    ["0", "-0", "0/7", "1/0", "NaN", "inf", "1e-300", "-0.0", "0x1", "9" * 21, "1/" + "9" * 20],
)
def test_no_factor_makes_the_sensitivity_vanish(domains: Domains, factor: str) -> None:
    x = domains.share("x")
    with pytest.raises((TensorRefused, MalformedMessage)):
        domains.apply("scale", x, factor=factor)


def test_the_noise_in_integer_units_never_shrinks(domains: Domains) -> None:
    """Whatever the unit, the ring's integers carry at least the noise of the step itself."""
    x = domains.share("x")
    step = domains.plan.step("x")
    least = sensitivity.noise_share(proven(domains, x), domains.plan, step)
    tiny = x
    for _ in range(5):
        tiny = domains.apply("scale", tiny, factor=f"1/{2**60}")
    part = domains.apply("slice", tiny, bounds=((0, 1, 1),))
    for tensor in (tiny, part, domains.apply("sum", part, axis=0)):
        found = sensitivity.noise_share(proven(domains, tensor), domains.plan, step)
        assert found >= least
    for _ in range(3):
        tiny = domains.apply("scale", tiny, factor=f"1/{2**60}")
    with pytest.raises(TensorRefused, match="512 bits"):
        domains.apply("scale", tiny, factor=f"1/{2**60}")


def test_a_difference_is_accounted_as_both_together(domains: Domains) -> None:
    """A user who is in two tensors may move their difference by what she moves both."""
    x, y = domains.share("x"), domains.share("y")
    less = domains.apply("add", x, domains.apply("scale", y, factor="-1"))
    twice = domains.apply("add", x, domains.apply("scale", x, factor="-2"))
    assert float(proven(domains, less).sensitivity) == pytest.approx(2 * CLIP_NORM, 1e-6)
    assert float(proven(domains, twice).sensitivity) == pytest.approx(3 * CLIP_NORM, 1e-6)
    assert proven(domains, less).sources == ("x", "y")


@pytest.mark.parametrize("cell", [np.nan, np.inf, -np.inf])
def test_a_public_matrix_of_the_wire_has_no_such_numbers(domains: Domains, cell: float) -> None:
    """It is integers: the bits of a NaN are just a large one, beyond what passes."""
    x = domains.share("x")
    bits = np.full((1, ITEMS), cell).view(np.int64)
    with pytest.raises(TensorRefused, match="none beyond"):
        domains.apply("left", x, public=bits)
    with pytest.raises(TensorRefused, match="none beyond"):
        domains.apply("left", x, public=np.full((1, ITEMS), -(2**63)))


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", '{"do":"open","of":["' + "a" * 64 + '"]}',
        '{"do":"add","of":[]}', '{"do":"sum","of":["x"],"axis":0}',
        '{"do":"sum","of":["' + "a" * 64 + '"],"axis":-1}',
        '{"do":"sum","of":["' + "a" * 64 + '"],"axis":1.0}',
        '{"do":"slice","of":["' + "a" * 64 + '"],"bounds":[[0,1]]}',
        '{"do":"scale","of":["' + "a" * 64 + '"],"factor":2}',
        '{"do":"sum","of":["' + "a" * 64 + '"],"more":1}', "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_operation_is_refused(text: str) -> None:
    with pytest.raises(MalformedMessage):
        Operation.read(text)


def test_operands_must_be_kept_here_and_fit(domains: Domains) -> None:
    x = domains.share("x")
    other = Domains.create("another plan")
    foreign = other.share("x")
    wide = domains.apply("concatenate", x, x, axis=0)
    for wrong in (("add", x, foreign), ("add", x, wide), ("add", x), ("sum", x, x)):
        with pytest.raises(TensorRefused):
            domains.apply(*wrong)
    for bounds in (((0, 7, 1),), ((0, 0, 1),), ((0, 6, 0),), ((0, 6, 1),) * 2):
        with pytest.raises(TensorRefused):
            domains.apply("slice", x, bounds=bounds)
    with pytest.raises(TensorRefused):
        domains.apply("reshape", x, shape=(5,))
    operation = Operation(do="left", of=(x,), shape=(1, 6), matrix="0" * 64)
    with pytest.raises(TensorRefused, match="isn't the one"):
        domains.kept["east"].apply(operation, np.ones((1, 6), np.int64))
    with pytest.raises(TensorRefused):
        read_matrix(np.zeros(7, np.uint8), (1, 6))


def test_a_sharing_takes_everybodys_own_fresh_key(domains: Domains) -> None:
    first = [domains.kept[name].key("x", 1) for name in NAMES]
    again = domains.kept["east"].key("x", 1)
    with pytest.raises(SharingRefused, match="isn't of this sharing"):
        domains.kept["east"].share("x", 1, first, b"")
    mine = [again, *first[1:]]
    for wrong in (mine[:2], [*mine, mine[0]], [mine[0], mine[1], mine[1]]):
        with pytest.raises(SharingRefused):
            domains.kept["east"].share("x", 1, wrong, b"")
    forged = mine[2].model_copy(update={"key": mine[1].key})
    with pytest.raises(SharingRefused):
        domains.kept["east"].share("x", 1, [*mine[:2], forged], b"")
    for step, number in (("y", 1), ("x", 2)):
        with pytest.raises(TensorRefused, match="ask for a key"):
            domains.kept["east"].share(step, number, mine, b"")
    others = [each.key("x", 2) for each in list(domains.kept.values())[1:]]
    with pytest.raises(SharingRefused, match="isn't signed for this"):
        domains.kept["east"].share("x", 1, [again, *others], b"")


def test_a_step_is_shared_as_often_as_approved(domains: Domains) -> None:
    for number in range(3):  # one release and two spare attempts
        domains.share("y", number)
    with pytest.raises(TensorRefused, match="as approved"):
        domains.share("y", 3)
    with pytest.raises(TensorRefused, match="keeps no step"):
        domains.kept["east"].key("z", 0)


@pytest.mark.parametrize("number", [-1, 2**32, 2**70])
def test_sharings_are_numbered_within_bounds(domains: Domains, number: int) -> None:
    with pytest.raises(TensorRefused, match="no such sharing"):
        domains.kept["east"].key("x", number)
    keys = [kept.key("x", 0) for kept in domains.kept.values()]
    with pytest.raises(TensorRefused, match="no such sharing"):
        domains.kept["east"].share("x", number, keys, b"")


def test_memory_is_bounded_and_given_back(domains: Domains) -> None:
    domains.memory.free = 8 * ITEMS * 3 * 2 + 16 * 2 * ITEMS
    x = domains.share("x")
    domains.apply("reshape", x, shape=(2, 3))
    domains.memory.free -= 16 * 2 * ITEMS  # what a map takes while it lasts
    with pytest.raises(TensorRefused, match="no room left"):
        domains.share("x", 1)
    for kept in domains.kept.values():
        kept.clear()
    assert domains.memory.free == 8 * ITEMS * 3 * 2


def test_the_operations_have_one_text_and_name(domains: Domains) -> None:
    operation = Operation(do="scale", of=("a" * 64,), factor="1/3")
    assert Operation.read(operation.text) == operation
    other = operation.model_copy(update={"factor": "2/6"})
    names = {operation.name("0" * 64), operation.name("1" * 64), other.name("0" * 64)}
    assert len(names) == 3
    assert fraction("2/6") == fraction("1/3")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"threshold": 2}, "threshold"),
        ({"aggregation": "ckks"}, "aggregation"),
    ],
)
def test_admission_refuses_plans_whose_tensors_could_not_hold(
    domains: Domains, change: dict[str, object], what: str
) -> None:
    bounds = Bounds(ITEMS, 4, USERS)
    admit(domains.plan, bounds, public=False)
    with pytest.raises(PlanRefused, match=what):
        admit(domains.plan.model_copy(update=change), bounds, public=False)
    with pytest.raises(PlanRefused, match="bound on users"):
        admit(domains.plan, Bounds(ITEMS, 4, USERS + 1), public=False)
    sampled = domains.plan.steps[0].model_copy(update={"sampling_rate": 0.5})
    with pytest.raises(PlanRefused, match="sampling_rate"):
        admit(domains.plan.model_copy(update={"steps": (sampled,)}), bounds, public=False)


def test_a_tensor_has_four_axes_at_most(domains: Domains) -> None:
    """Also as an output of a step: refused before anybody approves."""
    step = domains.plan.step("x")
    deep = TensorSpec(name=step.outputs[0].name, shape=(1, 2, 1, 3, 1), dtype="float32")
    plan = domains.plan
    check_kept(plan, step, USERS)
    with pytest.raises(PlanRefused, match="at most 4 axes"):
        check_kept(plan, step.model_copy(update={"outputs": (deep,)}), USERS)
    with pytest.raises(MalformedMessage):
        Operation.from_dict({"do": "reshape", "of": ("a" * 64,), "shape": (1, 2, 1, 3, 1)})


def test_one_run_leaves_room_for_others() -> None:
    node = Memory(1000)
    run, other = Memory(600, node), Memory(600, node)
    run.take(600)
    with pytest.raises(TensorRefused, match="This run has no room"):
        run.take(1)
    with pytest.raises(TensorRefused, match="This node has no room"):
        other.take(401)
    assert (other.free, node.free) == (600, 400)
    run.give(600)
    with other.taken(600):
        assert node.free == 400
    assert (run.free, other.free, node.free) == (600, 600, 1000)


def test_a_kept_step_costs_what_its_reveals_cost(domains: Domains) -> None:
    assert domains.plan.schedule() == ()
    assert [event.count for event in domains.plan.events()] == [3, 1, 2]
    text = domains.plan.explain()
    assert "stay shared among the partners" in text
    assert "3 results may be revealed" in text
    assert Plan.from_json(domains.plan.to_json()) == domains.plan
    assert [root(square) for square in (16, 17)] == [4, 5]


def test_domains_asked_for_different_tensors_open_nothing(domains: Domains) -> None:
    """The tensor's name is in what adverts sign, and so in every mask."""
    x = domains.share("x")
    other = domains.apply("scale", x, factor="1000")

    parties = {}
    for name, tensor in zip(NAMES, (x, x, other), strict=True):
        agreement = agreement_of(domains.plan, "x", 0, 0, f"{tensor}/{ITEMS}")
        parties[name] = Party(name, agreement, domains.keys[name], Disk())
    adverts = [party.advertise() for party in parties.values()]
    for party in parties.values():
        with pytest.raises(SharingRefused, match="isn't signed for this attempt"):
            party.share(adverts)
